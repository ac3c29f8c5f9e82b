"""From the name of a model to a recommender in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixrec_automl import paths
from mixrec_automl.registry import ModelVersion, Registry, scratch_folder
from trainers.baselines.package import is_baseline_package, read_baseline_package
from trainers.package import Package, is_package, read_package
from trainers.recommend import Recommender


@dataclass(frozen=True)
class LoadedModel:
    """A recommender, and which one it is."""

    version: ModelVersion | None
    """None for a folder"""
    name: str
    package: Recommender


@dataclass(frozen=True)
class ModelSource:
    """What a user calls a model: a registered name (its champion), `name@alias`, `name/version`, the same behind
    `models:/`, or the folder of a package of MixRec or of a baseline."""

    reference: str
    tracking_uri: str
    cache_bytes: int = 0
    """For keys and values of histories (`trainers.history_cache`); 0: none are kept"""

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self.tracking_uri)

    @property
    def folder(self) -> Path | None:
        """The folder that is meant, or None for a registered model."""
        folder = Path(self.reference)
        return folder if is_package(folder) or is_baseline_package(folder) else None

    def version(self) -> ModelVersion | None:
        """What the name stands for now, or None for a folder.

        Raises:
            UserError: no such model, or the registry does not answer.
        """
        return None if self.folder else self._registry.find(self.reference)

    def load(self, version: ModelVersion | None) -> LoadedModel:
        """Read what `version` gave, on this process's device. Raises UserError where the files are gone or broken."""
        folder = self.folder
        if version is None and folder is not None:
            baseline = is_baseline_package(folder)
            package = read_baseline_package(folder) if baseline else self._read(folder)
            return LoadedModel(None, folder.absolute().name, package)
        assert version is not None, "a name without a folder has a version"
        with scratch_folder() as scratch:
            return LoadedModel(version, version.name, self._read(self._registry.fetch(version, Path(scratch))))

    def _read(self, folder: Path) -> Package:
        return read_package(folder, cache_bytes=self.cache_bytes)


def load_now(reference: str) -> LoadedModel:
    """What `reference` stands for now, as `ModelSource` takes it, from this process's registry. Raises UserError."""
    source = ModelSource(reference, paths.tracking_uri())
    return source.load(source.version())

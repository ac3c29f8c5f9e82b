"""A trained baseline as one folder that needs nothing else.

baseline.json        format, model, settings, what its training started from, what else it describes of itself, the data
weights.safetensors  its weights, with the tokens of the items where the model reads them
texts.safetensors    text vectors of the items, where the model reads them
catalogue.parquet    id, title, sentence of every item, in index order
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from trainers import checkpoint
from trainers.baselines.baseline import Baseline
from trainers.baselines.build import build_baseline
from trainers.baselines.config import BaselineName, BaselinesConfig, RecFormerConfig
from trainers.baselines.text_body import TextBody
from trainers.data.sequence_data import Catalogue
from trainers.device import pick_device
from trainers.errors import UserError
from trainers.model.sentence_encoder import Reading
from trainers.package import CATALOGUE, WEIGHTS, read_catalogue, reading, whole_folder, write_catalogue

FORMAT = 1
DESCRIPTION, TEXTS = "baseline.json", "texts.safetensors"
REMEDY = "Train it again: mixrec-automl baselines run"


@dataclass(frozen=True)
class BaselinePackage:
    """A loaded baseline; a `trainers.recommend.Recommender`."""

    name: BaselineName
    model: Baseline[Any]
    catalogue: Catalogue
    data_fingerprint: str

    @property
    def reads_texts(self) -> bool:
        """See `Recommender`."""
        return False

    @torch.inference_mode()
    def score(self, histories: Sequence[NDArray[np.int32]]) -> Tensor:
        """See `Recommender`."""
        return torch.stack([self.model.score_history(items) for items in histories])

    def score_texts(self, histories: Sequence[Sequence[str]]) -> Tensor:
        """Raises UserError."""
        raise UserError(
            f"{self.name} cannot read {len(histories[0])} texts, for it knows items alone: give identifiers of items"
        )


def write_baseline_package(
    folder: Path,
    name: BaselineName,
    settings: BaselinesConfig,
    model: Baseline[Any],
    catalogue: Catalogue,
    data_fingerprint: str,
) -> None:
    """Write `model`, built from the settings of `name`. `folder` must not exist; it appears whole or not at all."""
    with whole_folder(folder) as made:
        checkpoint.write(made / WEIGHTS, {key: value.cpu() for key, value in model.state_dict().items()}, {})
        if model.text_vectors is not None:
            checkpoint.write(made / TEXTS, {"texts": model.text_vectors.cpu()}, {})
        write_catalogue(catalogue, made / CATALOGUE)
        told = {
            "format": FORMAT,
            "model": name,
            "settings": asdict(settings),
            "num_users": model.num_users,
            "started_from": model.started_from,
            "data": data_fingerprint,
            "description": model.description,
        }
        (made / DESCRIPTION).write_text(json.dumps(told, indent=2), encoding="utf-8")


def is_baseline_package(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def started_from(folder: Path) -> str | None:
    """What the training of the package in `folder` started from; None where there is none, or one that does not say."""
    try:
        told = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = told.get("started_from") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None


def read_baseline_package(folder: Path) -> BaselinePackage:
    """Load a package on this process's device, ready to score.

    Raises:
        UserError: `folder` is no whole package of this format; names the part that is missing or broken.
    """
    with reading(folder, DESCRIPTION, REMEDY):
        told = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, expected {FORMAT}")
        settings = TypeAdapter(BaselinesConfig).validate_python(told["settings"])
        name: BaselineName = TypeAdapter(BaselineName).validate_python(told["model"])
        num_users, fingerprint = int(told["num_users"]), str(told["data"])
    with reading(folder, CATALOGUE, REMEDY):
        catalogue = read_catalogue(folder / CATALOGUE)
    with reading(folder, TEXTS, REMEDY):
        texts = load_file(folder / TEXTS)["texts"].numpy() if (folder / TEXTS).exists() else None
        if texts is not None and (texts.dtype != np.float32 or len(texts) != len(catalogue)):
            raise ValueError("it holds no text vectors of these items")
    with reading(folder, WEIGHTS, REMEDY):

        def kept(encoder: str, reading: Reading) -> NDArray[np.float32]:
            if texts is None:
                raise FileNotFoundError(f"{TEXTS} with the vectors of {encoder} ({reading})")
            return texts

        def body(asked: RecFormerConfig) -> TextBody:
            raise TypeError(f"{asked} is at hand")

        model = build_baseline(settings.of(name), catalogue, num_users, kept, body, told["description"])
        model.load_state_dict(load_file(folder / WEIGHTS))
        model.started_from = str(told["started_from"])
    return BaselinePackage(name, model.to(pick_device()).eval(), catalogue, fingerprint)

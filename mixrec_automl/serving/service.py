"""The recommender behind the HTTP service: answers batches, and follows its model's alias."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict

from mixrec_automl.registry import ModelVersion
from mixrec_automl.serving.loading import LoadedModel, ModelSource
from mixrec_automl.serving.messages import Answer, Asked, Item, ModelInfo, Refusal
from trainers.errors import UserError
from trainers.package import Package
from trainers.recommend import Query, Recommendation, recommend_each
from trainers.secrecy import without_secrets

POLL_SECONDS = 5.0
"""How often the registry is asked where the alias points."""
LONGEST_WAIT = 600.0
"""Seconds before a version that could not be read is tried again; each wait is twice the one before."""

_log = logging.getLogger(__name__)


class RecommenderService:
    """Answers with one model until a newer one is loaded; a batch that has begun keeps the one it began with.

    Args:
        source: read at once.

    Raises:
        UserError: there is no such model, or it cannot be read.
    """

    def __init__(self, source: ModelSource, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._source = source
        self._poll_seconds = poll_seconds
        self._model = source.load(source.version())
        self._trouble: str | None = None
        self._unreadable: ModelVersion | None = None
        self._wait = self._try_again_at = 0.0
        self._closing = threading.Event()
        if self._model.version is not None:
            threading.Thread(target=self._follow, name="follow-alias", daemon=True).start()

    @property
    def model(self) -> ModelInfo:
        """What answers now."""
        return _info(self._model)

    @property
    def trouble(self) -> str | None:
        """Why the model that the alias points to is not served, or where it points cannot be asked; None: it is.

        For everybody to read: what exactly went wrong, with its addresses and paths, is in the log alone.
        """
        return self._trouble

    @property
    def cache_outcomes(self) -> dict[str, int]:
        """Histories that were known, continued or new to the model of now; empty where it keeps none."""
        package = self._model.package
        return package.cache.outcomes if isinstance(package, Package) and package.cache else {}

    def close(self) -> None:
        """Follow the alias no longer."""
        self._closing.set()

    def answer(self, asked: Sequence[Asked]) -> list[Answer | Refusal]:
        """The answer to each request, all read together; a refusal stands in its place and harms no other."""
        model = self._model
        refusals = [_refusal(model, one) for one in asked]
        accepted = [one for one, refusal in zip(asked, refusals, strict=True) if refusal is None]
        found = iter(recommend_each(model.package, [_query(model, one) for one in accepted]))
        return [refusal or _answer(model, one, next(found)) for one, refusal in zip(asked, refusals, strict=True)]

    def refresh(self) -> None:
        """Load what the alias points to, if it has moved. A model that cannot be had leaves the old one in place."""
        try:
            version = self._source.version()
        except UserError as error:
            self._tell("the registry does not tell where the alias points", error)
            return
        if version != self._model.version:
            if version == self._unreadable and time.monotonic() < self._try_again_at:
                return
            try:
                self._model = self._source.load(version)
            except UserError as error:
                self._wait_with(version)
                self._tell(f"version {version.version if version else ''} cannot be read", error)
                return
            _log.info("now served: %s", self.model)
        self._trouble = None

    def _wait_with(self, version: ModelVersion | None) -> None:
        """To fetch a large package again and again would leave less for answers."""
        is_same = version == self._unreadable
        self._unreadable, self._wait = version, min(2 * self._wait, LONGEST_WAIT) if is_same else self._poll_seconds
        self._try_again_at = time.monotonic() + self._wait

    def _tell(self, trouble: str, error: Exception) -> None:
        if trouble != self._trouble:
            _log.warning("%s: %s", trouble, without_secrets(str(error)))
        self._trouble = trouble

    def _follow(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception as error:  # whatever it is, the model at hand still answers
                self._tell("the alias cannot be followed", error)


def _info(model: LoadedModel) -> ModelInfo:
    version = None if model.version is None else model.version.version
    return ModelInfo(name=model.name, version=version, items=len(model.package.catalogue))


def _refusal(model: LoadedModel, asked: Asked) -> Refusal | None:
    """Why a well-formed request has no answer from this model."""
    package = model.package
    if asked.texts is not None and not package.reads_texts:
        return Refusal(detail=f"{model.name} reads no texts: give `history`, identifiers of items")
    if asked.history is not None and not any(item in package.catalogue.index for item in asked.history):
        return Refusal(
            detail=f"no item of the history is among the {len(package.catalogue)} items of {model.name}: "
            f"give identifiers of its catalogue" + (", or `texts`" if package.reads_texts else "")
        )
    return None


def _query(model: LoadedModel, asked: Asked) -> Query:
    index = model.package.catalogue.index
    history = asked.texts or [item for item in asked.history or () if item in index]
    allow = None if asked.allow is None else frozenset(asked.allow)
    return Query(history, asked.texts is not None, asked.k, asked.exclude_seen, allow, frozenset(asked.deny))


def _answer(model: LoadedModel, asked: Asked, found: Sequence[Recommendation]) -> Answer:
    index = model.package.catalogue.index
    return Answer(
        model=_info(model),
        recommendations=[Item(**asdict(item)) for item in found],
        unknown=[item for item in asked.history or () if item not in index],
    )

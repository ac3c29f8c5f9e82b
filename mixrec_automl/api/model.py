"""A model of the registry in memory, which recommends: `mixrec_automl.load_model`."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from mixrec_automl.serving.loading import LoadedModel


@dataclass(frozen=True, repr=False)
class Model:
    """A recommender that stays loaded. What comes into the registry later does not change it."""

    loaded: LoadedModel

    @property
    def name(self) -> str:
        """Under which it is registered; of one from a folder, the folder's."""
        return self.loaded.name

    @property
    def version(self) -> str | None:
        """In the registry; None of one from a folder."""
        return None if self.loaded.version is None else self.loaded.version.version

    def recommend(
        self,
        items: Iterable[str] | None = None,
        *,
        texts: Iterable[str] | None = None,
        k: int = 10,
        exclude_seen: bool = False,
    ) -> pd.DataFrame:
        """The top items after one history.

        Args:
            items: the history as identifiers of the catalogue, oldest first.
            texts: the history as free text instead, a description an item.
            k: number of recommendations.
            exclude_seen: leave the items of the history out.

        Returns:
            [k or fewer], the best first: columns `rank`, `item`, `title` and `score` (log-probability).

        Raises:
            UserError: neither or both of `items` and `texts`, an unknown item, or a model that reads no texts.
        """
        import pandas as pd

        from trainers.recommend import Query, recommend

        given = texts if items is None else items
        if given is None or (items is not None and texts is not None):
            raise UserError("give the history either as items=[...] or as texts=[...]")
        found = recommend(self.loaded.package, Query(_listed(given), items is None, operator.index(k), exclude_seen))
        return pd.DataFrame([asdict(one) for one in found], columns=["rank", "item", "title", "score"])

    def __repr__(self) -> str:
        return f"<model {self.name!r}{'' if self.version is None else f' version {self.version}'}>"


def _listed(history: Iterable[str]) -> list[str]:
    """A string is a sequence of letters, and so would pass for a history of them."""
    listed = [history] if isinstance(history, str) else list(history)
    if any(not isinstance(one, str) for one in listed):
        raise UserError("identifiers of items are texts, as in items=['50', '172']")
    return listed


def load_model(model: str | Path) -> Model:
    """Read a model into memory, on the GPU where there is one.

    Args:
        model: a registered name (its champion), `name@alias`, `name/version`, or the folder of a package.

    Raises:
        UserError: no such model, the registry does not answer, or the files are gone or broken.
    """
    from mixrec_automl.serving.loading import load_now

    return Model(load_now(str(model)))

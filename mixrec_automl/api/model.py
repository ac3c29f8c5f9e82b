"""A model of the registry in memory, which recommends: `mixrec_automl.load_model`."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

    from mixrec_automl.serving.loading import LoadedModel
    from trainers.recommend import Query


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
        allow: Iterable[str] | None = None,
        deny: Iterable[str] = (),
    ) -> pd.DataFrame:
        """The top items after one history.

        Args:
            items: the history as identifiers of the catalogue, oldest first.
            texts: the history as free text instead, a description an item.
            k: number of recommendations.
            exclude_seen: leave the items of the history out.
            allow: the only items that may be recommended; None: all.
            deny: items that must not be recommended.

        Returns:
            [k or fewer], the best first: columns `rank`, `item`, `title` and `score` (log-probability).

        Raises:
            UserError: neither or both of `items` and `texts`, an unknown item, or a model that reads no texts.
        """
        from trainers.recommend import Recommendation, recommend

        query = _query(items, texts, k=k, exclude_seen=exclude_seen, allow=allow, deny=deny)
        return _table(Recommendation, recommend(self.loaded.package, query))

    def why(
        self,
        items: Iterable[str] | None = None,
        *,
        texts: Iterable[str] | None = None,
        k: int = 10,
        exclude_seen: bool = False,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] = (),
    ) -> pd.DataFrame:
        """What each answer of `recommend`, asked the same, owes to each item of the history.

        Returns:
            A row for each answer and each item of the history without which it is scored again, the answers in their
            order, the largest drop first: columns `rank`, `item`, `title`, `because`, `because_title` and `drop`, by
            which the log-probability falls without that item. None for a history of one item alone.

        Raises:
            UserError: as `recommend`.
        """
        import pandas as pd

        from trainers.explanation import occlusion
        from trainers.recommend import recommend

        query = _query(items, texts, k=k, exclude_seen=exclude_seen, allow=allow, deny=deny)
        found = recommend(self.loaded.package, query)
        rows = [
            (one.rank, one.item, one.title, reason.item, reason.title, reason.drop)
            for one, reasons in zip(found, occlusion(self.loaded.package, query, found), strict=True)
            for reason in reasons
        ]
        return pd.DataFrame(rows, columns=["rank", "item", "title", "because", "because_title", "drop"])

    def gates(self, items: Iterable[str] | None = None, *, texts: Iterable[str] | None = None) -> pd.DataFrame:
        """How much of each item's reading was within that item alone.

        Returns:
            A row for each item of the history that the model reads, oldest first: columns `item`, `title` and
            `context_share`, the gates' weight of the context-masked attention. None for a model without such gates.

        Raises:
            UserError: as `recommend`.
        """
        from trainers.gates import GateShare, gate_shares

        return _table(GateShare, gate_shares(self.loaded.package, _query(items, texts)))

    def rank_new(
        self,
        new: Iterable[str],
        items: Iterable[str] | None = None,
        *,
        texts: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Items that the catalogue lacks, ranked after one history by what their texts could be of.

        Args:
            new: a description of each, one or more.
            items: as `recommend`; so `texts`.

        Returns:
            The best first: columns `rank`, `text` and `score` (log-probability).

        Raises:
            UserError: as `recommend`; no `new` item, an empty one, or a model that was not trained with the alignment
                loss.
        """
        from trainers.new_items import NewItem, rank_new

        described = _listed(new, "descriptions of new items are texts, as in new=['a camping lantern']")
        if not described:
            raise UserError("there is no new item to rank: give new=['a camping lantern', ...]")
        return _table(NewItem, rank_new(self.loaded.package, _query(items, texts, k=len(described)), described))

    def similar(self, item: str | None = None, *, text: str | None = None, k: int = 10) -> pd.DataFrame:
        """The items nearest to one of the catalogue, or to what a text describes.

        Returns:
            [k or fewer], the nearest first: columns `rank`, `item`, `title` and `cosine`.

        Raises:
            UserError: neither or both of `item` and `text`, an unknown item, an empty text, or a model without trained
                vectors of items.
        """
        from trainers.similar import SimilarItem, similar_to_item, similar_to_text

        package, count = self.loaded.package, operator.index(k)
        if item is not None and text is None:
            found = similar_to_item(package, item, count)
        elif text is not None and item is None:
            found = similar_to_text(package, text, count)
        else:
            raise UserError("give what the items are to be near to, either as item='...' or as text='...'")
        return _table(SimilarItem, found)

    def __repr__(self) -> str:
        return f"<model {self.name!r}{'' if self.version is None else f' version {self.version}'}>"


def _query(
    items: Iterable[str] | None,
    texts: Iterable[str] | None,
    *,
    k: int = 1,
    exclude_seen: bool = False,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] = (),
) -> Query:
    """Raises UserError for neither or both histories, or what is none."""
    from trainers.recommend import Query

    given = texts if items is None else items
    if given is None or (items is not None and texts is not None):
        raise UserError("give the history either as items=[...] or as texts=[...]")
    allowed = None if allow is None else frozenset(_listed(allow))
    return Query(_listed(given), items is None, operator.index(k), exclude_seen, allowed, frozenset(_listed(deny)))


def _listed(given: Iterable[str], otherwise: str = "identifiers of items are texts, as in items=['50']") -> list[str]:
    """A string is a sequence of letters, and so would pass for several of them."""
    listed = [given] if isinstance(given, str) else list(given)
    if any(not isinstance(one, str) for one in listed):
        raise UserError(otherwise)
    return listed


def _table(kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> pd.DataFrame:
    """One row each, with the columns that `kind` has even where there is none."""
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(kind)])


def load_model(model: str | Path) -> Model:
    """Read a model into memory, on the GPU where there is one.

    Args:
        model: a registered name (its champion), `name@alias`, `name/version`, or the folder of a package.

    Raises:
        UserError: no such model, the registry does not answer, or the files are gone or broken.
    """
    from mixrec_automl.serving.loading import load_now

    return Model(load_now(str(model)))

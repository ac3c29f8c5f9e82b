"""Which trained weights of MixRec have a row for each item or user, and so are of one data set."""

from __future__ import annotations

from trainers.model.mixrec import MixRec


def tables_of_items(model: MixRec) -> tuple[str, ...]:
    """Names in its `state_dict`."""
    own = ("item_projection.weight", "item_projection.bias", *(() if model.item_text is None else ("item_text",)))
    return own if model.collaborative is None else own + _of_collaborative(model.collaborative.items)


def tables_of_users(model: MixRec) -> tuple[str, ...]:
    """Names in its `state_dict`."""
    return () if model.collaborative is None else _of_collaborative(model.collaborative.users)


def _of_collaborative(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"collaborative.{name}" for name in names)

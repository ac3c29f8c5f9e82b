"""Rows by name and number, and the checks that guard a change.

Whoever changes a search or anything of it locks the search's row: one lock, so that no two writers wait for each other.
"""

from __future__ import annotations

import difflib
import math

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixrec_automl.store.errors import StaleAttemptError, WrongStateError
from mixrec_automl.store.models import SearchRow, TrialRow
from mixrec_automl.store.records import TrialState
from trainers.errors import UserError
from trainers.secrecy import without_secrets


def search_row(session: Session, name: str, *, lock: bool = False) -> SearchRow:
    query = select(SearchRow).where(SearchRow.name == name)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        names = list(session.scalars(select(SearchRow.name)))
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f"did you mean {close[0]!r}? `mixrec-automl searches` lists all" if close else "there are none yet"
        raise UserError(f"no search is named {name!r}: {hint}")
    return row


def trial_row(session: Session, search: SearchRow, number: int) -> TrialRow:
    row = session.scalar(select(TrialRow).where(TrialRow.search_id == search.id, TrialRow.number == number))
    if row is None:
        raise UserError(f"search {search.name} has no trial {number}: see `mixrec-automl show {search.name}`")
    return row


def check_state(row: TrialRow, expected: TrialState) -> None:
    if row.state != expected:
        raise WrongStateError(f"trial {row.number} is {row.state}, not {expected}")


def check_attempt(row: TrialRow, attempt: int) -> None:
    if row.attempt != attempt:
        raise StaleAttemptError(f"trial {row.number} is at attempt {row.attempt}; the message is of attempt {attempt}")


def finite(name: str, value: float) -> float:
    """Raises ValueError for NaN and infinity, which databases treat each in its own way."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which cannot be recorded")
    return float(value)


def storable(text: str | None) -> str | None:
    """A traceback may quote any text; databases refuse zero characters and half surrogate pairs; no secret is kept."""
    return text and without_secrets(text).replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")

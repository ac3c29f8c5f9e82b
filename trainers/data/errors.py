"""What is wrong with a data file, in one line."""

from __future__ import annotations

from pathlib import Path

from trainers.errors import UserError


class DataError(UserError):
    """Bad input data: the message names file, row and remedy."""


def bad_row(path: Path, row: int, problem: str, remedy: str) -> DataError:
    """An error at one row (counted from 1, a header line included) of a file."""
    return DataError(f"{path}, row {row}: {problem}. {remedy}")


def bad_file(path: Path, problem: str, remedy: str) -> DataError:
    """An error of a file as a whole."""
    return DataError(f"{path}: {problem}. {remedy}")

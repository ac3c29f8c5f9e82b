"""The base of every error that the user, not the program, can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trainers.secrecy import without_secrets

RUST_PANIC = "PanicException"
"""Of tokenizers; it is no Exception, and can be imported from nowhere"""


class UserError(Exception):
    """A mistake the user can mend: printed as one line, exit code 2."""

    def __init__(self, message: str) -> None:
        # Whatever is quoted, of files and of other programs: one line that every terminal can show and everybody read.
        message = without_secrets(message)
        super().__init__("".join(one if one.isprintable() else ascii(one)[1:-1] for one in message))


@contextmanager
def refusing(
    trouble: str,
    remedy: str = "",
    kind: type[UserError] = UserError,
    passing: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Whatever goes wrong within becomes `kind`: `trouble: reason`, then the `remedy`.

    A UserError passes as it is, and so does what is `passing`, where the file has no part in it.

    For files in the hands of other people's readers. Those raise what they like: numpy a SyntaxError, tokenizers a bare
    Exception. `--debug` shows where.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (UserError, *passing)):
            raise
        if not isinstance(error, Exception) and type(error).__name__ != RUST_PANIC:
            raise
        raise kind(f"{trouble}: {in_one_line(error)}{remedy}") from error


def in_one_line(error: BaseException) -> str:
    """What it says, or what it is where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def last_line(text: str) -> str:
    """Of a traceback: the error itself."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "unknown"

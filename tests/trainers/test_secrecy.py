"""What is secret in the environment, and what is not."""

from __future__ import annotations

import pytest

from trainers.errors import UserError
from trainers.secrecy import without_secrets


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "token-of-mine\n")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    monkeypatch.setenv("SOME_URL", "https://me:p%40ssword@host/path?password=other-one")
    monkeypatch.setenv("SLASHED_URL", "postgresql+psycopg://me:with/slash#@host/db")
    monkeypatch.setenv("OWN_URL", "postgresql://mixrec:mixrec@host/db")
    monkeypatch.setenv("LONG_SECRET", "twelve-or-more")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sent token-of-mine to host", "sent *** to host"),
        ("p@ssword and p%40ssword", "*** and ***"),
        ("other-one", "***"),
        ("postgresql://ada:pw@host/db", "postgresql://ada:***@host/db"),
        ("host/db?user=ada&password=pw&x=1", "host/db?user=ada&password=***&x=1"),
        ("postgresql+psycopg://me:with/slash#@host/db", "postgresql+psycopg://me:***@host/db"),
        ("no user for with/slash#", "no user for ***"),
        ("postgresql:/me:p:w@host", "postgresql:/me:***@host"),
        ("run `mixrec-automl doctor`", "run `mixrec-automl doctor`"),
        ("other-ones", "other-ones"),
        ("'\\ntwelve-or-mores'", "'\\n***s'"),
        ("image:tag@sha256:1", "image:tag@sha256:1"),
        ("it is true", "it is true"),
        ("models:/shop@champion", "models:/shop@champion"),
        ("http://host:5000/x", "http://host:5000/x"),
        ("sqlite:////home/me/mixrec.db", "sqlite:////home/me/mixrec.db"),
    ],
)
def test_secrets_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(UserError(text)) == shown


def test_a_refusal_is_one_line_that_every_terminal_can_show() -> None:
    assert str(UserError("a\nb \x1b[31m \ud800 é")) == "a\\nb \\x1b[31m \\ud800 é"

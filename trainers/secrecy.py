"""Keeps what the environment holds as secret out of all that is written or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret; anything shorter would be found in innocent text as well"""
LONG = 12
"""One as long is hidden within words, too"""
INNOCENT = "mixrec-automl postgresql+psycopg"
"""Whoever takes a part of this for a secret has none, and would no longer be told what to type."""
_SECRET_NAME = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|KEY)$")
"""Of an environment variable"""
_IN_ADDRESS = re.compile(r"(:/{1,2}[^:/@\s]*:)([^@\s]+)(?=@)")
"""As SQLAlchemy reads it: a password ends at the @, and may have a / or a : in it"""
_IN_QUERY = re.compile(r"(password=)([^&\s'\"]+)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with `***` for each secret of the environment and each password of an address."""
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        pattern = re.escape(secret)
        text = re.sub(pattern if len(secret) >= LONG else rf"(?<!\w){pattern}(?!\w)", HIDDEN, text)
    for address in (_IN_ADDRESS, _IN_QUERY):
        text = address.sub(rf"\g<1>{HIDDEN}", text)
    return text


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [value.strip()] if _SECRET_NAME.search(name) else _passwords(value)
        for secret in found:
            yield from (one for one in (secret, unquote(secret)) if len(one) >= SHORTEST and one not in INNOCENT)


def _passwords(address: str) -> list[str]:
    return [password for pattern in (_IN_ADDRESS, _IN_QUERY) for _, password in pattern.findall(address)]

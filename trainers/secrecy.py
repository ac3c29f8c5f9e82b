"""Keeps what the environment holds as secret out of all that is written or shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 6
"""Characters; anything shorter would be found in innocent text as well"""
_SECRET_NAME = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|KEY)$")
"""Of an environment variable"""
_WRITTEN_OUT = re.compile(r"(:)[^\s:/@]+(?=@)|(password=)[^&\s'\"]+", re.IGNORECASE)
"""In any address, whoever wrote it"""


def without_secrets(text: str) -> str:
    """`text` with `***` for each secret of the environment and each password of an address."""
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _WRITTEN_OUT.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [value.strip()] if _SECRET_NAME.search(name) else _passwords(value) if "://" in value else []
        for secret in found:
            yield from (one for one in (secret, unquote(secret)) if len(one) >= SHORTEST)


def _passwords(address: str) -> list[str]:
    try:
        parts = urlsplit(address)
        return [part for part in (parts.password, *parse_qs(parts.query).get("password", ())) if part]
    except ValueError:  # no address after all
        return []

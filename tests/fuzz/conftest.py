"""A file may ask for more memory than there is, which then has to be refused rather than granted."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import torch

MOST_BYTES = 16 * 2**30
"""Of addresses, most of which torch and Arrow reserve and never use"""


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    if torch.cuda.is_available():  # which reserves more addresses than any file asks for
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)

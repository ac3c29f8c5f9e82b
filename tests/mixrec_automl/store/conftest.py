"""The contract of the store holds on every kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mixrec_automl.store.repository import Repository


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    repository = Repository.open(database_url)
    yield repository
    repository.close()

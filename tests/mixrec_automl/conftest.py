from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixrec_automl.store.repository import Repository
from tests.mixrec_automl.bench import Bench


@pytest.fixture
def bench(database_url: str, tmp_path: Path) -> Iterator[Bench]:
    repository = Repository.open(database_url)
    repository.create_search("s", {}, "fingerprint")
    yield Bench(repository, tmp_path / "run")
    repository.close()

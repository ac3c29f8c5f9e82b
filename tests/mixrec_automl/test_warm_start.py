"""What is taken over from another search, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.repository import Repository
from mixrec_automl.warm_start import LEAST_DESIGNS, warm_start_of
from search_spaces.architecture import Architecture
from tests.mixrec_automl.store.writing import added, started, writer_of
from trainers.errors import UserError

FROM_FIRST = BudgetConfig(warm_start="first")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository.open(f"sqlite:///{tmp_path / 'mixrec.db'}")
    repository.create_search("first", {}, "abc")
    yield repository
    repository.close()


def mrr_of(number: int) -> float:
    return 0.05 + number / 1000


def complete(repository: Repository, designs: range) -> None:
    writer = writer_of(repository)
    for number in designs:
        started(writer, number, design=Architecture.parse(format(number, "06b")))
        writer.complete_trial(number, 1, mrr_of(number), 0.001)


def test_the_completed_trials_are_taken_by_number(repository: Repository) -> None:
    complete(repository, range(LEAST_DESIGNS))
    writer = writer_of(repository)
    started(writer, LEAST_DESIGNS, design=Architecture.parse("000000"), seed=8)
    writer.complete_trial(LEAST_DESIGNS, 1, 0.07, 0.001)
    added(writer, LEAST_DESIGNS + 1)
    taken = warm_start_of("new", FROM_FIRST, repository)
    assert taken is not None
    assert taken.search == "first"
    designs = [str(design) for design, _ in taken.outcomes]
    assert designs == ["000-000", "000-001", "000-010", "000-011", "000-100", "000-000"]
    assert [mrr for _, mrr in taken.outcomes] == [*(mrr_of(number) for number in range(LEAST_DESIGNS)), 0.07]
    assert [one.mrr for one in taken.trials] == [mrr for _, mrr in taken.outcomes]


def test_without_the_key_nothing_is_taken(repository: Repository) -> None:
    assert warm_start_of("new", BudgetConfig(), repository) is None


@pytest.mark.parametrize(
    ("name", "source", "told"),
    [
        ("new", "frist", r"search\.warm_start: no search is named 'frist': did you mean 'first'"),
        ("new", "first", r"search\.warm_start: search 'first' has 4 completed designs, and 5 are needed"),
        ("first", "first", r"search\.warm_start: search 'first' cannot start from itself"),
        ("new", "study", r"search\.warm_start: 'study' is a study"),
    ],
)
def test_what_cannot_be_a_source_is_told(repository: Repository, name: str, source: str, told: str) -> None:
    complete(repository, range(LEAST_DESIGNS - 1))
    repository.create_search("study", {"study": {}}, "abc")
    with pytest.raises(UserError, match=told):
        warm_start_of(name, BudgetConfig(warm_start=source), repository)

"""The contract of the repository, on every supported database."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from mixrec_automl.store.errors import WrongStateError
from mixrec_automl.store.records import SearchState, WarmStart
from mixrec_automl.store.repository import Repository
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import started, writer_of
from trainers.errors import UserError

MARGIN = timedelta(seconds=1)
"""The database's clock counts in steps, and it may be another machine's."""


@pytest.fixture
def search(repository: Repository) -> str:
    return repository.create_search("first", {"search": {"trials": 3}, "x": [1.5, None, "é"]}, "abc").name


def test_a_search_reads_back_as_it_was_created(repository: Repository) -> None:
    before = datetime.now(UTC) - MARGIN
    created = repository.create_search(
        "one", {"search": {"trials": 3}, "x": [1.5, None, "é"]}, "abc", {"popularity": 0.02}
    )
    assert repository.search("one") == created
    assert (created.name, created.state, created.fingerprint) == ("one", SearchState.RUNNING, "abc")
    assert created.config == {"search": {"trials": 3}, "x": [1.5, None, "é"]}
    assert created.floors == {"popularity": 0.02}
    assert created.created_at.utcoffset() == timedelta(0)
    assert before <= created.created_at == created.updated_at <= datetime.now(UTC) + MARGIN


def test_what_a_search_starts_from_is_kept_with_it(repository: Repository) -> None:
    bits = Architecture.parse("010-111")
    designs = Design(Architecture.parse("000-000")), Design.of(bits, {"a": 0.1, "b": "x", "c": None, "d": 3})
    taken = WarmStart("source", ((designs[0], 0.1 + 0.2), (designs[1], 0.05), (designs[0], 1 / 3)))
    created = repository.create_search("one", {}, "abc", warm_start=taken)
    assert created.warm_start == taken
    assert repository.search("one").warm_start == taken, "to the last digit, replicates in their order"
    repository.create_search("two", {}, "abc")
    assert repository.search("two").warm_start is None


def test_a_floor_that_is_no_number_is_refused(repository: Repository) -> None:
    with pytest.raises(ValueError, match="popularity"):
        repository.create_search("one", {}, "abc", {"popularity": float("nan")})
    assert repository.searches() == ()


def test_a_taken_name_is_refused_and_the_first_search_stays(repository: Repository, search: str) -> None:
    with pytest.raises(UserError, match=r"'first' exists.*show first.*--name"):
        repository.create_search(search, {}, "other")
    assert [found.fingerprint for found in repository.searches()] == ["abc"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", ".hidden", "x" * 101])
def test_a_name_that_is_no_folder_name_is_refused(repository: Repository, name: str) -> None:
    with pytest.raises(UserError, match="search name"):
        repository.create_search(name, {}, "")


@pytest.mark.usefixtures("search")
def test_an_unknown_name_gets_the_nearest_one(repository: Repository) -> None:
    repository.create_search("something-else", {}, "")
    with pytest.raises(UserError, match=r"'frist'.*did you mean 'first'"):
        repository.search("frist")
    for call in (repository.trials, repository.observations, repository.promotions):
        with pytest.raises(UserError, match="did you mean"):
            call("frist")


def test_an_unknown_name_in_an_empty_database(repository: Repository) -> None:
    with pytest.raises(UserError, match="none yet"):
        repository.search("x")


def test_searches_come_newest_first(repository: Repository) -> None:
    for name in ("b", "c", "a"):
        repository.create_search(name, {}, "")
    assert [found.name for found in repository.searches()] == ["a", "c", "b"]


def test_tracking_errors_come_and_go(repository: Repository, search: str) -> None:
    assert repository.search(search).changes_not_tracked == 1, "MLflow does not know of the search yet"
    repository.note_tracking(search, None, revision=0)
    repository.note_tracking(search, "server gone")
    found = repository.search(search)
    assert (found.tracking_error, found.changes_not_tracked) == ("server gone", 0)
    repository.note_tracking(search, None, revision=0)
    assert repository.search(search).tracking_error is None


def test_the_cursor_of_mlflow_never_goes_back(repository: Repository, search: str) -> None:
    repository.note_tracking(search, None, revision=7)
    repository.note_tracking(search, None, revision=3)
    assert repository.search(search).tracked_revision == 7


def test_promotions(repository: Repository, search: str) -> None:
    writer = writer_of(repository, search)
    started(writer, 0)
    with pytest.raises(WrongStateError, match="RUNNING, not COMPLETED"):
        repository.add_promotion(search, 0)
    writer.complete_trial(0, 1, 0.1, 0.01)
    first = repository.add_promotion(search, 0)
    assert (first.number, first.search, first.trial, first.state) == (0, "first", 0, SearchState.RUNNING)
    second = repository.add_promotion(search, 0)
    done = repository.finish_promotion(
        search, second.number, SearchState.COMPLETED, metrics={"test_mrr": 0.07}, model_version="first/1"
    )
    assert (done.state, dict(done.metrics), done.model_version) == (
        SearchState.COMPLETED,
        {"test_mrr": 0.07},
        "first/1",
    )
    assert repository.promotions(search) == (first, done)
    with pytest.raises(WrongStateError, match="COMPLETED"):
        repository.finish_promotion(search, second.number, SearchState.FAILED, error="late")
    with pytest.raises(ValueError, match="test_mrr"):
        repository.finish_promotion(search, 0, SearchState.COMPLETED, metrics={"test_mrr": math.nan})
    with pytest.raises(UserError, match="no promotion 9"):
        repository.finish_promotion(search, 9, SearchState.FAILED)

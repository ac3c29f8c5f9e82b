"""The contract of the repository, on every supported database."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from mixrec_automl.store.errors import StaleAttemptError, WrongStateError
from mixrec_automl.store.records import Origin, SearchState, Trial, TrialState
from mixrec_automl.store.repository import NEXT_SEARCH_STATES, Repository
from search_spaces.architecture import Architecture
from trainers.errors import UserError

DESIGN = Architecture.parse("010-111")


@pytest.fixture
def search(repository: Repository) -> str:
    return repository.create_search("first", {"search": {"trials": 3}, "x": [1.5, None, "é"]}, "abc").name


def add(repository: Repository, search: str = "first", seed: int = 7) -> Trial:
    return repository.add_trial(search, DESIGN, seed, Origin.SOBOL, 0.25)


def started(repository: Repository) -> Trial:
    return repository.start_trial("first", add(repository).number)


def test_a_search_reads_back_as_it_was_created(repository: Repository) -> None:
    before = datetime.now(UTC)
    created = repository.create_search(
        "one", {"search": {"trials": 3}, "x": [1.5, None, "é"]}, "abc", {"popularity": 0.02}
    )
    assert repository.search("one") == created
    assert (created.name, created.state, created.fingerprint) == ("one", SearchState.RUNNING, "abc")
    assert created.config == {"search": {"trials": 3}, "x": [1.5, None, "é"]}
    assert created.floors == {"popularity": 0.02}
    assert created.created_at.utcoffset() == timedelta(0)
    assert before <= created.created_at == created.updated_at <= datetime.now(UTC)


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


@pytest.mark.parametrize("target", SearchState)
@pytest.mark.parametrize("source", SearchState)
def test_a_search_changes_only_along_the_allowed_lines(
    repository: Repository, search: str, source: SearchState, target: SearchState
) -> None:
    repository.set_search_state(search, source, "why")
    if target is source or target in NEXT_SEARCH_STATES[source]:
        changed = repository.set_search_state(search, target)
        assert (changed.state, changed.error) == (target, None)
        assert changed.updated_at >= changed.created_at
    else:
        with pytest.raises(WrongStateError, match=f"{source}.*{target}"):
            repository.set_search_state(search, target)
        assert (repository.search(search).state, repository.search(search).error) == (source, "why")


def test_tracking_errors_come_and_go(repository: Repository, search: str) -> None:
    repository.set_tracking_error(search, "server gone")
    assert repository.search(search).tracking_error == "server gone"
    repository.set_tracking_error(search, None)
    assert repository.search(search).tracking_error is None


def test_the_life_of_a_trial(repository: Repository, search: str) -> None:
    queued = add(repository)
    assert (queued.number, queued.state, queued.attempt, queued.started_at) == (0, TrialState.QUEUED, 0, None)
    assert (queued.architecture, queued.seed, queued.origin, queued.proposal_seconds) == (DESIGN, 7, Origin.SOBOL, 0.25)
    running = repository.start_trial(search, 0)
    assert (running.state, running.attempt) == (TrialState.RUNNING, 1)
    assert running.started_at is not None
    completed = repository.complete_trial(search, 0, 1, 0.05, 0.002)
    assert (completed.state, completed.mrr, completed.standard_error) == (TrialState.COMPLETED, 0.05, 0.002)
    assert completed.finished_at is not None
    assert running.started_at <= completed.finished_at
    assert repository.trials(search) == (completed,)


def test_numbers_count_up_within_each_search(repository: Repository, search: str) -> None:
    repository.create_search("second", {}, "")
    numbers = [add(repository, name).number for name in ("first", "second", "first", "first", "second")]
    assert numbers == [0, 0, 1, 2, 1]
    assert [trial.number for trial in repository.trials(search)] == [0, 1, 2]


def test_large_seeds_are_kept(repository: Repository, search: str) -> None:
    assert add(repository, seed=2**63 - 1).seed == repository.trials(search)[0].seed == 2**63 - 1


def test_a_search_that_ended_takes_no_trials(repository: Repository, search: str) -> None:
    repository.set_search_state(search, SearchState.STOPPED)
    with pytest.raises(WrongStateError, match="STOPPED"):
        add(repository)
    assert repository.trials(search) == ()


def test_an_interrupted_trial_runs_again_as_the_next_attempt(repository: Repository, search: str) -> None:
    started(repository)
    repository.record_epoch(search, 0, 1, 1, {"validation_mrr": 0.1})
    assert repository.requeue_trial(search, 0).state is TrialState.QUEUED
    again = repository.start_trial(search, 0)
    assert (again.state, again.attempt) == (TrialState.RUNNING, 2)
    repository.record_epoch(search, 0, 2, 2, {"validation_mrr": 0.2})
    assert [(seen.attempt, seen.epoch) for seen in repository.observations(search)] == [(1, 1), (2, 2)]


def test_messages_of_an_abandoned_attempt_change_nothing(repository: Repository, search: str) -> None:
    started(repository)
    repository.requeue_trial(search, 0)
    before = repository.start_trial(search, 0)
    for call in (
        lambda: repository.record_epoch(search, 0, 1, 1, {"validation_mrr": 0.1}),
        lambda: repository.complete_trial(search, 0, 1, 0.1, 0.1),
        lambda: repository.fail_trial(search, 0, 1, "late"),
    ):
        with pytest.raises(StaleAttemptError, match=r"attempt 2.*of attempt 1"):
            call()
    assert repository.trials(search) == (before,)
    assert repository.observations(search) == ()


def test_wrong_changes_of_a_trial_are_refused(repository: Repository, search: str) -> None:
    add(repository)
    with pytest.raises(WrongStateError, match="QUEUED, not RUNNING"):
        repository.requeue_trial(search, 0)
    with pytest.raises(WrongStateError, match="QUEUED, not RUNNING"):
        repository.complete_trial(search, 0, 0, 0.1, 0.1)
    with pytest.raises(WrongStateError, match="QUEUED, not RUNNING"):
        repository.record_epoch(search, 0, 0, 1, {})
    repository.start_trial(search, 0)
    with pytest.raises(WrongStateError, match="RUNNING, not QUEUED"):
        repository.start_trial(search, 0)
    repository.fail_trial(search, 0, 1, "boom")
    for call in (
        lambda: repository.start_trial(search, 0),
        lambda: repository.requeue_trial(search, 0),
        lambda: repository.fail_trial(search, 0, 1, "again"),
        lambda: repository.complete_trial(search, 0, 1, 0.1, 0.1),
        lambda: repository.record_epoch(search, 0, 1, 9, {}),
    ):
        with pytest.raises(WrongStateError, match="FAILED"):
            call()
    assert repository.trials(search)[0].error == "boom"


def test_an_unknown_trial_is_named(repository: Repository, search: str) -> None:
    with pytest.raises(UserError, match="no trial 4"):
        repository.start_trial(search, 4)


def test_an_epoch_counts_once_and_the_first_report_stays(repository: Repository, search: str) -> None:
    started(repository)
    repository.record_epoch(search, 0, 1, 1, {"validation_mrr": 0.1, "loss_seq": 3})
    first = repository.observations(search)
    repository.record_epoch(search, 0, 1, 1, {"validation_mrr": 0.9})
    assert repository.observations(search) == first
    assert dict(first[0].metrics) == {"validation_mrr": 0.1, "loss_seq": 3.0}
    assert first[0].recorded_at.utcoffset() == timedelta(0)
    repository.complete_trial(search, 0, 1, 0.1, 0.0)
    repository.record_epoch(search, 0, 1, 1, {"validation_mrr": 0.1})
    assert repository.observations(search) == first


def test_observations_are_ordered_and_can_be_those_of_one_trial(repository: Repository, search: str) -> None:
    started(repository)
    started(repository)
    for number, epoch in ((1, 2), (0, 1), (1, 1), (0, 2)):
        repository.record_epoch(search, number, 1, epoch, {"validation_mrr": 0.1})
    assert [(seen.trial, seen.epoch) for seen in repository.observations(search)] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {seen.trial for seen in repository.observations(search, trial=1)} == {1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(repository: Repository, search: str, bad: float) -> None:
    started(repository)
    with pytest.raises(ValueError, match="loss_seq"):
        repository.record_epoch(search, 0, 1, 1, {"loss_seq": bad})
    with pytest.raises(ValueError, match="mrr"):
        repository.complete_trial(search, 0, 1, bad, 0.1)
    with pytest.raises(ValueError, match="standard_error"):
        repository.complete_trial(search, 0, 1, 0.1, bad)
    with pytest.raises(ValueError, match="epochs count from one"):
        repository.record_epoch(search, 0, 1, 0, {})
    assert repository.observations(search) == ()
    assert repository.trials(search)[0].state is TrialState.RUNNING


def test_any_traceback_can_be_kept(repository: Repository, search: str) -> None:
    started(repository)
    failed = repository.fail_trial(search, 0, 1, "bad \0 and \ud800 and é")
    assert failed.error == "bad \\0 and \\ud800 and é" == repository.trials(search)[0].error


def test_promotions(repository: Repository, search: str) -> None:
    started(repository)
    with pytest.raises(WrongStateError, match="RUNNING, not COMPLETED"):
        repository.add_promotion(search, 0)
    repository.complete_trial(search, 0, 1, 0.1, 0.01)
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

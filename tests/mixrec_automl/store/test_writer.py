"""The contract of what a controller writes, on every supported database."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from mixrec_automl.store.errors import StaleAttemptError, WrongStateError
from mixrec_automl.store.records import Origin, SearchState, TrialState, by_design
from mixrec_automl.store.repository import Repository
from mixrec_automl.store.writer import NEXT_SEARCH_STATES, SearchWriter
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from tests.mixrec_automl.store.writing import DESIGN, added, started, writer_of
from trainers.errors import UserError

OTHER = Architecture.parse("111-000")


@pytest.fixture
def search(repository: Repository) -> str:
    return repository.create_search("first", {}, "abc").name


@pytest.fixture
def writer(repository: Repository, search: str) -> SearchWriter:
    return writer_of(repository, search)


@pytest.mark.parametrize("target", SearchState)
@pytest.mark.parametrize("source", SearchState)
def test_a_search_changes_only_along_the_allowed_lines(
    repository: Repository, writer: SearchWriter, source: SearchState, target: SearchState
) -> None:
    writer.set_state(source, "why")
    if target is source or target in NEXT_SEARCH_STATES[source]:
        changed = writer.set_state(target)
        assert (changed.state, changed.error) == (target, None)
        assert changed.updated_at >= changed.created_at
    else:
        with pytest.raises(WrongStateError, match=f"{source}.*{target}"):
            writer.set_state(target)
        assert (repository.search("first").state, repository.search("first").error) == (source, "why")


def test_the_life_of_a_trial(repository: Repository, search: str, writer: SearchWriter) -> None:
    queued = added(writer, 0)
    assert (queued.number, queued.state, queued.attempt, queued.started_at) == (0, TrialState.QUEUED, 0, None)
    assert (queued.architecture, queued.seed, queued.origin, queued.proposal_seconds) == (DESIGN, 7, Origin.SOBOL, 0.25)
    running = writer.start_trial(0, 1)
    assert (running.state, running.attempt, running.losses) == (TrialState.RUNNING, 1, 0)
    assert running.started_at is not None
    completed = writer.complete_trial(0, 1, 0.05, 0.002)
    assert (completed.state, completed.mrr, completed.standard_error) == (TrialState.COMPLETED, 0.05, 0.002)
    assert completed.finished_at is not None
    assert running.started_at <= completed.finished_at
    assert repository.trials(search) == (completed,)


def test_settings_are_kept_as_they_were_and_tell_designs_apart(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    settings = {"z.text": "a b=c", "a.rate": 0.1 + 0.2, "b.width": 16, "c.one": 1.0, "d.on": True, "e.none": None}
    design = Design.of(DESIGN, settings)
    (made,) = writer.add_trials(0, design, [1], Origin.SOBOL, 0.0)
    (kept,) = repository.trials(search)
    assert kept == made
    assert kept.design == design
    assert {key: type(value) for key, value in kept.design.settings} == {key: type(settings[key]) for key in settings}
    assert writer.add_trials(0, design, [1], Origin.SOBOL, 0.0) == (made,), "a repeated write changes nothing"
    for other in (Design(DESIGN), Design.of(DESIGN, {**settings, "b.width": 32})):
        with pytest.raises(WrongStateError, match="another trial 0"):
            writer.add_trials(0, other, [1], Origin.SOBOL, 0.0)
    writer.add_trials(1, Design(DESIGN), [1, 2], Origin.SOBOL, 0.0)
    assert [len(group) for group in by_design(repository.trials(search)).values()] == [1, 2]


def test_variant_and_further_metrics_are_kept(repository: Repository, search: str, writer: SearchWriter) -> None:
    (added_one,) = writer.add_trials(0, Design(DESIGN), [1], Origin.STUDY, 0.0, "no column")
    assert added_one.variant == "no column"
    with pytest.raises(WrongStateError, match="another trial 0"):
        writer.add_trials(0, Design(DESIGN), [1], Origin.STUDY, 0.0, "another")
    writer.start_trial(0, 1)
    with pytest.raises(ValueError, match="test_mrr is nan"):
        writer.complete_trial(0, 1, 0.05, 0.002, {"test_mrr": float("nan")})
    writer.complete_trial(0, 1, 0.05, 0.002, {"test_mrr": 0.04})
    (kept,) = repository.trials(search)
    assert (kept.variant, kept.origin, kept.metrics) == ("no column", Origin.STUDY, {"test_mrr": 0.04})


def test_replicates_are_added_together(repository: Repository, search: str, writer: SearchWriter) -> None:
    trials = writer.add_trials(0, Design(DESIGN), [3, 4, 5], Origin.SOBOL, 0.0)
    assert [(trial.number, trial.seed) for trial in trials] == [(0, 3), (1, 4), (2, 5)]
    assert repository.trials(search) == trials


def test_large_seeds_are_kept(repository: Repository, search: str, writer: SearchWriter) -> None:
    assert added(writer, 0, seed=2**63 - 1).seed == repository.trials(search)[0].seed == 2**63 - 1


@pytest.mark.parametrize("state", [SearchState.STOPPED, SearchState.FAILED, SearchState.COMPLETED])
def test_a_search_that_ended_takes_no_trials(
    repository: Repository, search: str, writer: SearchWriter, state: SearchState
) -> None:
    writer.set_state(state)
    with pytest.raises(WrongStateError, match=state):
        added(writer, 0)
    assert repository.trials(search) == ()


def test_a_number_is_given_to_one_trial_only(repository: Repository, search: str, writer: SearchWriter) -> None:
    first = added(writer, 0)
    for design, seed in ((OTHER, 7), (DESIGN, 8)):
        with pytest.raises(WrongStateError, match="another trial 0"):
            added(writer, 0, design=design, seed=seed)
    with pytest.raises(WrongStateError, match="another trial 0"):
        writer.add_trials(0, Design(OTHER), [1, 2], Origin.SOBOL, 0.0)
    assert repository.trials(search) == (first,), "nothing of a refused write stays"


def test_an_interrupted_trial_runs_again_as_the_next_attempt(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    queued = writer.requeue_trial(0, 1)
    assert (queued.state, queued.losses, queued.error) == (TrialState.QUEUED, 0, None)
    again = writer.start_trial(0, 2)
    assert (again.state, again.attempt) == (TrialState.RUNNING, 2)
    writer.record_epoch(0, 2, 2, {"validation_mrr": 0.2})
    assert [(seen.attempt, seen.epoch) for seen in repository.observations(search)] == [(1, 1), (2, 2)]


def test_losses_are_counted_and_their_reason_goes_with_a_result(writer: SearchWriter) -> None:
    started(writer, 0)
    lost = writer.requeue_trial(0, 1, lost="worker \0 died")
    assert (lost.state, lost.losses, lost.error) == (TrialState.QUEUED, 1, "worker \\0 died")
    writer.start_trial(0, 2)
    assert writer.requeue_trial(0, 2, lost="again").losses == 2
    writer.start_trial(0, 3)
    completed = writer.complete_trial(0, 3, 0.1, 0.1)
    assert (completed.losses, completed.error) == (2, None)


def test_messages_of_an_abandoned_attempt_change_nothing(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    started(writer, 0)
    writer.requeue_trial(0, 1)
    before = writer.start_trial(0, 2)
    for call in (
        lambda: writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1}),
        lambda: writer.complete_trial(0, 1, 0.1, 0.1),
        lambda: writer.fail_trial(0, 1, "late"),
        lambda: writer.prune_trial(0, 1, "late"),
        lambda: writer.requeue_trial(0, 1, lost="late"),
    ):
        with pytest.raises(StaleAttemptError, match=r"attempt 2.*of attempt 1"):
            call()
    assert repository.trials(search) == (before,)
    assert repository.observations(search) == ()


def test_wrong_changes_of_a_trial_are_refused(repository: Repository, search: str, writer: SearchWriter) -> None:
    added(writer, 0)
    with pytest.raises(WrongStateError, match="QUEUED, not RUNNING"):
        writer.complete_trial(0, 0, 0.1, 0.1)
    with pytest.raises(WrongStateError, match="QUEUED, not RUNNING"):
        writer.record_epoch(0, 0, 1, {})
    with pytest.raises(StaleAttemptError):
        writer.start_trial(0, 2)
    writer.start_trial(0, 1)
    with pytest.raises(WrongStateError, match="RUNNING, not QUEUED"):
        writer.start_trial(0, 2)
    writer.fail_trial(0, 1, "boom")
    for call in (
        lambda: writer.start_trial(0, 2),
        lambda: writer.requeue_trial(0, 1),
        lambda: writer.complete_trial(0, 1, 0.1, 0.1),
        lambda: writer.record_epoch(0, 1, 9, {}),
    ):
        with pytest.raises(WrongStateError, match="FAILED"):
            call()
    assert repository.trials(search)[0].error == "boom"


def test_a_pruned_trial_has_ended(repository: Repository, search: str, writer: SearchWriter) -> None:
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    pruned = writer.prune_trial(0, 1, "below the median")
    with pytest.raises(WrongStateError, match="PRUNED, not RUNNING"):
        writer.complete_trial(0, 1, 0.1, 0.01)
    with pytest.raises(WrongStateError, match="PRUNED"):
        writer.start_trial(0, 2)
    assert repository.trials(search) == (pruned,)
    assert (pruned.state, pruned.state.is_final, pruned.mrr) == (TrialState.PRUNED, True, None)
    assert (pruned.error, pruned.losses, pruned.finished_at is None) == ("below the median", 0, False)
    assert len(repository.observations(search)) == 1, "its epochs stay"


def test_an_unknown_trial_is_named(writer: SearchWriter) -> None:
    with pytest.raises(UserError, match="no trial 4"):
        writer.start_trial(4, 1)


REPEATED: dict[str, Callable[[SearchWriter], object]] = {
    "add": lambda writer: writer.add_trials(1, Design(OTHER), [5, 6], Origin.SOBOL, 0.5),
    "start": lambda writer: writer.start_trial(3, 1),
    "epoch": lambda writer: writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1}),
    "complete": lambda writer: writer.complete_trial(0, 1, 0.1, 0.01),
    "fail": lambda writer: writer.fail_trial(0, 1, "boom"),
    "prune": lambda writer: writer.prune_trial(0, 1, "below the median"),
    "requeue": lambda writer: writer.requeue_trial(0, 1),
    "lose": lambda writer: writer.requeue_trial(0, 1, lost="worker died"),
    "state": lambda writer: writer.set_state(SearchState.STOPPED),
}


@pytest.mark.parametrize("call", REPEATED.values(), ids=list(REPEATED))
def test_a_write_whose_answer_was_lost_can_be_repeated(
    repository: Repository, search: str, writer: SearchWriter, call: Callable[[SearchWriter], object]
) -> None:
    """After an outage nobody knows whether the last write arrived, so it is made again."""
    started(writer, 0)
    if call is REPEATED["start"]:
        for number in (1, 2, 3):
            added(writer, number)
    call(writer)
    once = (repository.trials(search), repository.observations(search), repository.search(search).state)
    call(writer)
    assert (repository.trials(search), repository.observations(search), repository.search(search).state) == once


def test_an_epoch_counts_once_and_the_first_report_stays(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    started(writer, 0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1, "loss_seq": 3})
    first = repository.observations(search)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.9})
    assert repository.observations(search) == first
    assert dict(first[0].metrics) == {"validation_mrr": 0.1, "loss_seq": 3.0}
    assert first[0].recorded_at.utcoffset() == timedelta(0)
    writer.complete_trial(0, 1, 0.1, 0.0)
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    assert repository.observations(search) == first


def test_observations_are_ordered_and_can_be_those_of_one_trial(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    started(writer, 0)
    started(writer, 1, design=OTHER)
    for number, epoch in ((1, 2), (0, 1), (1, 1), (0, 2)):
        writer.record_epoch(number, 1, epoch, {"validation_mrr": 0.1})
    assert [(seen.trial, seen.epoch) for seen in repository.observations(search)] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert {seen.trial for seen in repository.observations(search, trial=1)} == {1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(
    repository: Repository, search: str, writer: SearchWriter, bad: float
) -> None:
    started(writer, 0)
    with pytest.raises(ValueError, match="loss_seq"):
        writer.record_epoch(0, 1, 1, {"loss_seq": bad})
    with pytest.raises(ValueError, match="mrr"):
        writer.complete_trial(0, 1, bad, 0.1)
    with pytest.raises(ValueError, match="standard_error"):
        writer.complete_trial(0, 1, 0.1, bad)
    with pytest.raises(ValueError, match="epochs count from one"):
        writer.record_epoch(0, 1, 0, {})
    assert repository.observations(search) == ()
    assert repository.trials(search)[0].state is TrialState.RUNNING


def test_any_traceback_can_be_kept(repository: Repository, search: str, writer: SearchWriter) -> None:
    started(writer, 0)
    failed = writer.fail_trial(0, 1, "bad \0 and \ud800 and é")
    assert failed.error == "bad \\0 and \\ud800 and é" == repository.trials(search)[0].error


def test_every_change_raises_the_revision_and_marks_its_trial(
    repository: Repository, search: str, writer: SearchWriter
) -> None:
    """What follows the database (MLflow's view) asks only for what is new."""
    assert repository.search(search).revision == 0
    started(writer, 0)
    started(writer, 1, design=OTHER)
    seen = repository.search(search).revision
    assert seen == 4
    assert repository.trials(search, since=seen) == ()
    writer.record_epoch(0, 1, 1, {"validation_mrr": 0.1})
    assert [trial.number for trial in repository.trials(search, since=seen)] == [0]
    writer.complete_trial(1, 1, 0.1, 0.1)
    assert [trial.number for trial in repository.trials(search, since=seen)] == [0, 1]
    assert [trial.number for trial in repository.trials(search, since=seen + 1)] == [1]
    writer.renew(10)
    assert repository.search(search).revision == seen + 2, "a heartbeat is no change"

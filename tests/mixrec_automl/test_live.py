"""What a user sees of a running search, from a recorded sequence of events."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from mixrec_automl import live
from mixrec_automl.cli import tables
from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.live import STOPPING, LiveTable, PlainLines, view_of
from mixrec_automl.progress import SearchProgress, clock_time
from mixrec_automl.store.records import Observation, Origin, Trial, TrialState
from search_spaces.architecture import Architecture
from search_spaces.design import Design

EPOCHS = 4


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trial(number: int, *, layers: int = 2, origin: Origin = Origin.SOBOL) -> Trial:
    return Trial(number, Design(Architecture.from_bits([1, 1, 0] * layers)), 0, origin, TrialState.QUEUED, 0, 1.25)


def play(view: LiveTable | PlainLines, number: int, *, epochs: int, mrr: float | None, layers: int = 2) -> None:
    """A trial from its proposal on; completed with `mrr`, failed where that is negative, else left running."""
    view.proposing()
    view.trial_changed(proposed := trial(number, layers=layers))
    view.trial_changed(running := replace(proposed, state=TrialState.RUNNING, attempt=1))
    for epoch in range(1, epochs + 1):
        metrics = {"validation_mrr": 0.04 + epoch / 1000, "validation_mrr_standard_error": 0.006, "seconds": 10.0}
        view.epoch_ended(EpochEnded(number, 1, epoch, metrics))
    if mrr is not None and mrr < 0:
        view.trial_changed(
            replace(running, state=TrialState.FAILED, error="Traceback:\n  line\nValueError: bad luck\n")
        )
    elif mrr is not None:
        view.trial_changed(replace(running, state=TrialState.COMPLETED, mrr=mrr, standard_error=0.006))


def console_of(width: int, height: int, *, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, color_system=None)


def shown(view: LiveTable, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(view.render())
    return capture.get().splitlines()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_table_shows_every_trial_and_how_far_the_search_is(clock: Clock) -> None:
    console = console_of(100, 40, terminal=True)
    view = LiveTable(SearchProgress("books", 5, EPOCHS, clock=clock), console)
    play(view, 0, epochs=4, mrr=0.0500)
    play(view, 1, epochs=4, mrr=0.0612)
    play(view, 2, epochs=1, mrr=-1)
    clock.now += 60
    play(view, 3, epochs=2, mrr=None)
    text = "\n".join(shown(view, console))
    assert "search books" in text
    assert "│ 0 │ 110-110 │ Sobol  │ COMPLETED │   4/4 │ 0.0500 ± 0.0060 │      40 │" in text
    assert "│ 2 │ 110-110 │ Sobol  │ FAILED    │   1/4 │" in text
    assert "│ 3 │ 110-110 │ Sobol  │ RUNNING   │   2/4 │ 0.0420 ± 0.0060 │      20 │" in text
    assert "best 0.0612 (trial 1)" in text
    assert "last proposal 1.2 s" in text
    # 14 of 20 epochs (the failed trial's are gone) took 60 s, so 6 more take 26.
    assert "3/5 trials, 0:26 left" in text
    view.proposing()
    assert "proposing for 0 s" in "\n".join(shown(view, console))
    view.stopping()
    assert STOPPING in "\n".join(shown(view, console))


@pytest.mark.parametrize("width", [200, 80, 70, 60, 50, 40, 36, 30])
@pytest.mark.parametrize("height", [60, 24, 10])
def test_a_small_window_is_not_overrun(width: int, height: int) -> None:
    console = console_of(width, height, terminal=True)
    view = LiveTable(SearchProgress("ml-100k", 30, EPOCHS), console)
    for number in range(20):
        play(view, number, epochs=EPOCHS, mrr=0.0987 if number == 1 else 0.05 + number / 10_000, layers=12)
    play(view, 20, epochs=2, mrr=None, layers=12)
    lines = shown(view, console)
    assert len(lines) <= max(height, 11)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "0.0987" in text, "the best trial is always there"
    assert "0.0420" in text, "and so is the one that runs"
    assert "20/30 trials" in text


@pytest.mark.parametrize("width", [1, 5, 12, 20])
def test_no_window_is_too_narrow_to_go_on(width: int) -> None:
    console = console_of(width, 1, terminal=True)
    view = LiveTable(SearchProgress("ml-100k", 30, EPOCHS), console)
    with view.showing():
        play(view, 0, epochs=4, mrr=0.05)


def test_lines_tell_the_same_where_there_is_no_terminal(clock: Clock) -> None:
    console = console_of(20, 5, terminal=False)
    progress = SearchProgress("books", 3, EPOCHS, clock=clock)
    view = view_of(progress, console)
    assert isinstance(view, PlainLines)
    with view.showing():
        play(view, 0, epochs=2, mrr=0.05)
        play(view, 1, epochs=0, mrr=-1)
        view.stopping()
        view.trial_changed(replace(trial(2), attempt=1))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "trial 0  110-110  QUEUED  proposed in 1.2 s, Sobol",
        "trial 0  110-110  RUNNING  attempt 1",
        "trial 0  110-110  epoch 1/4  MRR 0.0410  10.0 s",
        "trial 0  110-110  epoch 2/4  MRR 0.0420  10.0 s",
        "trial 0  110-110  COMPLETED  MRR 0.0500 ± 0.0060; best 0.0500 (trial 0); 1/3 trials, 0:00 left",
        "trial 1  110-110  QUEUED  proposed in 1.2 s, Sobol",
        "trial 1  110-110  RUNNING  attempt 1",
        "trial 1  110-110  FAILED  ValueError: bad luck; 2/3 trials, 0:00 left",
        STOPPING,
        "trial 2  110-110  QUEUED  to be run again",
    ]


def test_a_terminal_gets_the_table() -> None:
    assert isinstance(view_of(SearchProgress("s", 1, 1), console_of(80, 24, terminal=True)), LiveTable)


def test_every_state_has_a_colour_and_the_same_one_everywhere() -> None:
    assert set(live.STYLES) == set(TrialState)
    assert {state: tables.STYLES[state] for state in TrialState} == live.STYLES


def test_a_pruned_trial_has_ended_without_a_result(clock: Clock) -> None:
    console = console_of(100, 40, terminal=False)
    progress = SearchProgress("books", 2, EPOCHS, clock=clock)
    view = PlainLines(progress, console)
    play(view, 0, epochs=2, mrr=None)
    pruned = replace(trial(0), state=TrialState.PRUNED, attempt=1, error="below the median of 7 trials at epoch 2")
    view.trial_changed(pruned)
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().splitlines()[-1]
    assert last == (
        "trial 0  110-110  PRUNED  below the median of 7 trials at epoch 2; ended after epoch 2 of 4; "
        "1/2 trials, 0:00 left"
    )
    assert (progress.epochs_done, progress.epochs_saved, progress.best) == (EPOCHS, 2, None)
    console = console_of(100, 40, terminal=True)
    text = "\n".join(shown(LiveTable(progress, console), console))
    assert "│ 0 │ 110-110 │ Sobol  │ PRUNED │   2/4 │" in text
    assert "pruning saved 2 epochs" in text


def test_a_resumed_search_shows_what_was_done_and_times_only_this_run(clock: Clock) -> None:
    now = datetime.now(UTC)
    done = replace(trial(0), state=TrialState.COMPLETED, attempt=1, mrr=0.05, standard_error=0.006)
    interrupted = replace(trial(1), attempt=1)
    seen = [Observation(0, 1, epoch, {"validation_mrr": 0.01}, now) for epoch in range(1, 5)]
    seen += [Observation(1, 1, epoch, {"validation_mrr": 0.02, "seconds": 3.0}, now) for epoch in (1, 2)]
    progress = SearchProgress("s", 4, EPOCHS, [done, interrupted], seen, clock)
    assert (progress.epochs_done, progress.total_epochs, progress.seconds_left) == (6, 16, None)
    assert progress.rows[0].mrr == 0.05, "the score of a completed trial is what was recorded as such"
    clock.now += 8
    progress.trial_changed(replace(interrupted, state=TrialState.RUNNING, attempt=2))
    progress.epoch_ended(EpochEnded(1, 2, 3, {"validation_mrr": 0.03}))
    assert progress.seconds_left == 8 * 9
    assert progress.rows[1].mrr == 0.03


def test_the_best_trial_is_the_earlier_of_two_that_are_level() -> None:
    progress = SearchProgress("s", 3, 1)
    assert progress.best is None
    for number, mrr in enumerate([0.1, 0.2, 0.2]):
        progress.trial_changed(replace(trial(number), state=TrialState.COMPLETED, mrr=mrr, standard_error=0.0))
    best = progress.best
    assert best is not None
    assert best.trial.number == 1


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3_723, "1:02:03")])
def test_times_are_written_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text

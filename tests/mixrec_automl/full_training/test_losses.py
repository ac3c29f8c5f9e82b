"""What counts against a full training whose attempts are lost, and what it waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pytest

from mixrec_automl import storage_trouble
from mixrec_automl.cluster.executor import Event, TrialCompleted, TrialLost, TrialStopped
from mixrec_automl.cluster.training import TrialTask
from mixrec_automl.full_training import MOST_ATTEMPTS, FullTrainingError, _follow
from mixrec_automl.interruption import StopRequest
from search_spaces.architecture import Architecture
from search_spaces.design import Design


class Scripted:
    """Ends each attempt as it is told, in order."""

    def __init__(self, ends: Iterable[Event]) -> None:
        self._ends = deque(ends)
        self._events: deque[Event] = deque()
        self.submitted: list[int] = []

    def submit(self, trial: TrialTask) -> None:
        self.submitted.append(trial.attempt)
        self._events.append(self._ends.popleft())

    def next_event(self, timeout: float) -> Event | None:  # noqa: ARG002
        return self._events.popleft() if self._events else None

    def use(self, slots: int) -> None: ...

    def end_early(self, number: int, attempt: int) -> None: ...

    def cancel(self, number: int, attempt: int) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_trouble, "FIRST_WAIT", 0.01)


DONE = TrialCompleted(0, 9, 0.1, 0.01)
BEGUN, WAITED = TrialLost(0, 1, "its worker died"), TrialLost(0, 1, "no worker came", has_begun=False)
FULL = TrialLost(0, 1, "OSError: no space left on device", is_storage=True)


def follow(tmp_path: Path, *ends: Event) -> tuple[bool, list[int], list[str]]:
    """Whether it completed, the attempts, and what it told."""
    executor, told = Scripted(ends), list[str]()
    task = TrialTask(0, 1, Design(Architecture.parse("000")), 0, tmp_path)
    return _follow(executor, task, lambda _: None, told.append, StopRequest()), executor.submitted, told


def test_what_no_worker_has_begun_counts_against_nothing(tmp_path: Path) -> None:
    assert follow(tmp_path, *[WAITED] * 5, DONE) == (True, [1, 2, 3, 4, 5, 6], [])


def test_it_is_given_up_when_its_workers_have_died_too_often(tmp_path: Path) -> None:
    done, attempts, told = follow(tmp_path, *[BEGUN, WAITED] * (MOST_ATTEMPTS - 1), DONE)
    assert done
    assert len(attempts) == 2 * MOST_ATTEMPTS - 1
    assert told == ["goes on after its last whole epoch: its worker died"] * (MOST_ATTEMPTS - 1)
    with pytest.raises(FullTrainingError, match="its worker died"):
        follow(tmp_path, *[BEGUN] * MOST_ATTEMPTS, DONE)


def test_one_that_ends_to_have_more_processes_goes_on_as_often_as_it_takes(tmp_path: Path) -> None:
    ends = [TrialStopped(0, 1)] * (MOST_ATTEMPTS + 1)
    told = ["there is room for more processes: it goes on with them"] * len(ends)
    assert follow(tmp_path, *ends, DONE) == (True, [1, 2, 3, 4, 5], told)


def test_storage_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    done, attempts, told = follow(tmp_path, FULL, FULL, FULL, FULL, DONE)
    assert done
    assert attempts == [1, 2, 3, 4, 5]
    assert told == ["checkpoints cannot be written, trials wait (OSError: no space left on device)"] * 4


def test_storage_that_stays_away_ends_it_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_trouble, "STORAGE_PATIENCE", 0.05)
    with pytest.raises(FullTrainingError, match="free or mend the disk before you go on: OSError: no space"):
        follow(tmp_path, *[FULL] * 20)

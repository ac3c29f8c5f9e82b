"""A search on a fresh database, with trainings in threads, that can be run several times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mixrec_automl.cluster.executor import EpochEnded, Executor
from mixrec_automl.cluster.in_process import InProcessExecutor
from mixrec_automl.cluster.training import Training
from mixrec_automl.controller import SearchParts, run_search
from mixrec_automl.interruption import StopRequest
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search_config import BudgetConfig
from mixrec_automl.store.records import Search, Trial, TrialState
from mixrec_automl.store.repository import Repository
from tests.mixrec_automl.proposers import Enumerating
from tests.mixrec_automl.store.writing import writer_of


@dataclass
class Watching:
    """Keeps what it was told; `on_trial` lets a test act in the middle."""

    changes: list[tuple[int, TrialState]] = field(default_factory=list)
    epochs: list[EpochEnded] = field(default_factory=list)
    notices: list[str | None] = field(default_factory=list)
    shares: list[str | None] = field(default_factory=list)
    on_trial: Callable[[Trial], None] = lambda _: None

    def proposing(self) -> None: ...

    def proposed(self, proposal: Proposal) -> None: ...

    def stopping(self) -> None: ...

    def notice(self, text: str | None) -> None:
        self.notices.append(text)

    def sharing(self, text: str | None) -> None:
        self.shares.append(text)

    def trial_changed(self, trial: Trial) -> None:
        self.changes.append((trial.number, trial.state))
        self.on_trial(trial)

    def epoch_ended(self, event: EpochEnded) -> None:
        self.epochs.append(event)


@dataclass
class Bench:
    repository: Repository
    folder: Path
    stop: StopRequest = field(default_factory=StopRequest)
    watching: Watching = field(default_factory=Watching)
    proposer: Enumerating = field(default_factory=Enumerating)
    epochs: int = 2
    """Of a whole training, where a test prunes"""
    woken: int = 0

    def run(self, training: Training, *, trials: int = 6, slots: int = 2, **budget: object) -> Search:
        return self.run_with(lambda: InProcessExecutor(training), trials=trials, slots=slots, **budget)

    def run_with(self, make: Callable[[], Executor], *, trials: int = 6, slots: int = 2, **budget: object) -> Search:
        writer = writer_of(self.repository, "s")
        known = self.repository.trials("s")
        seen = self.repository.observations("s")
        parts = SearchParts(writer, known, seen, self.epochs, self.proposer, make, self.watching, self._wake)
        return run_search(BudgetConfig(trials=trials, seed=3, **budget), slots, self.folder, parts, self.stop)  # type: ignore[arg-type]

    def _wake(self) -> None:
        self.woken += 1

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.repository.trials("s")

    @property
    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials]

"""What a user sees of a running search: a table that renews itself, or lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.progress import Row, SearchProgress, clock_time
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.store.records import Trial, TrialState
from trainers.errors import last_line

STYLES = {
    TrialState.QUEUED: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETED: "green",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "yellow",
}
LEAST_WIDTH = {"seconds": 76, "origin": 68, "error": 56, "epoch": 44, "state": 36}
"""Columns of a terminal from which on each part of the table is shown: narrow ones lose what says least first."""
LINES_AROUND_TABLE = 8
REFRESHES_PER_SECOND = 2
STOPPING = "stopping (Ctrl-C again: at once)"


class LiveTable:
    """A `SearchListener` that keeps a table of the trials on the terminal while `showing`."""

    def __init__(self, progress: SearchProgress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._lock = threading.Lock()  # the terminal is renewed from a thread of its own
        self._proposing_since: float | None = None
        self._is_stopping = False
        self._notice: str | None = None
        self._sharing: str | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        with Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=REFRESHES_PER_SECOND,
            vertical_overflow="crop",
        ):
            yield

    def proposing(self) -> None:
        with self._lock:
            self._proposing_since = time.monotonic()

    def proposed(self, proposal: Proposal) -> None:
        with self._lock:
            self._progress.last_kernel = proposal.kernel

    def trial_changed(self, trial: Trial) -> None:
        with self._lock:
            if trial.state is TrialState.QUEUED:
                self._proposing_since = None
            self._progress.trial_changed(trial)

    def epoch_ended(self, event: EpochEnded) -> None:
        with self._lock:
            self._progress.epoch_ended(event)

    def notice(self, text: str | None) -> None:
        with self._lock:
            self._notice = text

    def sharing(self, text: str | None) -> None:
        with self._lock:
            self._sharing = text

    def stopping(self) -> None:
        with self._lock:
            self._proposing_since, self._is_stopping = None, True

    def render(self) -> RenderableType:
        with self._lock:
            notices = [Text(text, style="yellow") for text in (self._sharing, self._notice) if text]
            return Group(self._table(), self._bar(), self._status(), *notices)

    def _table(self) -> Table:
        progress, width = self._progress, self._console.width
        rows = progress.most_telling(max(3, self._console.height - LINES_AROUND_TABLE))
        hidden = len(progress.rows) - len(rows)
        table = Table(title=f"search {progress.name}", caption=f"and {hidden} more" if hidden else None)
        shown = {name for name, least in LEAST_WIDTH.items() if width >= least}
        for name in ("#", "design", "origin", "state", "epoch", "MRR", "seconds"):
            if name in shown or name not in LEAST_WIDTH:
                is_number = name in ("#", "epoch", "MRR", "seconds")
                # A column that may wrap gives way first; the design, one long word, is then cut instead of wrapped.
                table.add_column(
                    name, justify="right" if is_number else "left", no_wrap=name != "design", overflow="ellipsis"
                )
        best = progress.best
        for row in rows:
            trial = row.trial
            cells: dict[str, str | Text] = {
                "#": str(trial.number),
                "design": trial.label,
                "origin": trial.origin.short,
                "state": Text(trial.state, style=STYLES[trial.state]),
                "epoch": f"{row.epoch}/{progress.epochs_of(trial)}",
                "MRR": score(row, with_error="error" in shown),
                "seconds": f"{row.seconds:.0f}" if row.seconds else "",
            }
            table.add_row(
                *(cell for name, cell in cells.items() if name in shown or name not in LEAST_WIDTH),
                style="bold" if best is not None and trial.number == best.trial.number else None,
            )
        return table

    def _bar(self) -> RenderableType:
        progress = self._progress
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1, min_width=4)
        line.add_column(no_wrap=True)
        bar = ProgressBar(total=progress.total_epochs, completed=progress.epochs_done)
        line.add_row(bar, Text(how_far(progress)))
        return line

    def _status(self) -> Text:
        parts = [best_so_far(self._progress)]
        parts += [f"pruning saved {saved} epochs"] if (saved := self._progress.epochs_saved) else []
        if self._is_stopping:
            parts.append(STOPPING)
        elif self._proposing_since is not None:
            parts.append(f"proposing for {time.monotonic() - self._proposing_since:.0f} s")
        elif self._progress.last_proposal_seconds is not None:
            parts.append(f"last proposal {self._progress.last_proposal_seconds:.1f} s{of_kernel(self._progress)}")
        return Text(", ".join(parts), overflow="ellipsis", no_wrap=True)


class PlainLines:
    """A `SearchListener` that prints a line per event: for log files and pipes."""

    def __init__(self, progress: SearchProgress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._notice: str | None = None
        self._sharing: str | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        yield

    def proposing(self) -> None: ...

    def proposed(self, proposal: Proposal) -> None:
        self._progress.last_kernel = proposal.kernel

    def notice(self, text: str | None) -> None:
        if text != self._notice:
            self._print(text or "that is over, the search goes on")
        self._notice = text

    def sharing(self, text: str | None) -> None:
        if text != self._sharing:
            self._print(text or "all slots that it can use are its own again")
        self._sharing = text

    def stopping(self) -> None:
        self._print(STOPPING)

    def trial_changed(self, trial: Trial) -> None:
        row, progress = self._progress.trial_changed(trial), self._progress
        if trial.state is TrialState.QUEUED and trial.attempt == 0:
            what = f"proposed in {trial.proposal_seconds:.1f} s, {trial.origin}{of_kernel(progress)}"
        elif trial.state is TrialState.QUEUED:
            what = "to be run again" + (f": {last_line(trial.error)}" if trial.error else "")
        elif trial.state is TrialState.RUNNING:
            what = f"attempt {trial.attempt}"
        elif trial.state is TrialState.FAILED:
            what = f"{last_line(trial.error or '')}; {how_far(progress)}"
        elif trial.state is TrialState.PRUNED:
            saved = f"ended after epoch {row.epoch} of {progress.epochs_of(trial)}"
            what = f"{trial.error or 'unknown'}; {saved}; {how_far(progress)}"
        else:
            what = f"MRR {score(row)}; {best_so_far(progress)}; {how_far(progress)}"
        self._print(f"trial {trial.number}  {trial.label}  {trial.state}  {what}")

    def epoch_ended(self, event: EpochEnded) -> None:
        row = self._progress.epoch_ended(event)
        mrr, seconds = event.metrics.get("validation_mrr"), event.metrics.get("seconds")
        parts = [f"epoch {event.epoch}/{self._progress.epochs_of(row.trial)}"]
        parts += [f"MRR {mrr:.4f}"] if mrr is not None else []
        parts += [f"{seconds:.1f} s"] if seconds is not None else []
        self._print(f"trial {event.number}  {row.trial.label}  {'  '.join(parts)}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._console.file.flush()


def view_of(progress: SearchProgress, console: Console) -> LiveTable | PlainLines:
    """The table on a terminal, else lines."""
    return LiveTable(progress, console) if console.is_terminal else PlainLines(progress, console)


def tell_of_holder(console: Console, holder: str) -> None:
    """Why nothing happens for some seconds."""
    console.print(f"run last by {holder}: looking whether that is still alive", highlight=False, soft_wrap=True)


def score(row: Row, *, with_error: bool = True) -> str:
    """MRR and its standard error, as far as they are known."""
    if row.mrr is None:
        return ""
    if row.standard_error is None or not with_error:
        return f"{row.mrr:.4f}"
    return f"{row.mrr:.4f} ± {row.standard_error:.4f}"


def of_kernel(progress: SearchProgress) -> str:
    """Of the surrogate that made the last proposal, where one did."""
    return f", kernel {progress.last_kernel}" if progress.last_kernel else ""


def how_far(progress: SearchProgress) -> str:
    left = progress.seconds_left
    return f"{progress.trials_ended}/{progress.trials} trials" + ("" if left is None else f", {clock_time(left)} left")


def best_so_far(progress: SearchProgress) -> str:
    best = progress.best
    return "no trial completed yet" if best is None else f"best {best.mrr:.4f} (trial {best.trial.number})"

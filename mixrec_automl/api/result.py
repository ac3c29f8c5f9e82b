"""What a search has found, for Python: its trials as tables, its figures, and the way to a registered model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from mixrec_automl.full_run import Outcome
    from mixrec_automl.report.drawn import Drawn
    from mixrec_automl.report.material import Material
    from mixrec_automl.store.records import SearchState, Trial
    from mixrec_automl.store.repository import Repository

COMPLETED = "completed trials"
DESIGNS = "completed trials of two designs that differ in MRR, and no `search.settings`"


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A search as it was recorded when this was read; `mixrec_automl.load_search` reads it anew.

    Figures are those of the report. A method that draws raises UserError, which names what is missing, where the search
    has nothing for it yet.
    """

    material: Material
    """All that is recorded"""

    @classmethod
    def read(cls, repository: Repository, name: str) -> SearchResult:
        """Raises UserError where there is no such search, or it is a study."""
        from mixrec_automl.report.material import Material

        return cls(Material.read(repository, name))

    @property
    def name(self) -> str:
        return self.material.search.name

    @property
    def state(self) -> SearchState:
        """COMPLETED, STOPPED, FAILED, or RUNNING where it has not ended; equal to these words."""
        return self.material.search.state

    @property
    def error(self) -> str | None:
        """Why it FAILED."""
        return self.material.search.error

    @property
    def best(self) -> Trial:
        """The winner: `number`, `architecture`, `settings`, `mrr`, `standard_error`, and whatever else is recorded.

        It is the one that `mixrec-automl show` names: not always the one of the highest MRR, which may have been lucky.

        Raises:
            UserError: no trial is completed.
        """
        if self.material.best is None:
            raise UserError(f"search {self.name!r} has no completed trial: `error` and `trials` tell why")
        return self.material.best

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, by number.

        Columns: `state`, `origin` (who proposed it), `architecture` (its bits), one for each searched setting by dotted
        key, `seed`, `mrr` (best validation MRR), `standard_error` (of it, over users), `epochs` (recorded ones),
        `seconds` (of the last attempt), `proposal_seconds`, `attempt`, `losses`, `started_at` and `finished_at` (UTC),
        `error`, and one for each metric that trainings report at their end.
        """
        from mixrec_automl.api.frames import trials_frame

        return trials_frame(self.material.trials, self.material.observations)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row for each epoch that an attempt of a trial reported.

        Columns: `trial`, `attempt`, `epoch` (from 1), and one for each metric, such as `validation_mrr` and `seconds`.
        """
        from mixrec_automl.api.frames import curves_frame

        return curves_frame(self.material.observations)

    def plot_best_so_far(self) -> Figure:
        """Every completed trial, and the best of them at each moment."""
        from mixrec_automl.report.over_time import best_so_far

        return self._drawn(best_so_far, COMPLETED)

    def plot_curves(self) -> Figure:
        """Validation MRR of every trial by epoch."""
        from mixrec_automl.report.over_time import learning_curves

        return self._drawn(learning_curves, "epochs that have ended")

    def plot_timeline(self) -> Figure:
        """Which trial ran when, side by side."""
        from mixrec_automl.report.over_time import timeline

        return self._drawn(timeline, "trials that have ended")

    def plot_winner(self) -> Figure:
        """The adapters of the best trial, layer by layer."""
        from mixrec_automl.report.of_designs import winner

        return self._drawn(winner, COMPLETED)

    def plot_designs(self) -> Figure:
        """The bits of all designs, the best first."""
        from mixrec_automl.report.of_designs import all_designs

        return self._drawn(all_designs, "completed trials of two designs")

    def plot_effects(self) -> Figure:
        """What each bit is worth, by the surrogate, with its interval."""
        from mixrec_automl.report.of_designs import bit_effects

        return self._drawn(bit_effects, DESIGNS)

    def plot_pair_effects(self) -> Figure:
        """The pairs of bits that change each other's effect most."""
        from mixrec_automl.report.of_designs import pair_effects

        return self._drawn(pair_effects, DESIGNS)

    def plot_comparison(self) -> Figure:
        """The winner less the fixed design and, once promoted, less popularity, with intervals."""
        from mixrec_automl.report.trust import comparison

        return self._drawn(
            comparison, "a confirmation that has ended, or a promotion (`load_search` reads a later one)"
        )

    def plot_calibration(self) -> Figure:
        """What the surrogate says of each design that it does not know, against what came out."""
        from mixrec_automl.report.trust import calibration

        return self._drawn(calibration, "completed trials of five designs, and no `search.settings`")

    def plot_next_design(self) -> Figure:
        """How probabilistic reparameterization arrives at the design that would come next."""
        from mixrec_automl.report.trust import next_design

        return self._drawn(next_design, f"{DESIGNS}, and a design that has not been proposed")

    def plot_front(self) -> Figure:
        """The best MRR at every number of trainable parameters."""
        from mixrec_automl.report.trust import front

        return self._drawn(front, "`search.second_objective`, and completed trials")

    def report(self, folder: str | Path) -> Path:
        """Write it as one HTML page that needs no network, with each figure as SVG and PNG beside it.

        Returns:
            The page.

        Raises:
            UserError: it has no trial yet, or the folder cannot be written.
        """
        from mixrec_automl.report.page import write_report

        return write_report(self.material, Path(folder))[0]

    def promote(
        self,
        trial: int | None = None,
        *,
        workers: int | None = None,
        from_trial: bool = False,
        force: bool = False,
    ) -> Outcome:
        """Train the winner on all users, test it once and register it; it becomes champion if it is better.

        Args:
            trial: promote this one instead.
            workers: data-parallel processes; `promotion.workers` of the configuration when absent.
            from_trial: begin with the weights of the trial's best epoch, instead of fresh ones.
            force: replace a champion that was trained on other data.

        Returns:
            `evaluations` on the test items, `version` in the registry, and `decision` on whether it is the champion.

        Raises:
            UserError: no such completed trial, too few resources, a champion of other data, no registry, or another
                thread than the main one.
            FullTrainingError: the training raised.
            KeyboardInterrupt: Ctrl-C stopped it cleanly; the same call goes on.
        """
        from mixrec_automl.api.promoting import promote
        from mixrec_automl.interruption import check_main_thread

        check_main_thread()
        chosen = self.best if trial is None else self._completed(trial)
        return promote(self.material.search, self.material.config, chosen, workers, from_trial=from_trial, force=force)

    def _completed(self, number: int) -> Trial:
        for trial in self.material.completed:
            if trial.number == number:
                return trial
        raise UserError(f"search {self.name!r} has no completed trial {number}: `trials` lists all")

    def _drawn(self, draw: Callable[[Material], Drawn | None], needs: str) -> Figure:
        from mixrec_automl.report.style import drawing

        with drawing():
            found = draw(self.material)
            if found is None:
                raise UserError(f"search {self.name!r} has nothing for this figure, which needs {needs}")
            found.figure.draw_without_rendering()  # ticks are made when they are first needed: here, in our style
            return found.figure

    def __repr__(self) -> str:
        best = self.material.best
        told = "" if best is None else f", best trial {best.number} with MRR {best.mrr:.4f}"
        return f"<search {self.name!r}: {self.state}, {len(self.material.trials)} trials{told}>"

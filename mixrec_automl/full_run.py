"""Carries out a full training: trained, tested, let pass the gate or not, registered; shown on a console and in MLflow.

The gate (design, section 1): the alias `champion` moves only to a model that is better on the same users of the same
data, the paired 95 % lower bound of the difference in MRR being above zero; a first champion must beat popularity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from mixrec_automl.cluster.executor import EpochEnded
from mixrec_automl.cluster.ray_session import fitting, ray_session
from mixrec_automl.epochs_bar import epochs_bar
from mixrec_automl.full_training import (
    Evaluation,
    FullTraining,
    evaluate_package,
    flat_metrics,
    pack,
    train_fully,
)
from mixrec_automl.gate import Decision, first_champion
from mixrec_automl.interruption import StopRequest, raise_on_signals
from mixrec_automl.mlflow_model_run import ModelRun
from mixrec_automl.registry import ModelVersion, Registry, scratch_folder
from trainers.data.sequence_data import SequenceData
from trainers.package import Package, read_package

EXAMPLE_ITEMS = 3
Meet = Callable[[Evaluation, Callable[[], Package], str], Decision]
"""Given results with seen items in the ranking, what reads the champion, and its name"""


@dataclass(frozen=True)
class Outcome:
    """Of a full training that has ended."""

    evaluations: tuple[Evaluation, ...]
    version: ModelVersion
    decision: Decision
    example_title: str
    """A title of the catalogue, for the command that is suggested next"""


@dataclass(frozen=True)
class FullRun:
    """One full training, and all that it is to end in.

    A signal ends the training after its epoch or after a few seconds, tests at once, and nothing once they are done:
    what follows takes seconds. What was trained is kept, so the same run goes on from there.
    """

    plan: FullTraining
    data: SequenceData
    registry: Registry
    name: str
    """Registered model that gets one more version"""
    console: Console

    def carry_out(self, run: ModelRun, stop: StopRequest, meet: Meet) -> Outcome:
        """Train, test, pass the gate and register.

        Args:
            stop: set by a signal.
            meet: the gate where there is a champion.

        Raises:
            KeyboardInterrupt: it was stopped.
            UserError: too few resources, or no answer from the registry.
            FullTrainingError: the training raised.
        """
        is_trained = self._train(run, stop)
        with raise_on_signals():
            if not is_trained or stop.is_set():
                raise KeyboardInterrupt
            package, evaluations = self._test(run)
            rival = self.registry.champion(self.name)  # asked now: another one may have come during the training
            decision = self._decide(evaluations[0], rival, meet)
        with self.console.status("registering"):
            example = list(package.catalogue.ids[:EXAMPLE_ITEMS])
            version = self.registry.register(self.name, self.plan.package, run.id, example, self.data.fingerprint)
        self._describe(version, evaluations, decision)
        while decision.moves and not self.registry.replace_champion(rival, version):
            rival = self.registry.champion(self.name)  # or during the comparison, which takes minutes
            decision = self._decide(evaluations[0], rival, meet)
            self._describe(version, evaluations, decision)
        return Outcome(evaluations, version, decision, package.catalogue.titles[0])

    def tell(self, trouble: str | None) -> None:
        """Print what is the matter; None: it is over, of which what happens next says enough."""
        if trouble is not None:
            self.console.print(trouble, highlight=False, markup=False, soft_wrap=True)

    def _decide(self, evaluation: Evaluation, rival: ModelVersion | None, meet: Meet) -> Decision:
        if rival is None:
            return first_champion(evaluation)
        with self.console.status(f"scoring {rival} again"), scratch_folder() as scratch:
            return meet(evaluation, lambda: read_package(self.registry.fetch(rival, Path(scratch))), str(rival))

    def _train(self, run: ModelRun, stop: StopRequest) -> bool:
        plan, console = self.plan, self.console
        with ray_session() as scratch, epochs_bar(console, plan.config.training.epochs) as show:
            had = plan.config.cluster
            # A search may ask for more slots than a cluster has, and so for more CPUs here than there are.
            cluster = fitting(had, plan.fewest_workers)
            if cluster != had:
                console.print(f"with {cluster.cpus_per_worker} CPU each: there is room for no more", highlight=False)

            def on_epoch(event: EpochEnded) -> None:
                show(event)
                run.log(event.metrics, event.epoch)

            fitted = replace(plan, config=replace(plan.config, cluster=cluster))
            return train_fully(fitted, (scratch or plan.folder) / "train", on_epoch, self.tell, stop)

    def _test(self, run: ModelRun) -> tuple[Package, tuple[Evaluation, ...]]:
        with self.console.status("packing the model and ranking every user's test item"):
            package = pack(self.plan)
            evaluations = evaluate_package(package, self.data)
        for evaluation in evaluations:
            file = self.plan.folder / evaluation.ranks.setting.file
            evaluation.ranks.write(file)
            run.keep(file)
        run.log(flat_metrics(evaluations), self.plan.config.training.epochs)
        return package, evaluations

    def _describe(self, version: ModelVersion, evaluations: tuple[Evaluation, ...], decision: Decision) -> None:
        shown = {
            f"test_{name}": f"{value:.4f}" for name, value in asdict(evaluations[0].metrics).items() if name != "users"
        }
        told = {"mixrec.gate": decision.reason, "mixrec.began_with": self.plan.began_with}
        self.registry.describe(version, {**shown, **told})

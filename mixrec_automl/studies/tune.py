"""Tunes a baseline with the search that chooses MixRec's designs, over the settings that `trainers.baselines.spaces`
declares; what was tried stays recorded like any search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console

from mixrec_automl import paths
from mixrec_automl.cluster.baseline_training import BaselineTraining
from mixrec_automl.cluster.study_training import drop_weights
from mixrec_automl.cluster.training import OnEpoch, TrialScore, TrialTask
from mixrec_automl.config import with_settings
from mixrec_automl.preparation import prepare_model, prepare_without_backbone
from mixrec_automl.search.proposer import Proposal
from mixrec_automl.search_config import SearchConfig, for_a_study
from mixrec_automl.store.records import Search, Trial, best_trial
from mixrec_automl.store.repository import Repository
from mixrec_automl.studies.run import run_recorded
from mixrec_automl.studies.study import NO_DESIGN
from search_spaces.architecture import Architecture
from search_spaces.design import Design
from search_spaces.settings import SettingsSpace, Value
from trainers.baselines.config import BaselineName
from trainers.baselines.spaces import SPACES

if TYPE_CHECKING:
    from mixrec_automl.search.ax_proposer import AxProposer

TUNING = "tuning"


@dataclass(frozen=True)
class TuningTraining:
    """A `Training` of a model with the settings that the trial's variant names; it leaves no weights."""

    variants: tuple[tuple[str, BaselineTraining], ...]

    def __call__(self, trial: TrialTask, on_epoch: OnEpoch) -> TrialScore | None:
        score = dict(self.variants)[trial.variant](trial, on_epoch)
        if score is not None:
            drop_weights(trial.folder)
        return score


@dataclass(frozen=True)
class SettingsProposer:
    """A `Proposer` of variants: `inner` proposes bits, each string of which is a variant of `space`."""

    space: SettingsSpace
    inner: AxProposer

    def propose(self, trials: Sequence[Trial], *, seed: int) -> Proposal:
        bits = self.space.by_label
        encoded = [replace(one, variant="", design=Design(Architecture.from_bits(bits[one.variant]))) for one in trials]
        found = self.inner.propose(encoded, seed=seed)
        return replace(found, design=Design(NO_DESIGN), variant=self.space.label(found.architecture.bits))


def tune(
    model: BaselineName, base: SearchConfig, name: str, trials: int, repository: Repository, console: Console
) -> tuple[Search, Mapping[str, Value]]:
    """Search for the settings of `model` with the best validation MRR, or go on with that; recorded as `name`.

    Returns:
        The search as recorded, and the best settings that it found so far, by dotted key; none before its first trial.

    Raises:
        UserError, KeyboardInterrupt: as `run_study`.
    """
    from mixrec_automl.search.ax_proposer import AxProposer
    from search_spaces.damoe import DamoeSpace

    space = SPACES[model]
    initial = min(base.search.initial_trials, trials)
    base = for_a_study(base)
    base = replace(base, search=replace(base.search, trials=trials, initial_trials=initial))
    folders = paths.data_folder(base.data.name), paths.backbones_folder()
    variants = tuple(
        (
            label,
            BaselineTraining(with_settings(base, dotted(model, bits), f"the space of {model}"), model, *folders),
        )
        for label, bits in space.by_label.items()
    )
    # To the proposer bits are bits: those of two layers are as many as a space here has.
    proposer = SettingsProposer(space, AxProposer(DamoeSpace(space.num_bits // 3), initial))
    basis = prepare_without_backbone(base, console)
    prepare_model(base, model, console)
    stored = {**base.as_dict(), "study": {"name": TUNING, "model": model}}
    epochs = {label: training.settings.epochs for label, training in variants}
    ended = run_recorded(name, base, stored, basis, TuningTraining(variants), proposer, repository, console, epochs)
    best = best_trial(repository.trials(name))
    return ended, {} if best is None else dotted(model, space.by_label[best.variant])


def dotted(model: BaselineName, bits: Sequence[int]) -> dict[str, Value]:
    """The settings that `bits` mean, by dotted key of the configuration."""
    return {f"baselines.{model}.{key}": value for key, value in SPACES[model].settings(bits).items()}

"""PR as a sampler of Optuna (https://optuna.org), which is not installed with this package: `pip install optuna`.

import optuna
from mixrec_automl.integrations.optuna_sampler import PRSampler

def objective(trial):
    bits = [trial.suggest_int(f"bit_{place}", 0, 1) for place in range(12)]
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    return train(bits, rate)

study = optuna.create_study(direction="maximize", sampler=PRSampler(seed=0))
study.optimize(objective, n_trials=40)
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.suggestion import Observed, suggest
from search_spaces.mixed import MOST_LEVELS, Categorical, Constraint, Integer, MixedSpace, Ordinal, Parameter, Real


class PRSampler(BaseSampler):
    """Proposes the parameters that all trials share; those that only some have are drawn at random.

    Args:
        seed: of everything random; drawn where absent.
        initial_trials: before the surrogate takes over.
        noise_variance: of one value around the mean of its parameters. Where it is given, parameters are tried again
            where that teaches more than new ones.
        constraints: each is asked with the parameters whether they may be tried. Optuna draws the first trial of a
            study by itself, before it knows the parameters: `study.enqueue_trial` gives it one that may be tried.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        initial_trials: int = 10,
        noise_variance: float | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self._seed = random.randrange(2**31) if seed is None else seed
        self._initial, self._noise, self._constraints = initial_trials, noise_variance, tuple(constraints)
        self._shared = IntersectionSearchSpace()
        self._random = RandomSampler(seed=self._seed)

    def reseed_rng(self) -> None:
        """Called in each process of a parallel study, so that they do not all propose the same."""
        self._seed = random.randrange(2**31)
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Raises ValueError for a study of several objectives."""
        self._raise_error_if_multi_objective(study)
        shared = self._shared.calculate(study)
        return {name: own for name, own in sorted(shared.items()) if not own.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        space = MixedSpace(tuple(_parameter(name, own) for name, own in search_space.items()), self._constraints)
        sign = 1 if study.direction is StudyDirection.MAXIMIZE else -1
        history = [
            Observed(
                {own.name: own.nearest(one.params[own.name]) for own in space.parameters},  # of a grid, to the last bit
                None if (value := _outcome(one)) is None else sign * value,
                is_pending=not one.state.is_finished(),
            )
            for one in study.get_trials(deepcopy=False)
            if all(_holds(own, one.params, name) for name, own in search_space.items())
        ]
        # One Sobol sequence for the first trials; afterwards each has an ascent of its own.
        seed = self._seed if len(history) < self._initial else self._seed + trial.number
        try:
            found = suggest(space, history, seed=seed, initial=self._initial, noise_variance=self._noise)
        except SpaceExhausted:  # Optuna has no end of a space: what is best so far comes again, or something at random
            allowed = [one for one in history if one.value is not None and space.allows(one.setting)]
            return dict(max(allowed, key=lambda one: one.value or 0.0).setting) if allowed else {}
        return _rounded(found, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _parameter(name: str, own: BaseDistribution) -> Parameter:
    if isinstance(own, CategoricalDistribution):
        return Categorical(name, own.choices)
    if isinstance(own, IntDistribution):
        return Real(name, own.low, own.high, log=True) if own.log else Integer(name, own.low, own.high, own.step)
    assert isinstance(own, FloatDistribution)
    if own.step is not None and (count := round((own.high - own.low) / own.step) + 1) <= MOST_LEVELS:
        return Ordinal(name, tuple(min(own.low + own.step * place, own.high) for place in range(count)))
    return Real(name, own.low, own.high, log=own.log)


def _outcome(trial: FrozenTrial) -> float | None:
    """None of a trial that has not ended, has failed, or tells by an infinite value that it has."""
    is_whole = trial.state is TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    return trial.value if is_whole else None


def _holds(own: BaseDistribution, params: Mapping[str, Any], name: str) -> bool:
    """Whether a recorded value is one of `own`: the range of a parameter may have changed between trials."""
    return name in params and own._contains(own.to_internal_repr(params[name]))


def _rounded(found: Mapping[str, Any], search_space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Numbers on the grid that their distribution has."""
    rounded = dict(found)
    for name, own in search_space.items():
        if isinstance(own, IntDistribution) and isinstance(found[name], float):
            rounded[name] = own.low + own.step * round((found[name] - own.low) / own.step)
        elif isinstance(own, FloatDistribution) and own.step is not None:
            rounded[name] = min(own.low + own.step * round((found[name] - own.low) / own.step), own.high)
    return rounded

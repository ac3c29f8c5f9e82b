"""PR as a searcher of Ray Tune.

from ray import tune
from mixrec_automl.integrations.ray_tune import PRSearch

space = {"width": tune.choice([32, 64, 128]), "layers": tune.randint(1, 7), "rate": tune.loguniform(1e-4, 1e-1)}
tuner = tune.Tuner(
    train,  # reports {"mrr": ...}
    param_space=space,
    tune_config=tune.TuneConfig(metric="mrr", mode="max", num_samples=40, search_alg=PRSearch(seed=0)),
)
tuner.fit()
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.sample import Categorical as TuneCategorical
from ray.tune.search.sample import Domain, Float, LogUniform, Uniform
from ray.tune.search.sample import Integer as TuneInteger
from ray.tune.search.variant_generator import parse_spec_vars
from ray.tune.utils.util import flatten_dict, unflatten_dict

from mixrec_automl.search.proposer import SpaceExhausted
from mixrec_automl.search.suggestion import Observed, suggest
from search_spaces.mixed import Categorical, Constraint, Integer, MixedSpace, Parameter, Real, Value


class PRSearch(Searcher):  # type: ignore[misc]
    """Proposes the parameters of `param_space` that are `tune.choice`, `randint`, `uniform` or `loguniform`.

    Args:
        metric: of the results; that of the `TuneConfig` where absent.
        mode: "max" or "min"; likewise.
        seed: of everything random.
        initial_trials: before the surrogate takes over.
        noise_variance: as `suggest`: where it is given, parameters may be tried again.
        constraints: each is asked with the parameters, by flat name such as "model/width", whether they may be tried.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        seed: int = 0,
        initial_trials: int = 10,
        noise_variance: float | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._metric, self._mode = metric, mode
        self._seed, self._initial, self._noise = seed, initial_trials, noise_variance
        self._constraints = tuple(constraints)
        self._space: MixedSpace | None = None
        self._trials: dict[str, Observed] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **_: Any) -> bool:
        """Called by Tune with its `param_space`. Raises ValueError for a parameter that PR cannot propose."""
        if self._space is not None:
            return False
        self._metric, self._mode = metric or self._metric, mode or self._mode
        if parse_spec_vars(config)[2]:
            raise ValueError("PRSearch proposes points, so it takes no tune.grid_search: give tune.choice instead")
        _, domains, _ = parse_spec_vars(flatten_dict(config, prevent_delimiter=True))
        if not domains:
            return False
        self._space = MixedSpace(
            tuple(_parameter("/".join(path), domain) for path, domain in domains), self._constraints
        )
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The parameters of a new trial, or `Searcher.FINISHED` where none is left.

        Raises ValueError where the space, the metric or the mode is not known.
        """
        if self._space is None or self._metric is None or self._mode is None:
            raise ValueError("PRSearch needs a param_space with something to search, a metric and a mode")
        try:
            setting = suggest(
                self._space,
                list(self._trials.values()),
                # One Sobol sequence for the first trials; afterwards each has an ascent of its own.
                seed=self._seed if len(self._trials) < self._initial else self._seed + len(self._trials),
                initial=self._initial,
                noise_variance=self._noise,
            )
        except SpaceExhausted:
            return str(Searcher.FINISHED)
        self._trials[trial_id] = Observed(setting, None, is_pending=True)
        return dict(unflatten_dict(setting))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Its last result counts; one that failed, or whose metric is absent or not finite, is not proposed again."""
        known = self._trials.get(trial_id)
        if known is None:
            return
        told = None if error or not result or self._metric is None else result.get(self._metric)
        value = (1 if self._mode == "max" else -1) * float("nan" if told is None else told)
        self._trials[trial_id] = Observed(known.setting, value if math.isfinite(value) else None)

    def save(self, checkpoint_path: str) -> None:
        """What has been tried, as JSON; the space comes from Tune again."""
        rows = [[name, dict(one.setting), one.value, one.is_pending] for name, one in self._trials.items()]
        Path(checkpoint_path).write_text(json.dumps(rows))

    def restore(self, checkpoint_path: str) -> None:
        rows: list[tuple[str, dict[str, Value], float | None, bool]] = json.loads(Path(checkpoint_path).read_text())
        self._trials = {name: Observed(setting, value, pending) for name, setting, value, pending in rows}


def _parameter(name: str, domain: Domain) -> Parameter:
    sampler = domain.get_sampler()
    if isinstance(domain, TuneCategorical) and isinstance(sampler, Uniform):
        if strange := [one for one in domain.categories if type(one) not in (str, float, int, bool, NoneType)]:
            raise ValueError(
                f"{name}: PRSearch chooses among texts, numbers, truth values and None, not {strange[0]!r}: give each "
                "choice a name, and look it up in the trainable"
            )
        return Categorical(name, tuple(domain.categories))
    if isinstance(domain, TuneInteger) and isinstance(sampler, Uniform):
        return Integer(name, domain.lower, domain.upper - 1)
    if isinstance(domain, Float) and isinstance(sampler, Uniform | LogUniform):
        return Real(name, domain.lower, domain.upper, log=isinstance(sampler, LogUniform))
    raise ValueError(
        f"{name}: PRSearch proposes tune.choice, randint, uniform and loguniform, not {type(domain).__name__} drawn by "
        f"{type(sampler).__name__}"
    )

"""The methods of `search_methods.py` over a mixed space, each as its library gives it. A design is its levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.mixed_problem import random_levels, space
from benchmarks.problems import Levels
from benchmarks.search_methods import FIRST, AxOver, BestObserved, Method, OptunaOver, OursOver, Search
from search_spaces.design import Design
from search_spaces.mixed import Integer, Ordinal, Parameter, Real


def start_mixed(method: Method, seed: int, evaluations: int) -> Search[Levels]:
    """A fresh search over `mixed_problem.space`, as `start`. Raises UserError as that."""
    match method:
        case Method.OURS:
            return MixedOurs(seed, evaluations)
        case Method.RANDOM:
            return MixedRandom(seed)
        case Method.EVOLUTION:
            return MixedEvolution(seed)
        case Method.AX:
            return MixedAx(seed)
        case Method.TPE | Method.OPTUNA_GP:
            return MixedOptuna(method, seed)


class MixedRandom(BestObserved[Levels]):
    """Distinct uniform levels."""

    def _drawn(self) -> Levels:
        [levels] = random_levels(self._generator, 1)
        return levels


class MixedEvolution(MixedRandom):
    """As `Evolution`: each parameter of a child is drawn anew with probability 1/n, one of them at least."""

    def ask(self) -> Levels:
        if len(self._observed) < FIRST:
            return super().ask()
        parents = self._parents()
        while True:
            parent = parents[self._generator.integers(len(parents))]
            fresh = self._drawn()
            drawn = self._generator.random(len(parent)) < 1 / len(parent)
            drawn[self._generator.integers(len(parent))] = True
            child = tuple(new if anew else old for old, new, anew in zip(parent, fresh, drawn, strict=True))
            if child not in self._observed:
                return child


class MixedOurs(OursOver[Levels]):
    """With settings (`search.settings`)."""

    def __init__(self, seed: int, evaluations: int) -> None:
        super().__init__(space(), seed, evaluations, is_noisy=True)

    def _meant(self, design: Design) -> Levels:
        return tuple(space().mixed.levels(space().setting(design)))

    def _ours(self, design: Levels) -> Design:
        return space().design(space().mixed.setting(design))


class MixedOptuna(OptunaOver[Levels]):
    """Over the same parameters, each as Optuna has its kind."""

    def _parameters(self, kinds: Any) -> dict[str, Any]:
        def distribution(one: Parameter) -> Any:
            if isinstance(one, Real):
                return kinds.FloatDistribution(one.low, one.high, log=one.log)
            if isinstance(one, Integer):
                return kinds.IntDistribution(one.low, one.high, step=one.step)
            if isinstance(one, Ordinal):  # Optuna has none: its place in the list
                return kinds.IntDistribution(0, one.levels - 1)
            return kinds.CategoricalDistribution(one.values)

        return {one.name: distribution(one) for one in space().mixed.parameters}

    def _meant(self, params: Mapping[str, Any]) -> Levels:
        return tuple(
            float(params[one.name]) if isinstance(one, Ordinal) else one.level(params[one.name])
            for one in space().mixed.parameters
        )

    def _params(self, design: Levels) -> dict[str, Any]:
        places = zip(space().mixed.parameters, design, strict=True)
        own = {one.name: round(level) for one, level in places if isinstance(one, Ordinal)}
        return {**space().mixed.setting(design), **own}


class MixedAx(AxOver[Levels]):
    """Over the same parameters, each as Ax has its kind."""

    def __init__(self, seed: int) -> None:
        super().__init__([_of_ax(one) for one in space().mixed.parameters], seed)

    def _meant(self, parameters: Mapping[str, Any]) -> Levels:
        return tuple(space().mixed.levels(parameters))

    def _parameters(self, design: Levels) -> dict[str, Any]:
        return space().mixed.setting(design)


def _of_ax(one: Parameter) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if isinstance(one, Real):
        scaling: Any = "log" if one.log else "linear"
        return RangeParameterConfig(name=one.name, bounds=(one.low, one.high), parameter_type="float", scaling=scaling)
    if isinstance(one, Integer):
        return RangeParameterConfig(name=one.name, bounds=(one.low, one.high), parameter_type="int")
    values: Any = list(one.values)
    kind: Any = "str" if isinstance(values[0], str) else "int"
    is_ordered = isinstance(one, Ordinal) or len(values) == 2
    return ChoiceParameterConfig(name=one.name, values=values, parameter_type=kind, is_ordered=is_ordered)

"""The methods that `search_quality.py` compares, each as its library gives it, behind one small protocol."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from benchmarks.problems import Bits, Purpose, draws
from search_spaces.design import Design
from trainers.errors import UserError

if TYPE_CHECKING:
    from mixrec_automl.search.design_space import DesignSpace
    from mixrec_automl.store.records import Origin, Trial


class Method(StrEnum):
    OURS = "ours"
    RANDOM = "random"
    EVOLUTION = "evolution"
    TPE = "Optuna TPE"
    OPTUNA_GP = "Optuna GP"
    AX = "Ax default"


D = TypeVar("D", bound=tuple[float, ...])
"""A design: bits, or the levels of a mixed space"""


class Search(Protocol[D]):
    """One search; higher is better."""

    def ask(self) -> D:
        """The next design; it may be one that was asked for before."""

    def tell(self, design: D, observed: float) -> None:
        """Outcome of the design last asked for, or of any other where none is open."""

    def recommend(self) -> D:
        """What the method calls the best design so far."""


def start(method: Method, bits: int, seed: int, evaluations: int, *, is_noisy: bool) -> Search[Bits]:
    """A fresh search with defaults everywhere.

    Args:
        evaluations: that it will have in all.
        is_noisy: whether one design has several outcomes.

    Raises:
        UserError: the library of the method is not installed.
    """
    match method:
        case Method.OURS:
            return Ours(bits, seed, evaluations, is_noisy=is_noisy)
        case Method.RANDOM:
            return Random(bits, seed)
        case Method.EVOLUTION:
            return Evolution(bits, seed)
        case Method.AX:
            return AxDefault(bits, seed)
        case Method.TPE | Method.OPTUNA_GP:
            return Optuna(method, bits, seed)


class BestObserved(ABC, Generic[D]):
    """Recommends the best observed design, and asks for distinct random ones."""

    def __init__(self, seed: int) -> None:
        self._generator = draws(Purpose.METHOD, seed)
        self._observed: dict[D, float] = {}

    @abstractmethod
    def _drawn(self) -> D:
        """A uniform design."""

    def ask(self) -> D:
        while True:
            design = self._drawn()
            if design not in self._observed:
                return design

    def tell(self, design: D, observed: float) -> None:
        self._observed[design] = observed

    def recommend(self) -> D:
        return max(self._observed, key=self._observed.__getitem__)

    def _parents(self) -> list[D]:
        """Of the next child of an evolution: the `PARENTS` best observed."""
        return sorted(self._observed, key=self._observed.__getitem__, reverse=True)[:PARENTS]


class Random(BestObserved[Bits]):
    """Distinct uniform designs."""

    def __init__(self, bits: int, seed: int) -> None:
        super().__init__(seed)
        self._bits = bits

    def _drawn(self) -> Bits:
        return tuple(int(bit) for bit in self._generator.integers(2, size=self._bits))


FIRST, PARENTS = 10, 5


class Evolution(Random):
    """Local evolution: `FIRST` random designs, then children of one of the `PARENTS` best observed.

    A child has each bit flipped with probability 1/n; one that was evaluated before is drawn again, from a parent
    drawn again, at twice the rate each hundredth time so that it always ends. Recommends the best observed one.
    """

    def ask(self) -> Bits:
        if len(self._observed) < FIRST:
            return super().ask()
        parents = self._parents()
        for attempt in range(1 << 30):
            rate = min(0.5, 2.0 ** (attempt // 100) / self._bits)
            flips = self._generator.random(self._bits) < rate
            parent = parents[self._generator.integers(len(parents))]
            design = tuple(int(bit ^ flip) for bit, flip in zip(parent, flips, strict=True))
            if design not in self._observed:
                return design
        raise AssertionError("every design has been evaluated")


class OursOver(ABC, Generic[D]):
    """The product's own search method on recorded trials; recommends what the product would promote.

    `promote` and `show` take `best_trial`: the winner of the confirmation, or the highest observed mean where there is
    none. Where a problem has no noise the share for the confirmation is set to zero, as a user would.
    """

    def __init__(self, space: DesignSpace, seed: int, evaluations: int, *, is_noisy: bool) -> None:
        from mixrec_automl.search.method import search_method
        from mixrec_automl.search_config import BudgetConfig

        self._seed = seed
        own = {} if is_noisy else {"confirmation_share": 0.0}
        self._proposer = search_method(space, BudgetConfig(trials=evaluations, seed=seed, **own))
        self._trials: list[Trial] = []
        """In the order of their numbers, those that wait or run included"""
        self._waiting: list[int] = []
        """Numbers of those that `ask` has yet to give out: a proposal may be of several trials."""

    @abstractmethod
    def _meant(self, design: Design) -> D:
        """What a design of the product is to the problem."""

    @abstractmethod
    def _ours(self, design: D) -> Design:
        """A design of the product that means `design`."""

    def ask(self) -> D:
        design = self.ask_beside()
        if design is None:
            raise AssertionError("it waits for an outcome")
        return design

    def ask_beside(self) -> D | None:
        """The next design beside those asked for that have no outcome yet; None: that will be known after one more."""
        if not self._waiting:
            proposal = self._proposer.propose(self._trials, seed=self._seed)
            if proposal is None:
                return None
            for own in proposal.seeds or (self._seed,):
                self._waiting.append(self._add(proposal.design, own, proposal.origin))
        return self._design(self._waiting.pop(0))

    def tell(self, design: D, observed: float) -> None:
        from mixrec_automl.store.records import Origin, TrialState

        open_ones = [
            trial.number
            for trial in self._trials
            if not trial.state.is_final and trial.number not in self._waiting and self._design(trial.number) == design
        ]
        if not open_ones:
            open_ones.append(self._add(self._ours(design), self._seed, Origin.SOBOL))
        number = open_ones[0]
        self._trials[number] = replace(self._trials[number], state=TrialState.COMPLETED, mrr=observed)

    def _add(self, design: Design, seed: int, origin: Origin) -> int:
        """The number of a trial that is added, to be run."""
        from mixrec_automl.store.records import Trial, TrialState

        number = len(self._trials)
        self._trials.append(Trial(number, design, seed, origin, TrialState.RUNNING, attempt=1, proposal_seconds=0.0))
        return number

    def _design(self, number: int) -> D:
        return self._meant(self._trials[number].design)

    def recommend(self) -> D:
        from mixrec_automl.store.records import best_trial

        best = best_trial(self._trials)
        if best is None:
            raise AssertionError("nothing has been observed")
        return self._design(best.number)


class Ours(OursOver[Bits]):
    """Over bits.

    The product knows designs of three bits a layer alone; a number of bits that is no multiple of three is filled up
    with one or two bits that do nothing, so that it may propose the same design of the problem up to four times.
    """

    def __init__(self, bits: int, seed: int, evaluations: int, *, is_noisy: bool) -> None:
        from mixrec_automl.search.design_space import DesignSpace
        from search_spaces.architecture import BITS_PER_LAYER
        from search_spaces.damoe import DamoeSpace

        self._bits = bits
        self._space = DamoeSpace(backbone_layers=-(-bits // BITS_PER_LAYER))
        super().__init__(DesignSpace(self._space), seed, evaluations, is_noisy=is_noisy)

    def _meant(self, design: Design) -> Bits:
        return design.architecture.bits[: self._bits]

    def _ours(self, design: Bits) -> Design:
        from search_spaces.architecture import Architecture

        return Design(Architecture.from_bits((*design, *(0,) * (self._space.num_bits - self._bits))))


def _names(bits: int) -> list[str]:
    return [f"bit_{position:03d}" for position in range(bits)]


class OptunaOver(ABC, Generic[D]):
    """Optuna's TPE or GP sampler, as its documentation has it; recommends `study.best_trial`."""

    def __init__(self, method: Method, seed: int) -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise UserError(f"{method} needs a package that is not here: pip install -e '.[bench]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: Any = (
                optuna.samplers.GPSampler(seed=seed)
                if method is Method.OPTUNA_GP
                else optuna.samplers.TPESampler(seed=seed)
            )
        self._study = optuna.create_study(sampler=sampler, direction="maximize")
        self._distributions = self._parameters(optuna.distributions)
        self._create = optuna.trial.create_trial
        self._open: Any = None

    @abstractmethod
    def _parameters(self, kinds: Any) -> dict[str, Any]:
        """Distributions by name; `kinds` is Optuna's module of them."""

    @abstractmethod
    def _meant(self, params: Mapping[str, Any]) -> D:
        """The design of Optuna's parameters."""

    @abstractmethod
    def _params(self, design: D) -> dict[str, Any]:
        """Inverse of `_meant`."""

    def ask(self) -> D:
        self._open = self._study.ask(self._distributions)
        return self._meant(self._open.params)

    def tell(self, design: D, observed: float) -> None:
        if self._open is not None:
            self._study.tell(self._open, observed)
            self._open = None
            return
        params = self._params(design)
        self._study.add_trial(self._create(params=params, distributions=self._distributions, value=observed))

    def recommend(self) -> D:
        return self._meant(self._study.best_trial.params)


class Optuna(OptunaOver[Bits]):
    """Over Booleans."""

    def __init__(self, method: Method, bits: int, seed: int) -> None:
        self._names = _names(bits)
        super().__init__(method, seed)

    def _parameters(self, kinds: Any) -> dict[str, Any]:
        return {name: kinds.CategoricalDistribution([False, True]) for name in self._names}

    def _meant(self, params: Mapping[str, Any]) -> Bits:
        return tuple(int(params[name]) for name in self._names)

    def _params(self, design: Bits) -> dict[str, Any]:
        return {name: bool(bit) for name, bit in zip(self._names, design, strict=True)}


OBJECTIVE = "value"


class AxOver(ABC, Generic[D]):
    """Ax's client with nothing but the space and the objective set; recommends `get_best_parameterization`."""

    def __init__(self, parameters: Sequence[Any], seed: int) -> None:
        from ax.api.client import Client

        for handler in logging.getLogger("ax").handlers:
            handler.setLevel(logging.WARNING)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(parameters=parameters, name="search")
        self._client.configure_optimization(objective=OBJECTIVE)
        self._open: int | None = None

    @abstractmethod
    def _meant(self, parameters: Mapping[str, Any]) -> D:
        """The design of Ax's parameters."""

    @abstractmethod
    def _parameters(self, design: D) -> dict[str, Any]:
        """Inverse of `_meant`."""

    def ask(self) -> D:
        [(self._open, parameters)] = self._client.get_next_trials(max_trials=1).items()
        return self._meant(parameters)

    def tell(self, design: D, observed: float) -> None:
        if self._open is None:
            self._open = self._client.attach_trial(parameters=self._parameters(design))
        self._client.complete_trial(trial_index=self._open, raw_data={OBJECTIVE: observed})
        self._open = None

    def recommend(self) -> D:
        parameters, *_ = self._client.get_best_parameterization()
        return self._meant(parameters)


class AxDefault(AxOver[Bits]):
    """Over Booleans."""

    def __init__(self, bits: int, seed: int) -> None:
        from ax.api.configs import ChoiceParameterConfig

        self._names = _names(bits)
        # A choice of two values is always ordered to Ax; saying so only avoids its warning.
        parameters = [
            ChoiceParameterConfig(name=name, values=[False, True], parameter_type="bool", is_ordered=True)
            for name in self._names
        ]
        super().__init__(parameters, seed)

    def _meant(self, parameters: Mapping[str, Any]) -> Bits:
        return tuple(int(parameters[name]) for name in self._names)

    def _parameters(self, design: Bits) -> dict[str, Any]:
        return {name: bool(bit) for name, bit in zip(self._names, design, strict=True)}

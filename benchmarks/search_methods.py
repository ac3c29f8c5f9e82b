"""The methods that `search_quality.py` compares, each as its library gives it, behind one small protocol."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.problems import Bits, Purpose, draws
from search_spaces.design import Design
from trainers.errors import UserError

if TYPE_CHECKING:
    from mixrec_automl.store.records import Origin, Trial


class Method(StrEnum):
    OURS = "ours"
    RANDOM = "random"
    EVOLUTION = "evolution"
    TPE = "Optuna TPE"
    OPTUNA_GP = "Optuna GP"
    AX = "Ax default"


class Search(Protocol):
    """One search over {0,1}^bits; higher is better."""

    def ask(self) -> Bits:
        """The next design; it may be one that was asked for before."""

    def tell(self, design: Bits, observed: float) -> None:
        """Outcome of the design last asked for, or of any other where none is open."""

    def recommend(self) -> Bits:
        """What the method calls the best design so far."""


def start(method: Method, bits: int, seed: int, evaluations: int, *, is_noisy: bool) -> Search:
    """A fresh search with defaults everywhere.

    Args:
        evaluations: that it will have in all.
        is_noisy: whether one design has several outcomes.

    Raises:
        UserError: the library of the method is not installed.
    """
    match method:
        case Method.OURS:
            return Ours(bits, seed, evaluations, is_noisy)
        case Method.RANDOM:
            return Random(bits, seed)
        case Method.EVOLUTION:
            return Evolution(bits, seed)
        case Method.AX:
            return AxDefault(bits, seed)
        case Method.TPE | Method.OPTUNA_GP:
            return Optuna(method, bits, seed)


class Random:
    """Distinct uniform designs; recommends the best observed one."""

    def __init__(self, bits: int, seed: int) -> None:
        self._bits = bits
        self._generator = draws(Purpose.METHOD, seed)
        self._observed: dict[Bits, float] = {}

    def ask(self) -> Bits:
        while True:
            design = tuple(int(bit) for bit in self._generator.integers(2, size=self._bits))
            if design not in self._observed:
                return design

    def tell(self, design: Bits, observed: float) -> None:
        self._observed[design] = observed

    def recommend(self) -> Bits:
        return max(self._observed, key=self._observed.__getitem__)


FIRST, PARENTS = 10, 5


class Evolution(Random):
    """Local evolution: `FIRST` random designs, then children of one of the `PARENTS` best observed.

    A child has each bit flipped with probability 1/n; one that was evaluated before is drawn again, from a parent
    drawn again, at twice the rate each hundredth time so that it always ends. Recommends the best observed one.
    """

    def ask(self) -> Bits:
        if len(self._observed) < FIRST:
            return super().ask()
        parents = sorted(self._observed, key=self._observed.__getitem__, reverse=True)[:PARENTS]
        for attempt in range(1 << 30):
            rate = min(0.5, 2.0 ** (attempt // 100) / self._bits)
            flips = self._generator.random(self._bits) < rate
            parent = parents[self._generator.integers(len(parents))]
            design = tuple(int(bit ^ flip) for bit, flip in zip(parent, flips, strict=True))
            if design not in self._observed:
                return design
        raise AssertionError("every design has been evaluated")


class Ours:
    """The product's own search method on recorded trials; recommends what the product would promote.

    `promote` and `show` take `best_trial`: the winner of the confirmation, or the highest observed mean where there is
    none. Where a problem has no noise the share for the confirmation is set to zero, as a user would. The product knows
    designs of three bits a layer alone; a number of bits that is no multiple of three is filled up with one or two bits
    that do nothing, so that it may propose the same design of the problem up to four times.
    """

    def __init__(self, bits: int, seed: int, evaluations: int, is_noisy: bool) -> None:
        from mixrec_automl.search.design_space import DesignSpace
        from mixrec_automl.search.method import search_method
        from mixrec_automl.search_config import BudgetConfig
        from search_spaces.architecture import BITS_PER_LAYER
        from search_spaces.damoe import DamoeSpace

        self._bits, self._seed = bits, seed
        self._space = DamoeSpace(backbone_layers=-(-bits // BITS_PER_LAYER))
        own = {} if is_noisy else {"confirmation_share": 0.0}
        self._proposer = search_method(DesignSpace(self._space), BudgetConfig(trials=evaluations, seed=seed, **own))
        self._trials: list[Trial] = []
        """In the order of their numbers, those that wait or run included"""
        self._waiting: list[int] = []
        """Numbers of those that `ask` has yet to give out: a proposal may be of several trials."""

    def ask(self) -> Bits:
        design = self.ask_beside()
        if design is None:
            raise AssertionError("it waits for an outcome")
        return design

    def ask_beside(self) -> Bits | None:
        """The next design beside those asked for that have no outcome yet; None: that will be known after one more."""
        if not self._waiting:
            proposal = self._proposer.propose(self._trials, seed=self._seed)
            if proposal is None:
                return None
            for own in proposal.seeds or (self._seed,):
                self._waiting.append(self._add(proposal.design, own, proposal.origin))
        return self._design(self._waiting.pop(0))

    def tell(self, design: Bits, observed: float) -> None:
        from mixrec_automl.store.records import Origin, TrialState
        from search_spaces.architecture import Architecture

        open_ones = [
            trial.number
            for trial in self._trials
            if not trial.state.is_final and trial.number not in self._waiting and self._design(trial.number) == design
        ]
        if not open_ones:
            filled = Design(Architecture.from_bits((*design, *(0,) * (self._space.num_bits - self._bits))))
            open_ones.append(self._add(filled, self._seed, Origin.SOBOL))
        number = open_ones[0]
        self._trials[number] = replace(self._trials[number], state=TrialState.COMPLETED, mrr=observed)

    def _add(self, design: Design, seed: int, origin: Origin) -> int:
        """The number of a trial that is added, to be run."""
        from mixrec_automl.store.records import Trial, TrialState

        number = len(self._trials)
        self._trials.append(Trial(number, design, seed, origin, TrialState.RUNNING, attempt=1, proposal_seconds=0.0))
        return number

    def _design(self, number: int) -> Bits:
        return self._trials[number].architecture.bits[: self._bits]

    def recommend(self) -> Bits:
        from mixrec_automl.store.records import best_trial

        best = best_trial(self._trials)
        if best is None:
            raise AssertionError("nothing has been observed")
        return self._design(best.number)


def _names(bits: int) -> list[str]:
    return [f"bit_{position:03d}" for position in range(bits)]


class Optuna:
    """Optuna's TPE or GP sampler over Booleans, as its documentation has them; recommends `study.best_trial`."""

    def __init__(self, method: Method, bits: int, seed: int) -> None:
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
        self._distributions = {
            name: optuna.distributions.CategoricalDistribution([False, True]) for name in _names(bits)
        }
        self._create = optuna.trial.create_trial
        self._open: Any = None

    def ask(self) -> Bits:
        self._open = self._study.ask(self._distributions)
        return self._bits(self._open.params)

    def tell(self, design: Bits, observed: float) -> None:
        if self._open is not None:
            self._study.tell(self._open, observed)
            self._open = None
            return
        params = {name: bool(bit) for name, bit in zip(self._distributions, design, strict=True)}
        self._study.add_trial(self._create(params=params, distributions=self._distributions, value=observed))

    def recommend(self) -> Bits:
        return self._bits(self._study.best_trial.params)

    def _bits(self, params: dict[str, Any]) -> Bits:
        return tuple(int(params[name]) for name in self._distributions)


OBJECTIVE = "value"


class AxDefault:
    """Ax's client with nothing but the space and the objective set; recommends `get_best_parameterization`."""

    def __init__(self, bits: int, seed: int) -> None:
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig

        for handler in logging.getLogger("ax").handlers:
            handler.setLevel(logging.WARNING)
        self._names = _names(bits)
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(
            parameters=[
                # A choice of two values is always ordered to Ax; saying so only avoids its warning.
                ChoiceParameterConfig(name=name, values=[False, True], parameter_type="bool", is_ordered=True)
                for name in self._names
            ],
            name="search",
        )
        self._client.configure_optimization(objective=OBJECTIVE)
        self._open: int | None = None

    def ask(self) -> Bits:
        [(self._open, parameters)] = self._client.get_next_trials(max_trials=1).items()
        return self._bits(parameters)

    def tell(self, design: Bits, observed: float) -> None:
        if self._open is None:
            parameters = {name: bool(bit) for name, bit in zip(self._names, design, strict=True)}
            self._open = self._client.attach_trial(parameters=parameters)
        self._client.complete_trial(trial_index=self._open, raw_data={OBJECTIVE: observed})
        self._open = None

    def recommend(self) -> Bits:
        parameters, *_ = self._client.get_best_parameterization()
        return self._bits(parameters)

    def _bits(self, parameters: Any) -> Bits:
        return tuple(int(parameters[name]) for name in self._names)

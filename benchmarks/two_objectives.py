"""How much of the Pareto front does a search find whose second objective is known beforehand?

    pip install -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/two_objectives.py 10        seeds 0 to 9: about half an hour of a core

Each search is kept in `two-objectives.jsonl` in `$MIXREC_HOME`, so the command goes on where it was interrupted.

A space like a search's: twelve bits, the kind of two adapters, a width and a rate, noise of a tenth of the outcomes'
spread. Wider adapters and richer kinds are better and larger, with diminishing returns that each seed draws. Methods:
ours with the cost, ours for the outcome alone, quasi-random settings, and Optuna's samplers for several objectives,
which are told the cost of each trial as if it were observed. A method recommends the front of what it has seen: ours by
its surrogate, the others by the values that they observed. The score is the hypervolume of the true values of what is
recommended, as a share of that of the true front, the reference being the median of all settings and the largest cost.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import Tensor

from benchmarks.kept_lines import append_line, whole_lines
from benchmarks.warm_start import interval
from mixrec_automl import paths
from mixrec_automl.search.budgets import Budgets
from mixrec_automl.search.known_cost import KnownCost
from mixrec_automl.search.suggestion import Observed, relaxation_of, suggest
from mixrec_automl.search.surrogate import fit, predict
from search_spaces.mixed import Categorical, MixedSpace, Ordinal, Real, Setting

TRIALS, CHECKS, INITIAL, NOISE, BITS = 40, (10, 20, 30, 40), 5, 0.1, 12
KINDS, WIDTHS = ("bottleneck", "lora", "none"), (4, 8, 16, 32, 64, 128)
SPACE = MixedSpace(
    (
        *(Categorical(f"bit {place}", (0, 1)) for place in range(BITS)),
        Categorical("expert", KINDS),
        Categorical("recommendation", KINDS),
        Ordinal("width", WIDTHS),
        Real("rate", 1e-4, 1e-2, log=True),
    )
)
COST_OF = {"bottleneck": 2.0, "lora": 1.5, "none": 0.0}


def size(setting: Setting) -> float:
    """Logarithm of a number of parameters, from 0 to 1 / 1.1."""
    width = float(setting["width"] or 0)
    own = (COST_OF[str(setting["expert"])] + COST_OF[str(setting["recommendation"])]) * width
    return math.log((100 + own) / 100) / math.log((100 + 4 * WIDTHS[-1]) / 100) / 1.1


COST = KnownCost(size, ("expert", "recommendation", "width"))


@dataclass(frozen=True)
class Truth:
    """The noise-free outcome: spread about one."""

    seed: int

    @cached_property
    def _draws(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return {
            "bits": rng.normal(0, 0.25, BITS),
            "pairs": rng.normal(0, 0.15, BITS),
            "kinds": rng.uniform(0.3, 1.0, (2, 2)),
            "width": rng.uniform(0.2, 0.6, 1),
            "rate": rng.uniform(-3.5, -2.5, 1),
        }

    def __call__(self, setting: Setting) -> float:
        own = self._draws
        bits = np.array([float(setting[f"bit {place}"] or 0) for place in range(BITS)]) * 2 - 1
        gain = math.log2(float(setting["width"] or 0)) / 7
        total = float(own["bits"] @ bits + own["pairs"] @ (bits * np.roll(bits, 1)))
        for site, name in enumerate(("expert", "recommendation")):
            kind = KINDS.index(str(setting[name]))
            if kind < 2:
                total += float(own["kinds"][site, kind] * (1 + float(own["width"][0]) * gain))
        return total - 0.5 * (math.log10(float(setting["rate"] or 0)) - float(own["rate"][0])) ** 2

    @cached_property
    def reference(self) -> float:
        rng = np.random.default_rng(self.seed)
        levels = [2] * BITS + [3, 3, len(WIDTHS)]
        rows = [[*(float(rng.integers(count)) for count in levels), float(rng.random())] for _ in range(4096)]
        return float(np.median([self(SPACE.setting(row)) for row in rows]))

    def hypervolume(self, settings: list[Setting]) -> float:
        values, costs = (torch.tensor([f(one) for one in settings], dtype=torch.float64) for f in (self, size))
        return float(Budgets(costs, torch.tensor(self.reference, dtype=torch.float64)).hypervolume(values))

    @cached_property
    def whole(self) -> float:
        """Of the true front: the best bits and rate under every kind and width, as neither changes what is best."""
        rest: Setting = {
            "expert": KINDS[0],
            "recommendation": KINDS[0],
            "width": 4,
            "rate": 10 ** float(self._draws["rate"][0]),
        }
        every: Iterator[Setting] = (
            {f"bit {place}": bit for place, bit in enumerate(bits)} for bits in product((0, 1), repeat=BITS)
        )
        best = max(every, key=lambda bits: self({**bits, **rest}))
        kinds = product(KINDS, KINDS, WIDTHS)
        return self.hypervolume([{**best, **rest, "expert": a, "recommendation": b, "width": w} for a, b, w in kinds])


Run = Iterator[tuple[list[Setting], list[float]]]
"""All that has been tried after each trial, with what was observed"""


def ours(truth: Truth, seed: int, cost: KnownCost | None, initial: int = INITIAL) -> Run:
    rng, history = np.random.default_rng(1000 + seed), list[Observed]()
    while True:
        setting = suggest(SPACE, history, seed=seed, initial=initial, noise_variance=NOISE**2, cost=cost)
        history.append(Observed(setting, truth(setting) + NOISE * float(rng.normal())))
        yield [one.setting for one in history], [float(one.value or 0) for one in history]


def by_optuna(truth: Truth, seed: int, sampler: Callable[..., optuna.samplers.BaseSampler]) -> Run:
    rng = np.random.default_rng(1000 + seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler(seed=seed))
    settings, seen = list[Setting](), list[float]()
    while True:
        trial = study.ask()
        setting: Setting = {
            one.name: trial.suggest_float(one.name, one.low, one.high, log=True)
            if isinstance(one, Real)
            else trial.suggest_categorical(one.name, one.values)
            if isinstance(one, Categorical)
            else int(2 ** trial.suggest_int(one.name, 2, 7))
            for one in SPACE.parameters
        }
        settings.append(setting)
        seen.append(truth(setting) + NOISE * float(rng.normal()))
        study.tell(trial, [seen[-1], size(setting)])
        yield settings, seen


def recommended(settings: list[Setting], seen: list[float], *, by_surrogate: bool) -> list[Setting]:
    """The front of what was tried."""
    values = torch.tensor(seen, dtype=torch.float64)
    if by_surrogate:
        relaxation = relaxation_of(SPACE)
        points = torch.tensor([SPACE.levels(one) for one in settings], dtype=torch.float64)
        rows = relaxation.features(points)
        values = predict(fit(rows, values, NOISE**2, relaxation.columns), rows)[0]
    costs: Tensor = torch.tensor([size(one) for one in settings], dtype=torch.float64)
    is_best = [values[place] >= values[costs <= costs[place]].max() for place in range(len(settings))]
    return [one for one, best in zip(settings, is_best, strict=True) if best]


METHODS: dict[str, Callable[[Truth, int], Run]] = {
    "ours": lambda truth, seed: ours(truth, seed, COST),
    "ours, outcome alone": lambda truth, seed: ours(truth, seed, None),
    "quasi-random": lambda truth, seed: ours(truth, seed, None, initial=TRIALS),
    "Optuna TPE": lambda truth, seed: by_optuna(truth, seed, optuna.samplers.TPESampler),
    "Optuna GP": lambda truth, seed: by_optuna(truth, seed, optuna.samplers.GPSampler),
}


def shares(name: str, seed: int, trials: int = TRIALS) -> dict[int, float]:
    """Of the true front's hypervolume, after each number of trials of `CHECKS`."""
    truth, found = Truth(seed), dict[int, float]()
    for settings, seen in METHODS[name](truth, seed):
        if len(settings) in CHECKS:
            front = recommended(settings, seen, by_surrogate=name.startswith("ours"))
            found[len(settings)] = truth.hypervolume(front) / truth.whole
        if len(settings) == trials:
            return found
    raise AssertionError("a run has no end of its own")


def kept(path: Path) -> dict[tuple[str, int], dict[int, float]]:
    """What `path` has: the shares of each method and seed."""
    return {
        (row["method"], row["seed"]): {int(check): share for check, share in row["shares"].items()}
        for row in whole_lines(path)
    }


def keep(path: Path, name: str, seed: int) -> None:
    """Run one search and keep what came of it."""
    append_line(path, {"method": name, "seed": seed, "shares": shares(name, seed)})


def main() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds, path = range(int(sys.argv[1])), paths.home() / "two-objectives.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed, name in product(seeds, METHODS):
        if (name, seed) not in kept(path):
            keep(path, name, seed)
            print(f"seed {seed}, {name}", file=sys.stderr, flush=True)
    found = kept(path)
    print(f"{len(seeds)} seeds: share of the true front's hypervolume; in brackets minus ours, 95 % over seeds")
    print(f"{'trials':>20}" + "".join(f"{check:>28}" for check in CHECKS))
    for name in METHODS:
        cells = []
        for check in CHECKS:
            own = [found[name, seed][check] for seed in seeds]
            differences = [share - found["ours", seed][check] for share, seed in zip(own, seeds, strict=True)]
            told = "" if name == "ours" else f" ({interval(differences)})"
            cells.append(f"{np.mean(own):.2f}{told}")
        print(f"{name:>20}" + "".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    main()

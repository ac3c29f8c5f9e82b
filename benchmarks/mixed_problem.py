"""A noisy function over placements and settings, like a search with `search.settings`: bits, an ordered list, one of
four kinds, a whole number and a rate. Made by us; `problems.py` lists it among the families."""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.problems import CENTRE, LAYER_NOISE, SPREAD, Levels, Problem, Purpose, draws, layers
from mixrec_automl.config import from_dict
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.suggestion import relaxation_of

DEPTH = 4
SETTINGS = {
    "model.bottleneck": [8, 16, 32, 64, 128],
    "model.collaborative_columns": ["item", "none", "user", "user+item"],
    "training.batch_size": {"low": 4, "high": 16},
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"},
}
"""No bit is idle under any of them."""
SAMPLE = 4096
"""Random settings that the scale is taken from."""


@cache
def space() -> DesignSpace:
    """Of twelve bits and four settings."""
    config = from_dict({"data": {"name": "walks"}, "search": {"settings": SETTINGS}}, "benchmark")
    return DesignSpace.of(config, DEPTH)


def mixed(seed: int) -> Problem:
    """The bits as in `layers`, and effects of the settings that are about as large.

    The kind has a normal effect; width and batch size have a best value each and cost the square of the distance to it;
    so has the rate, on a logarithmic scale, and its best value moves with the width. Centre, spread and noise are those
    of `layers`: .05, a standard deviation of .004 over random settings, and .002.
    """
    generator = draws(Purpose.INSTANCE, seed, DEPTH)
    bits_alone = layers(seed, DEPTH)
    names = [one.name for one in space().mixed.parameters]
    bits = len(names) - len(SETTINGS)
    highest = np.array([max(1.0, float(top)) for top in _levels()[bits:]])
    kinds = generator.normal(0, 0.6, size=4)
    best = generator.uniform(0.2, 0.8, size=3)
    slope = generator.uniform(-0.4, 0.4)
    place = {name: names.index(name) - bits for name in SETTINGS}

    def raw(levels: Levels) -> float:
        own = np.asarray(levels[bits:], dtype=np.float64) / highest
        width, batch, rate = (
            own[place[f"{section}.{key}"]]
            for section, key in (("model", "bottleneck"), ("training", "batch_size"), ("training", "learning_rate"))
        )
        kind = kinds[round(levels[bits + place["model.collaborative_columns"]])]
        placed = (bits_alone.value(tuple(int(bit) for bit in levels[:bits])) - CENTRE) / SPREAD
        ideal = best[2] + slope * (width - best[0])
        return float(placed + kind - 3 * (width - best[0]) ** 2 - 2 * (batch - best[1]) ** 2 - 6 * (rate - ideal) ** 2)

    values = [raw(one) for one in random_levels(draws(Purpose.INSTANCE, seed, DEPTH, 1), SAMPLE)]
    middle, scale = float(np.mean(values)), SPREAD / float(np.std(values))

    def value(levels: Levels) -> float:
        return CENTRE + scale * (raw(levels) - middle)

    return Problem(
        bits,
        value,
        lambda levels, noise: value(levels) + LAYER_NOISE * float(noise.normal()),
        LAYER_NOISE,
        space().mixed,
    )


@cache
def _levels() -> tuple[int, ...]:
    """The highest level of each parameter; 0 of a continuous one."""
    return tuple(max(factor.levels - 1, 0) for factor in relaxation_of(space().mixed).factors)


def random_levels(generator: np.random.Generator, count: int) -> list[Levels]:
    """Uniform ones."""
    highest = _levels()
    return [
        tuple(float(generator.integers(top + 1)) if top else float(generator.random()) for top in highest)
        for _ in range(count)
    ]

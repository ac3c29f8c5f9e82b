"""The space of designs: bits and settings, and which bits count."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixrec_automl.config import from_dict
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search.relaxation import all_points
from mixrec_automl.search.suggestion import relaxation_of
from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from search_spaces.design import Design
from search_spaces.mixed import Categorical, Integer
from trainers.errors import UserError

RATE = {"low": 1e-4, "high": 1e-2, "scale": "log"}
ALL = {
    "model.replacement_frequency": [1, 2, 3],
    "model.context_expert": ["bottleneck", "lora", "none"],
    "model.bottleneck": [16, 32, 64],
    "training.learning_rate": RATE,
}


def space_of(settings: dict[str, object], layers: int = 4, **model: object) -> DesignSpace:
    stored = {"data": {"name": "x"}, "model": model, "search": {"settings": settings}}
    return DesignSpace.of(from_dict(stored, "test"), layers)


SPACE = space_of(ALL)


def level(parameter: object) -> st.SearchStrategy[float]:
    if isinstance(parameter, Categorical):
        return st.integers(0, len(parameter.values) - 1).map(float)
    levels = getattr(parameter, "levels", 0)
    return st.integers(0, levels - 1).map(float) if levels else st.floats(0, 1)


@settings(deadline=None)
@given(st.tuples(*(level(parameter) for parameter in SPACE.mixed.parameters)))
def test_designs_and_canonical_settings_are_inverse(levels: tuple[float, ...]) -> None:
    mixed = SPACE.mixed
    (canonical,) = relaxation_of(mixed).canonical(torch.tensor([levels], dtype=torch.float64)).tolist()
    design = SPACE.design(mixed.setting(levels))
    SPACE.check(design)
    assert design == SPACE.design(mixed.setting(canonical)), "what does not count changes no design"
    assert SPACE.design(SPACE.setting(design)) == design
    assert mixed.levels(SPACE.setting(design)) == pytest.approx(canonical, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "model", "size"),
    [
        ({"model.bottleneck": [16, 32]}, {}, 2 * 2**12),
        ({"model.replacement_frequency": [1, 2]}, {}, 2**12 + 2**6),
        ({"model.replacement_frequency": [2, 4]}, {"replacement_frequency": 1}, 2**6 + 2**3),
        ({"model.context_expert": ["lora", "bottleneck"]}, {"replacement_frequency": 2}, 2**6 + 2**4),
        ({"model.bottleneck": [8, 16]}, {"causal_expert": "none", "replacement_frequency": 2}, 2 * 2**4),
        ({"model.bottleneck": {"low": 3, "high": 5}, "model.replacement_frequency": [2, 3]}, {}, 3 * (2**6 + 2**3)),
    ],
)
def test_its_size_is_the_number_of_distinct_designs(
    settings: dict[str, object], model: dict[str, object], size: int
) -> None:
    space = space_of(settings, **model)
    points = all_points([factor.levels for factor in relaxation_of(space.mixed).factors])
    designs = {space.design(space.mixed.setting(row)) for row in points.tolist()}
    assert len(designs) == space.size == size
    for design in list(designs)[:50]:
        space.check(design)


def test_without_settings_it_is_that_of_architectures() -> None:
    space = space_of({}, context_expert="lora", replacement_frequency=2)
    assert (space.size, space.settings) == (DamoeSpace(4, 2).size, ())
    assert space.fixed_design == Design(DamoeSpace(4, 2).fixed_design)
    assert str(space) == "6 bits, 64 designs"
    assert str(space_of({"model.bottleneck": [8, 16]})) == "12 bits and 1 setting, 8,192 designs"
    assert math.isinf(SPACE.size)
    assert math.isinf(space_of({"training.sampled_items": {"low": 100, "high": 9000}}).size)


def test_the_fixed_design_has_the_nearest_values() -> None:
    fixed = SPACE.fixed_design
    assert fixed.architecture == Architecture.parse("000-000-000-000")
    assert dict(fixed.settings) == {
        "model.replacement_frequency": 1,
        "model.context_expert": "bottleneck",
        "model.bottleneck": 64,
        "training.learning_rate": 1e-4,  # the configuration's own 5e-5 is not in the space
    }
    SPACE.check(fixed)
    other = space_of({"model.replacement_frequency": [2, 4], "model.context_expert": ["none", "ia3"]})
    assert str(other.fixed_design) == "000-000 model.context_expert=none model.replacement_frequency=2"
    other.check(other.fixed_design)


@pytest.mark.parametrize(
    ("bits", "settings", "told"),
    [
        ("000-000-000-000", {}, "should have values for"),
        ("000-000", {"model.replacement_frequency": 1}, "has 2 DAMoE layers"),
        ("000-000-000-000", {"model.bottleneck": 17}, "17 is none of"),
        ("000-000-000-000", {"training.learning_rate": 1.0}, "1.0 is not between"),
    ],
)
def test_a_design_of_another_space_is_refused(bits: str, settings: dict[str, object], told: str) -> None:
    whole = {**dict(SPACE.fixed_design.settings), **settings} if settings else {}
    with pytest.raises(ValueError, match=told):
        SPACE.check(Design.of(Architecture.parse(bits), whole))  # type: ignore[arg-type]


def test_a_frequency_that_leaves_no_layer_is_refused() -> None:
    for values in ([1, 5], {"low": 1, "high": 40}):
        with pytest.raises(UserError, match=r"model\.replacement_frequency must have few values, of at most the 4"):
            space_of({"model.replacement_frequency": values})


def test_every_frequency_and_kind_has_its_own_bits() -> None:
    """Written out: the bits of layer l and site s count where r divides l and the site holds a bottleneck."""
    space = space_of({"model.replacement_frequency": [1, 2, 3], "model.causal_expert": ["ia3", "bottleneck"]}, layers=6)
    for frequency, kind in product((1, 2, 3), ("ia3", "bottleneck")):
        everything = {parameter.name: 1 for parameter in space.mixed.parameters}
        design = space.design({**everything, "model.replacement_frequency": frequency, "model.causal_expert": kind})
        per_layer = (int(kind == "bottleneck"), 1, 1)
        assert design.architecture.bits == per_layer * len([n for n in range(1, 7) if n % frequency == 0])
    assert isinstance(space_of({"model.bottleneck": {"low": 2, "high": 4}}).settings[0], Integer)

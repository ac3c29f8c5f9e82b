"""`search.settings`: what may be declared, and the one line that every mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from mixrec_automl.config import ConfigError, from_dict, load_config, with_overrides, with_settings
from mixrec_automl.search.design_space import DesignSpace
from mixrec_automl.search_config import RangeConfig, SearchConfig, for_a_study
from mixrec_automl.searched_settings import THE_SAME_FOR_ALL, parameters_of, why_not
from search_spaces.mixed import Categorical, Integer, Ordinal, Parameter, Real

RATE = {"low": 1e-4, "high": 1e-2, "scale": "log"}


def declared(settings: object, **sections: Any) -> SearchConfig:
    return from_dict({"data": {"name": "x"}, **sections, "search": {"settings": settings}}, "FILE")


@pytest.mark.parametrize(
    ("key", "values", "parameter"),
    [
        ("model.bottleneck", [16, 32, 64], Ordinal("model.bottleneck", (16, 32, 64))),
        ("model.bottleneck", [64, 16], Categorical("model.bottleneck", (64, 16))),
        ("model.bottleneck", {"low": 4, "high": 8}, Integer("model.bottleneck", 4, 8)),
        ("model.context_expert", ["lora", "none"], Categorical("model.context_expert", ("lora", "none"))),
        ("model.align_sees_item_column", [True, False], Categorical("model.align_sees_item_column", (True, False))),
        ("training.learning_rate", RATE, Real("training.learning_rate", 1e-4, 1e-2, log=True)),
        ("training.lambda_align", {"low": 0, "high": 1}, Real("training.lambda_align", 0.0, 1.0)),
        ("training.lambda_align", [1, 0.1, 0], Categorical("training.lambda_align", (1.0, 0.1, 0.0))),
        ("model.collaborative_dim", {"low": 8, "high": 64}, Integer("model.collaborative_dim", 8, 64, 2)),
        (
            "training.projection_learning_rate",
            [None, 1e-3],
            Categorical("training.projection_learning_rate", (None, 1e-3)),
        ),
    ],
)
def test_what_is_declared_becomes_a_parameter(key: str, values: object, parameter: Parameter) -> None:
    config = declared({key: values})
    assert parameters_of(config.search.settings) == (parameter,)
    assert from_dict(config.as_dict(), "stored") == config


def test_it_may_be_nested_overridden_and_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("data: {name: x}\nsearch: {settings: {model: {bottleneck: [8, 16]}, training.warmup: [0, 0.1]}}\n")
    assert load_config(file).search.settings == {"model.bottleneck": [8, 16], "training.warmup": [0, 0.1]}
    over = ["search.settings.model.bottleneck=[4, 8]", "search.settings.training.learning_rate={low: 1e-4, high: 1e-2}"]
    found = load_config(file, over).search.settings
    assert found["model.bottleneck"] == [4, 8]
    assert found["training.learning_rate"] == RangeConfig(1e-4, 1e-2)
    assert with_overrides(load_config(file), ["search.settings="], "x").search.settings == {}
    with pytest.raises(ConfigError, match=r"^--set: search\.settings: model\.bottleneck is 0, but must be greater"):
        load_config(file, ["search.settings.model.bottleneck=[0, 8]"])


def test_one_way_to_write_a_key_gives_way_to_the_other(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    text = "data: {name: x}\nsearch: {settings: {model: {activation: [none, gelu]}, model.bottleneck: [8, 16]}}\n"
    file.write_text(text)
    assert load_config(file, ["search.settings.model.bottleneck=[4, 32]"]).search.settings["model.bottleneck"] == [
        4,
        32,
    ]
    assert load_config(file, ["model.bottleneck=4"]).search.settings["model.bottleneck"] == [8, 16]
    file.write_text(text.replace("activation: [none, gelu]", "bottleneck: [4, 8]"))
    with pytest.raises(ConfigError, match=r"search\.settings declares model\.bottleneck twice"):
        load_config(file)


def test_the_first_design_has_the_configurations_own_values() -> None:
    """Also where a list writes a number as a whole one."""
    config = declared({"training.lambda_align": [1, 0.1, 0]}, training={"lambda_align": 0})
    assert dict(DesignSpace.of(config, 2).fixed_design.settings) == {"training.lambda_align": 0.0}


def test_by_default_there_are_none_and_a_study_has_none() -> None:
    assert from_dict({"data": {"name": "x"}}, "FILE").search.settings == {}
    assert for_a_study(declared({"model.bottleneck": [8, 16]})).search.settings == {}


MISTAKES = [
    ({"model.botleneck": [1, 2]}, "unknown key 'model.botleneck' in search.settings; the nearest valid one is 'model."),
    ({"bottleneck": [1, 2]}, "unknown key 'bottleneck' in search.settings; the nearest valid one is 'model.b"),
    ({"model.bottleneck": [0, 2]}, "search.settings: model.bottleneck is 0, but must be greater than or equal to 1"),
    ({"model.bottleneck": ["4", 8]}, "search.settings: model.bottleneck is '4', but must be a valid integer"),
    ({"model.bottleneck": [8]}, "search.settings: model.bottleneck: give at least two numbers"),
    ({"model.bottleneck": []}, "search.settings: model.bottleneck: give at least two numbers"),
    ({"training.warmup": [0.1, 0, 0.1]}, "search.settings: training.warmup: a value stands twice"),
    ({"training.lambda_align": [1, 1.0]}, "search.settings: training.lambda_align: a value stands twice"),
    ({"model.bottleneck": [[1], 2]}, "search.settings.model.bottleneck is a list, but must be a single value"),
    ({"model.bottleneck": 3}, "search.settings.model.bottleneck is 3, but must be a list of values, or hold low, high"),
    (3, "search.settings is 3, but must be a list of values, or hold low, high, scale"),
    ({"model": [1, 2]}, "search.settings: section 'model' holds 1, but must hold keys: kind"),
    ({"model.context_expert": ["lora", "big"]}, "search.settings: model.context_expert is 'big', but must be"),
    ({"model.activation": {"low": 1, "high": 2}}, "search.settings: model.activation is 1, but must be 'none'"),
    ({"model.bottleneck": {"low": 1, "high": 9, "scale": "log"}}, "has whole ends and a linear scale"),
    ({"model.bottleneck": {"low": 1.5, "high": 9}}, "model.bottleneck is 1.5, but must be a valid integer"),
    ({"training.warmup": {"low": 0.5, "high": 0.1}}, "training.warmup: 0.5 is not below 0.1"),
    ({"training.learning_rate": {"low": 0, "high": 1}}, "training.learning_rate is 0, but must be greater than 0"),
    ({"training.lambda_align": {"low": 0, "high": 1, "scale": "log"}}, "needs a lower end above zero"),
    ({"training.warmup": {"low": 0}}, "search.settings.training.warmup.high is missing"),
    ({"training.warmup": {"low": 0, "high": 0.1, "scale": "cube"}}, "training.warmup.scale is 'cube', but must"),
    ({"training.warmup": {"low": 0, "high": 0.1, "step": 1}}, "training.warmup holds more than low, high, scale"),
    ({"training.epochs": [1, 2]}, "training.epochs is the same for all trials: designs are compared after"),
    ({"data.filters.require_title": [True, False]}, "data.filters.require_title is the same for all trials"),
    ({"search.trials": [1, 2]}, "search.trials is the same for all trials: it is how the search goes"),
    ({"search.settings": [1, 2]}, "search.settings is the same for all trials: it is how the search goes"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(settings: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(settings)
    assert str(caught.value).startswith("FILE: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_are_checked_beside_the_others() -> None:
    assert declared({"model.replacement_frequency": [1, 2]}, backbone={"layers": 2})
    with pytest.raises(ConfigError, match=r"model\.replacement_frequency is 4, but backbone\.layers is 2"):
        declared({"model.replacement_frequency": [1, 4]}, backbone={"layers": 2})


def test_an_alias_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("data: {name: x}\nsearch: {settings: &loop {model: *loop}}\n")
    with pytest.raises(ConfigError, match="must be a list of values"):
        load_config(tmp_path / "loop.yaml")


def test_what_is_refused_exists_and_what_all_trials_load_is_refused() -> None:
    for key in THE_SAME_FOR_ALL:
        kind: Any = SearchConfig
        for part in key.split("."):
            kind = get_type_hints(kind)[part]
    assert why_not("training.learning_rate") is None
    assert why_not("training.epochs_of_another_name") is None, "a section ends with a dot"


def test_the_settings_of_a_design_make_its_configuration() -> None:
    config = declared({"model.bottleneck": [8, 16], "training.learning_rate": RATE})
    own = with_settings(config, {"model.bottleneck": 8, "training.learning_rate": 0.00123456789}, "a design")
    assert (own.model.bottleneck, own.training.learning_rate) == (8, 0.00123456789)
    assert with_settings(config, {}, "a design") == config


def two_objectives(**search: Any) -> SearchConfig:
    asked = {"second_objective": "trainable_parameters", **search}
    return from_dict({"data": {"name": "x"}, "search": asked}, "FILE")


def test_a_second_objective_needs_settings_that_may_change_it() -> None:
    config = two_objectives(settings={"model.bottleneck": [8, 16], "training.learning_rate": RATE})
    assert from_dict(config.as_dict(), "stored") == config
    assert with_settings(config, {"model.bottleneck": 16}, "a design").model.bottleneck == 16
    assert for_a_study(config).search.second_objective is None
    for settings in ({}, {"training.learning_rate": RATE}):
        with pytest.raises(ConfigError, match=r"^FILE: search: second_objective is the same for all designs: declare"):
            two_objectives(settings=settings)


def test_pruning_by_mrr_alone_is_refused_beside_a_second_objective() -> None:
    with pytest.raises(ConfigError, match=r"pruning judges by MRR alone .* set pruning\.rule to none"):
        two_objectives(settings={"model.bottleneck": [8, 16]}, pruning={"rule": "median"})

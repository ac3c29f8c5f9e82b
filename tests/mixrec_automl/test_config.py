"""The configuration file: what is read, and the one line that every mistake gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixrec_automl.config import ConfigError, SearchConfig, from_dict, load_config
from trainers.config import DataConfig, FinetuneConfig
from trainers.errors import UserError

MINIMAL = "data: {name: ml-100k}\n"
ML_100K = Path(__file__).parents[2] / "configs" / "ml-100k.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "search.yaml"


def load(file: Path, text: str, *overrides: str) -> SearchConfig:
    file.write_text(text, encoding="utf-8")
    return load_config(file, overrides)


def test_defaults_fill_what_the_file_leaves_out(file: Path) -> None:
    assert load(file, MINIMAL) == SearchConfig(data=DataConfig(name="ml-100k"))
    assert load(file, MINIMAL + "training:\nsearch: {}\n") == SearchConfig(data=DataConfig(name="ml-100k"))
    assert load(file, MINIMAL).search.trials == 30


def test_sections_of_the_training_pass_through(file: Path) -> None:
    config = load(file, MINIMAL + "backbone: {layers: 3}\nmodel: {bottleneck: 8}\ntraining: {epochs: 2}\n")
    assert config.finetune == FinetuneConfig(
        data=config.data, backbone=config.backbone, model=config.model, training=config.training
    )
    assert (config.finetune.backbone.layers, config.finetune.model.bottleneck, config.finetune.training.epochs) == (
        3,
        8,
        2,
    )


def test_overrides_win_in_their_order(file: Path) -> None:
    config = load(
        file, "data: {name: x}\nsearch: {trials: 9}", "search.trials=4", "data.name=ml-100k", "backbone.layers=2",
        "data.filters.require_title=false", "training.learning_rate=1e-3", "search.trials=5", "promotion={epochs: 7}",
    )  # fmt: skip
    assert (config.search.trials, config.data.name, config.backbone.layers) == (5, "ml-100k", 2)
    assert config.data.filters.require_title is False
    assert config.training.learning_rate == 1e-3
    assert config.promotion.epochs == 7


def test_an_override_of_one_alias_leaves_the_other(file: Path) -> None:
    text = "data: {name: x}\nsearch: &same {seed: 1}\npromotion: {}\ncluster: {}\n"
    assert load(file, text, "search.seed=2").search.seed == 2
    with pytest.raises(ConfigError, match=r"promotion\.seed"):
        load(file, text.replace("promotion: {}", "promotion: *same"), "search.seed=2")


@pytest.mark.parametrize("name", ["9e2b7c1", "1e5-run", "1e"])
def test_a_name_that_begins_like_a_number_is_a_name(file: Path, name: str) -> None:
    assert load(file, f"data: {{name: {name}}}").data.name == name


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "1.0e-3", "+1e-3", "0.001", ".1e-2"])
def test_every_usual_way_to_write_a_number(file: Path, text: str) -> None:
    assert load(file, MINIMAL + f"training: {{learning_rate: {text}}}").training.learning_rate == 1e-3


def test_the_stored_form_reads_back(file: Path) -> None:
    config = load(file, MINIMAL, "search.trials=4", "backbone.layers=6", "model.replacement_frequency=2")
    stored = json.loads(json.dumps(config.as_dict()))
    assert from_dict(stored, "database") == config
    assert load(file, yaml.safe_dump(stored)) == config


def test_the_preset_is_valid_and_its_documented_overrides_work() -> None:
    config = load_config(ML_100K, ["search.trials=4", "data.name=ml-100k"])
    assert (config.search.trials, config.data.name) == (4, "ml-100k")
    assert (load_config(ML_100K).backbone.layers or 0) >= 3
    assert load_config(ML_100K).search.trials >= 12


MISTAKES = {
    "": "FILE: data.name is missing: give it in the file or with --set data.name=...",
    "data: {}": "FILE: data.name is missing: give it in the file or with --set data.name=...",
    "- 1": "FILE: the configuration holds a list, but must hold keys: data, backbone, model",
    "data: ml-100k": "FILE: section 'data' holds 'ml-100k', but must hold keys: name, filters",
    "data: {nmae: x}": "FILE: unknown key 'data.nmae'; the nearest valid one is 'data.name'",
    MINIMAL + "serach: {trials: 3}": "FILE: unknown key 'serach'; the nearest valid one is 'search'",
    MINIMAL + "epochs: 3": "FILE: unknown key 'epochs'; the nearest valid one is 'training.epochs'",
    MINIMAL + "search: {learning_rate: 3}": "unknown key 'search.learning_rate'; the nearest valid one is 'training.l",
    MINIMAL + "3: 4": "FILE: unknown key '3'; the nearest valid one is",
    MINIMAL + "training: {epochs: 0}": "FILE: training.epochs is 0, but must be greater than or equal to 1",
    MINIMAL + "training: {epochs: '3'}": "FILE: training.epochs is '3', but must be a valid integer",
    MINIMAL + "training: {epochs: yes}": "FILE: training.epochs is true, but must be a valid integer",
    MINIMAL + "training: {epochs: 2.5}": "FILE: training.epochs is 2.5, but must be a valid integer",
    MINIMAL + "training: {epochs: }": "FILE: training.epochs is empty, but must be a valid integer",
    MINIMAL + "training: {epochs: [3]}": "FILE: training.epochs is a list, but must be a single value",
    MINIMAL + "training: {epochs: 2024-01-01}": "FILE: training.epochs is a date, but must be a single value",
    MINIMAL + "training: {learning_rate: .nan}": "training.learning_rate is nan, but must be a number of ordinary size",
    MINIMAL + "training: {learning_rate: .inf}": "training.learning_rate is inf, but must be a number of ordinary size",
    MINIMAL + f"search: {{seed: {10**30}}}": "search.seed is 1000000000000000000000000000000, but must be a number of",
    MINIMAL + "model: {kind: mixer}": "FILE: model.kind is 'mixer', but must be 'mixrec', 'mixrec_base' or 'llmrec'",
    "data: {name: \"a\\0b\"}": "FILE: data.name is 'a\\x00b', but must be printable text",
    "data: {name: \"\\ud800\"}": "FILE: data.name is '\\ud800', but must be printable text",
    "data: {name: x, name: y}": "FILE: line 1: the key 'name' stands twice",
    "data: {name: x\nsearch: 3": "FILE: line 2: not valid YAML",
    "data: {name: 2024-13-01}": "FILE: not valid YAML: month must be in 1..12",
    "data: &loop {name: *loop}": "FILE: data.name is a section, but must be a single value",
    MINIMAL + "cluster: {gpus_per_worker: 1.5}": "FILE: cluster: gpus_per_worker is a fraction of one GPU, or a whole",
    MINIMAL + "cluster: {workers_per_trial: 2, gpus_per_worker: 0.5}": "FILE: cluster: a fraction of a GPU needs",
    MINIMAL + "backbone: {layers: 2}\nmodel: {replacement_frequency: 3}": "but backbone.layers is 2: no layer would",
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_a_mistake_gets_one_line_that_names_it(file: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, text)
    assert message.replace("FILE", str(file)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trials", "--set search.trials: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("search.trails=3", "--set: unknown key 'search.trails'; the nearest valid one is 'search.trials'"),
        ("search.trials=many", "--set: search.trials is 'many', but must be a valid integer"),
        ("search.trials.deep=3", "--set: search.trials is a section, but must be a single value"),
        ("search=3", "--set: section 'search' holds 3, but must hold keys: trials"),
        ("search.trials={", "--set search.trials={: line 1: not valid YAML"),
        ("search..trials=3", "--set: unknown key 'search.'"),
    ],
)
def test_a_mistaken_override_is_told_as_one(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, MINIMAL, override)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("data: {name: é}".encode("latin-1"))
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "latin.yaml", "a\0b"):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            load_config(path)


def test_a_mistake_is_the_users() -> None:
    assert issubclass(ConfigError, UserError)


_KEYS = st.sampled_from(
    [
        "data",
        "name",
        "search",
        "trials",
        "training",
        "epochs",
        "learning_rate",
        "model",
        "kind",
        "settings",
        "low",
        "high",
    ]
)
_ANY_KEYS = _KEYS | st.text(max_size=5) | st.integers()
_NUMBERS = st.booleans() | st.integers() | st.floats()
_VALUES = st.none() | _NUMBERS | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
_TREES = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(_KEYS, _TREES, max_size=5), overrides=st.lists(st.text(max_size=12), max_size=2))
def test_any_tree_is_read_or_refused_in_one_line(file: Path, tree: object, overrides: list[str]) -> None:
    file.write_text(yaml.dump(tree), encoding="utf-8", errors="backslashreplace")
    _is_read_or_refused(file, overrides)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab:{}[]&*!|>-?,#'\" \n\t%@`0123456789.eE_~<=\\", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    _is_read_or_refused(file, [f"data.name={text}", text])


def _is_read_or_refused(file: Path, overrides: list[str]) -> None:
    for given_overrides in ([], overrides):
        try:
            config = load_config(file, given_overrides)
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert from_dict(json.loads(json.dumps(config.as_dict())), "stored") == config

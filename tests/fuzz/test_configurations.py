"""Configurations with other bytes, or other parts of their trees; `test_config.py` makes up its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mixrec_automl.config import ConfigError, from_dict, load_config
from mixrec_automl.presets import FOLDER
from tests.contracts.repository import ROOT
from tests.fuzz.cases import fuzzed, refusal
from tests.fuzz.mutations import bytes_near, trees_near

FILES = sorted([*(ROOT / "configs").glob("*.yaml"), *FOLDER.glob("*.yaml")])
DECLARED = {
    "settings": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "model.bottleneck": [8, 16]}
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read(path: Path) -> None:
    """What is read can be stored and comes back as it was."""
    config = load_config(path)
    assert from_dict(json.loads(json.dumps(config.as_dict())), "stored") == config


@fuzzed(few=60)
@given(data=st.data())
def test_files(root: Path, data: st.DataObject) -> None:
    path = root / "mine.yaml"
    path.write_bytes(data.draw(bytes_near(*(one.read_bytes() for one in FILES))))
    refusal(lambda: read(path), ConfigError)


@fuzzed(few=60)
@given(data=st.data())
def test_trees(root: Path, data: st.DataObject) -> None:
    valid: dict[str, Any] = yaml.safe_load(data.draw(st.sampled_from(FILES)).read_text("utf-8"))
    valid["search"] = {**valid.get("search", {}), **DECLARED}
    tree = data.draw(trees_near(valid))
    path = root / "mine.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8", "surrogatepass")
    refusal(lambda: read(path), ConfigError)


@fuzzed()
@given(data=st.data())
def test_overrides(data: st.DataObject) -> None:
    written = data.draw(
        bytes_near(b"search.trials=4", b"search.settings.training.learning_rate={low: 1e-4, high: 1e-2}")
    )
    override = written.decode("utf-8", "surrogateescape")
    refusal(lambda: load_config(ROOT / "configs/ml-100k.yaml", [override]), ConfigError)


def test_the_readers_take_what_is_whole() -> None:
    """Else all of the above could be refused for another reason than the one meant."""
    assert len(FILES) > 3
    for file in FILES:
        read(file)

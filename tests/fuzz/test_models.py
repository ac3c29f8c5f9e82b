"""Packages of models, each with one part broken; the configuration of a backbone, and weights that others publish."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from tests.fuzz.cases import fuzzed, refusal
from tests.fuzz.mutations import bytes_near, json_near, tables_near, tensors_near
from tests.trainers.baselines.test_train import SMALL, built
from tests.trainers.baselines.test_unisrec_weights import published
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from tests.trainers.tiny_package import make_package
from tests.trainers.tiny_t5_folder import write_tiny_t5
from tests.trainers.tiny_task import sequences
from trainers.baselines.build import build_baseline
from trainers.baselines.config import BaselinesConfig, P5Config, RecFormerConfig, UniSRecConfig
from trainers.baselines.p5_weights import build_p5
from trainers.baselines.package import read_baseline_package, write_baseline_package
from trainers.baselines.text_body import text_body
from trainers.data.sequence_data import Catalogue
from trainers.model.pretrained import load_pretrained
from trainers.model.tiny_random import byte_tokenizer
from trainers.package import read_package
from trainers.recommend import Query, recommend

NAMES = tuple(f"item-{number}" for number in range(9))
CATALOGUE = Catalogue(NAMES, NAMES, tuple(f"title Thing {number}" for number in range(9)))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def package(root: Path) -> Path:
    return make_package(root / "made").package


@pytest.fixture(scope="module")
def baseline(root: Path) -> Path:
    """Of FDSA, which keeps tokens; and so that there are texts too, UniSRec's beside it."""
    data = sequences()
    for name in ("fdsa", "unisrec"):
        settings = BaselinesConfig(**{name: SMALL[name]})  # type: ignore[arg-type]
        write_baseline_package(root / name, name, settings, built(SMALL[name], data), data.catalogue, data.fingerprint)
    return root / "unisrec"


def near(path: Path, scratch: Path) -> st.SearchStrategy[bytes]:
    """Files near the one at `path`, by its kind."""
    if path.suffix == ".json":
        return json_near(json.loads(path.read_text("utf-8")))
    if path.suffix == ".parquet":
        return tables_near(pq.read_table(path), scratch)
    return (
        tensors_near(load_file(path), {"format": "pt"})
        if path.suffix == ".safetensors"
        else bytes_near(path.read_bytes())
    )


@contextmanager
def with_part(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        yield
    finally:
        path.write_bytes(whole)


PARTS = ("model.json", "catalogue.parquet", "items.safetensors", "weights.safetensors")
OF_A_BACKBONE = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.mark.parametrize("part", [*PARTS, *(f"backbone/{name}" for name in OF_A_BACKBONE)])
@fuzzed(few=10)
@given(data=st.data())
def test_a_package(package: Path, root: Path, part: str, data: st.DataObject) -> None:
    content = data.draw(near(package / part, root / "scratch"))
    with with_part(package / part, content):
        message = refusal(lambda: recommend(read_package(package), Query(["i1", "i2"])))
    assert message is None or str(package) in message or "is not among" in message


@pytest.mark.parametrize("part", ["baseline.json", "catalogue.parquet", "texts.safetensors", "weights.safetensors"])
@fuzzed(few=10)
@given(data=st.data())
def test_a_package_of_a_baseline(baseline: Path, root: Path, part: str, data: st.DataObject) -> None:
    content, ids = data.draw(near(baseline / part, root / "scratch")), sequences().catalogue.ids
    with with_part(baseline / part, content):
        message = refusal(lambda: recommend(read_baseline_package(baseline), Query([ids[1], ids[2]])))
    assert message is None or str(baseline) in message or "is not among" in message


@pytest.mark.parametrize("part", OF_A_BACKBONE)
@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
@fuzzed(few=4)
@given(data=st.data())
def test_a_backbone(root: Path, family: str, part: str, data: st.DataObject) -> None:
    folder = root / family
    if not folder.is_dir():
        write_tiny_backbone(folder, family)  # type: ignore[arg-type]
    with with_part(folder / part, data.draw(near(folder / part, root / "scratch"))):
        message = refusal(lambda: load_pretrained(str(folder), 1, root))
    assert message is None or str(folder) in message


@pytest.mark.parametrize("part", ["config.json", "tokenizer.json", "model.safetensors"])
@fuzzed(few=4)
@given(data=st.data())
def test_an_encoder(root: Path, part: str, data: st.DataObject) -> None:
    folder = root / "bert"
    if not folder.is_dir():
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        BertModel(BertConfig(vocab_size=320, max_position_embeddings=64, **sizes)).save_pretrained(folder)
        byte_tokenizer(["Thing"]).save_pretrained(folder)
    settings = RecFormerConfig(weights=str(folder), layers=1)
    with with_part(folder / part, data.draw(near(folder / part, root / "scratch"))):
        message = refusal(lambda: text_body(settings, CATALOGUE, ("title",), root))
    assert message is None or str(folder) in message or "layers" in message


@pytest.mark.parametrize("part", ["config.json", "tokenizer.json", "model.safetensors"])
@fuzzed(few=4)
@given(data=st.data())
def test_weights_of_p5(root: Path, part: str, data: st.DataObject) -> None:
    folder = root / "t5"
    if not folder.is_dir():
        write_tiny_t5(folder)
    with with_part(folder / part, data.draw(near(folder / part, root / "scratch"))):
        message = refusal(lambda: build_p5(P5Config(weights=str(folder)), 9))
    assert message is None or str(folder) in message


@fuzzed()
@given(data=st.data())
def test_weights_of_unisrec(root: Path, data: st.DataObject) -> None:
    folder = root / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(data.draw(tensors_near(published())))
    settings = UniSRecConfig(weights=str(folder), width=8, inner=12, experts=3, heads=2, layers=2, history=10)
    texts = torch.zeros(9, 5).numpy()
    message = refusal(lambda: build_baseline(settings, CATALOGUE, 9, lambda *_: texts, None, None))  # type: ignore[arg-type]
    assert message is None or str(folder) in message or "baselines.unisrec" in message


def test_the_readers_take_what_is_whole(package: Path, baseline: Path, root: Path) -> None:
    """Else all of the above could be refused for another reason than the one meant."""
    read_package(package)
    read_baseline_package(baseline)
    read_baseline_package(root / "fdsa")

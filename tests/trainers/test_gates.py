"""The gates of a history against those of the literal model, and models without gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles import literal_mixrec
from tests.oracles.cases import Case, force_gate, random_case, small_model
from tests.oracles.literal_mixrec import hidden_states, history_row
from tests.oracles.literal_rows import SEQ
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.baselines.test_package import packed
from tests.trainers.model.test_mixrec_equals_literal import fast_model, layout_of
from tests.trainers.tiny_package import HISTORY, make_package
from trainers.baselines.package import read_baseline_package
from trainers.gates import context_shares, gate_shares, has_gates, recorded
from trainers.package import Package, read_package
from trainers.recommend import Query

HISTORY_ITEMS = [1, 4, 8, 1]
KINDS = ("bottleneck", "lora", "ia3", "none")


def literal_shares(case: Case, items: list[int], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """beta_2, mean over layers of the mean over an item's tokens; in the backbone's last layer its [SEQ] alone."""
    found: list[Tensor] = []

    def listening(model: literal_mixrec.LiteralModel, name: str, q: Tensor, p: Tensor) -> Tensor:
        logits = torch.cat([q, p], dim=-1) @ model.parameters[f"{name}.weight"].T + model.parameters[f"{name}.bias"]
        exponents = torch.exp(logits)
        found.append((exponents[:, 1] / exponents.sum(dim=1)).detach())
        return original(model, name, q, p)

    original = literal_mixrec.gate
    monkeypatch.setattr(literal_mixrec, "gate", listening)
    row = history_row(case.literal, None, items)
    hidden_states(case.literal, row)
    layers = case.backbone.config.num_hidden_layers
    ends = row.places(SEQ)
    starts = [int(case.model.leading_bos), *(end + 1 for end in ends[:-1])]
    shares = []
    for start, end in zip(starts, ends, strict=True):
        of_layers = []
        for number, beta in enumerate(found):
            is_last = (number + 1) * case.model.replacement_frequency == layers
            of_layers.append(float(beta[end] if is_last else beta[start : end + 1].mean()))
        shares.append(sum(of_layers) / len(of_layers))
    return shares


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", ["000000", "111111", "010101"])
@pytest.mark.parametrize("bos", [False, True])
def test_shares_equal_the_literal_gates(family: Family, bits: str, bos: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(family, bits, model=small_model(leading_bos=bos, collaborative_columns="user+item"))
    model = fast_model(case).eval()
    found = context_shares(model, layout_of(case), HISTORY_ITEMS)
    assert found == pytest.approx(literal_shares(case, HISTORY_ITEMS, monkeypatch), abs=1e-9)
    assert len(set(found)) == len(found), "the case tells the items apart"


@pytest.mark.parametrize("kind", KINDS)
def test_shares_with_each_kind_of_expert(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case("llama", "010101", model=small_model(causal_expert=kind, context_expert=kind))
    found = context_shares(fast_model(case).eval(), layout_of(case), HISTORY_ITEMS)
    assert found == pytest.approx(literal_shares(case, HISTORY_ITEMS, monkeypatch), abs=1e-9)


@pytest.mark.parametrize(
    ("layers", "frequency", "bits"), [(1, 1, "010"), (4, 2, "010011"), (4, 3, "101"), (3, 1, "0" * 9)]
)
def test_shares_where_not_all_layers_have_gates(
    layers: int, frequency: int, bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one layer alone, and of three layers in four: then the last one, which computes readouts only, is frozen."""
    case = random_case("llama", bits, model=small_model(replacement_frequency=frequency), layers=layers)
    found = context_shares(fast_model(case).eval(), layout_of(case), HISTORY_ITEMS)
    assert found == pytest.approx(literal_shares(case, HISTORY_ITEMS, monkeypatch), abs=1e-9)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_gate_that_is_forced_gives_all_to_one_branch(branch: int) -> None:
    case = random_case("llama", "011010")
    force_gate(case.parameters, branch)
    found = context_shares(fast_model(case).eval(), layout_of(case), HISTORY_ITEMS)
    assert found == pytest.approx([float(branch)] * len(HISTORY_ITEMS), abs=1e-12)


def test_a_fresh_gate_mixes_evenly_and_recording_leaves_nothing_behind() -> None:
    case = random_case("llama", "011010")
    with torch.no_grad():
        for name, parameter in case.parameters.items():
            if ".gate." in name:
                parameter.zero_()
    model, layout = fast_model(case).eval(), layout_of(case)
    rows = layout.histories([HISTORY_ITEMS], [-1])
    with torch.inference_mode():
        before = model.encode(rows)
        with recorded(model) as gates:
            assert torch.equal(model.encode(rows), before)
        assert [tuple(beta.shape) for beta in gates] == [(len(rows.tokens), 2), (len(HISTORY_ITEMS), 2)]
        model.encode(rows)
    assert len(gates) == 2
    assert context_shares(model, layout, HISTORY_ITEMS) == pytest.approx([0.5] * len(HISTORY_ITEMS))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return read_package(make_package(tmp_path_factory.mktemp("made"), epochs=4).package)


def test_a_package_names_the_items_that_it_reads(package: Package) -> None:
    history = [f"i{number}" for number in range(HISTORY + 2)]
    found = gate_shares(package, Query(history))
    assert [(one.item, one.title) for one in found] == [(f"i{n}", f"Thing {n}") for n in range(2, HISTORY + 2)]
    expected = context_shares(package.model, package.layout, list(range(2, HISTORY + 2)))
    assert [one.context_share for one in found] == expected
    assert np.all((np.array(expected) > 0) & (np.array(expected) < 1))


def test_texts_have_gates(package: Package) -> None:
    """Read without a column, a title has the gates of its item."""
    without = replace(package, layout=replace(package.layout, item_column=False))
    texts = gate_shares(package, Query(["Thing 2", "Thing 4"], texts=True))
    assert [(one.item, one.title) for one in texts] == [("Thing 2", "Thing 2"), ("Thing 4", "Thing 4")]
    items = gate_shares(without, Query(["i2", "i4"]))
    assert [one.context_share for one in texts] == pytest.approx([one.context_share for one in items])


@pytest.mark.parametrize("model", [{"kind": "mixrec_base"}, {"kind": "llmrec"}, {"second_mask": "causal"}])
def test_models_without_such_gates_have_none(model: dict[str, str], tmp_path: Path) -> None:
    package = read_package(make_package(tmp_path, model=model, epochs=1).package)
    assert not has_gates(package)
    assert gate_shares(package, Query(["i1", "i2"])) == []


def test_a_baseline_has_no_gates(tmp_path: Path) -> None:
    packed("mf", tmp_path)
    package = read_baseline_package(tmp_path / "package")
    assert gate_shares(package, Query([package.catalogue.ids[0]])) == []

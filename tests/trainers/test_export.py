"""The exported program against the model: the dense module for every option, the file itself where torch alone is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles.cases import Case, random_case, small_model
from tests.oracles.tiny_backbones import FAMILIES, Family
from tests.trainers.model.test_mixrec_equals_literal import fast_model, layout_of
from tests.trainers.tiny_package import HISTORY, NUM_ITEMS, NUM_USERS, make_package
from trainers import export
from trainers.config import AdapterKind
from trainers.dense import DenseMixRec
from trainers.errors import UserError
from trainers.evaluate import UNKNOWN_USER, window
from trainers.export import export_program, trace
from trainers.model.mixrec import MixRec
from trainers.package import Package, read_package

HISTORIES = [[3], [8], [1, 2], [4, 4], [8, 0, 0, 4, 8, 7]]
"""Of one item, of one that M_cf does not know (8), with items twice"""
MOST = 6
EXACT = 1e-9


def both(case: Case) -> tuple[MixRec, DenseMixRec]:
    model = fast_model(case).eval()
    with torch.no_grad():  # as a training sets them
        model.centre.normal_(generator=torch.Generator().manual_seed(0))
        model.spread.fill_(0.7)
    return model, DenseMixRec(model, layout_of(case), MOST)


def expected(case: Case, model: MixRec, items: list[int]) -> Tensor:
    layout = layout_of(case)
    read = window(model, layout, np.array(items, dtype=np.int32), MOST)
    with torch.no_grad():
        return model.scores(layout.histories([read], [UNKNOWN_USER], read_newest=1))[0]


def assert_dense_equals_model(case: Case) -> None:
    model, dense = both(case)
    for items in HISTORIES:
        difference = (dense(torch.tensor(items)) - expected(case, model, items)).abs().max().item()
        assert difference < EXACT, items


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", ["000000", "111111", "011010", "100101"])
def test_designs(family: Family, bits: str) -> None:
    assert_dense_equals_model(random_case(family, bits))


OPTIONS: dict[str, dict[str, Any]] = {
    **{f"columns-{c}": {"collaborative_columns": c} for c in ("none", "user", "user+item")},
    "matrix-factorisation": {"collaborative_model": "mf"},
    "gelu": {"activation": "gelu"},
    "bos": {"leading_bos": True},
    "causal": {"second_mask": "causal"},
    "causal-and-columns": {"second_mask": "causal+columns", "leading_bos": True},
    "text-and-free": {"item_projection_form": "text+free"},
    "llmrec": {"kind": "llmrec"},
    "base": {"kind": "mixrec_base"},
    "base-bos": {"kind": "mixrec_base", "leading_bos": True},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("option", OPTIONS)
def test_options(family: Family, option: str) -> None:
    assert_dense_equals_model(random_case(family, "011010", model=small_model(**OPTIONS[option])))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "ia3", "none"])
def test_kinds_of_adapter(family: Family, kind: AdapterKind) -> None:
    sites = ("causal_expert", "context_expert", "recommendation_adapter")
    for model in (small_model(**dict.fromkeys(sites, kind)), small_model(context_expert=kind)):
        assert_dense_equals_model(random_case(family, "011110", model=model))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("frequency", "bits"), [(2, "010100"), (3, "101")])
def test_frozen_layers_between(family: Family, frequency: int, bits: str) -> None:
    assert_dense_equals_model(random_case(family, bits, model=small_model(replacement_frequency=frequency), layers=4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("leading_bos", [False, True])
def test_the_oldest_items_are_left_out_where_the_context_is_too_short(family: Family, leading_bos: bool) -> None:
    case = random_case(family, "011010", model=small_model(leading_bos=leading_bos))
    model = fast_model(case).eval()
    for context in range(7, 14):
        model.backbone.max_positions = context
        dense = DenseMixRec(model, layout_of(case), MOST)
        for items in HISTORIES:
            difference = (dense(torch.tensor(items)) - expected(case, model, items)).abs().max().item()
            assert difference < EXACT, (context, items)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_program_reads_histories_of_every_length(family: Family) -> None:
    case = random_case(family, "011010", model=small_model(leading_bos=True))
    model, dense = both(case)
    program = trace(dense).module()
    for items in HISTORIES:
        scores = program(torch.tensor(items))
        assert not scores.requires_grad
        assert (scores - expected(case, model, items)).abs().max().item() < EXACT
    for wrong in ([], [0] * (MOST + 1), [len(case.item_tokens)]):
        with pytest.raises((AssertionError, IndexError, RuntimeError)):
            program(torch.tensor(wrong, dtype=torch.int64))
    assert all(weight.requires_grad for weight in model.layers.parameters()), "the model's own stay as they are"


@pytest.mark.parametrize("history", [1, 2])
def test_the_shortest_windows(history: int) -> None:
    case = random_case("llama", "011010")
    model, _ = both(case)
    program = trace(DenseMixRec(model, layout_of(case), history)).module()
    for items in HISTORIES[: history * 2]:
        assert (program(torch.tensor(items)) - expected(case, model, items)).abs().max().item() < EXACT


ASK = """
import json, sys, torch
histories, answers = json.loads(sys.argv[1]), []
for file in sys.argv[2:]:
    extra = {"catalogue.json": ""}
    program = torch.export.load(file, extra_files=extra).module()
    scores = [program(torch.tensor(items)).tolist() for items in histories]
    answers.append([scores, json.loads(extra["catalogue.json"])])
strangers = sorted({name.partition(".")[0] for name in sys.modules} & {"trainers", "transformers", "mixrec_automl"})
print(json.dumps([answers, strangers]))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Package]:
    folder = tmp_path_factory.mktemp("made")
    return {family: read_package(make_package(folder / family, family, epochs=1).package) for family in FAMILIES}


@pytest.fixture(scope="module")
def files(packages: dict[Family, Package], tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    folder = tmp_path_factory.mktemp("exported") / "there"
    rounding = packages["opt"].model
    rounding.objective = replace(rounding.objective, precision="bfloat16")  # the file is in float32 all the same
    found = {family: folder / f"{family}.pt2" for family in FAMILIES}
    for family, file in found.items():
        assert export_program(packages[family], file) < 1e-5
    assert sorted(folder.iterdir()) == sorted(found.values()), "nothing else is left there"
    return found


def test_the_file_needs_torch_alone(packages: dict[Family, Package], files: dict[Family, Path], tmp_path: Path) -> None:
    histories = [[3], [5, 1], [7, 7, 0, NUM_ITEMS - 1]]
    asked = [sys.executable, "-I", "-c", ASK, json.dumps(histories), *map(str, files.values())]
    answers, strangers = json.loads(subprocess.run(asked, check=True, capture_output=True, cwd=tmp_path).stdout)
    assert strangers == []
    for package, (scores, catalogue) in zip(packages.values(), answers, strict=True):
        wanted = package.score([np.array(items, dtype=np.int32) for items in histories])
        assert torch.allclose(torch.tensor(scores), wanted, atol=1e-4, rtol=0)
        ids, titles = list(package.catalogue.ids), list(package.catalogue.titles)
        assert catalogue == {"ids": ids, "titles": titles, "history": HISTORY}


def test_no_user_goes_along(packages: dict[Family, Package], files: dict[Family, Path]) -> None:
    assert any(len(weight) == NUM_USERS for weight in packages["llama"].model.parameters())
    program = torch.export.load(files["llama"])
    shapes = [tuple(tensor.shape) for tensor in (*program.state_dict.values(), *program.constants.values())]
    assert (NUM_ITEMS,) in shapes
    assert not [shape for shape in shapes if NUM_USERS in shape]


def test_other_answers_are_never_put_in_place(
    packages: dict[Family, Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.pt2"
    file.write_text("as it was")
    monkeypatch.setattr(export, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(UserError, match="differ"):
        export_program(packages["llama"], file)
    assert file.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [file]


def test_a_difference_is_found(packages: dict[Family, Package], files: dict[Family, Path]) -> None:
    package, file = packages["llama"], files["llama"]
    changed = replace(package, layout=replace(package.layout, known_items=~package.layout.known_items))
    assert export.largest_difference(package, file) < 1e-5 < export.largest_difference(changed, file)


def test_another_ending_is_refused(packages: dict[Family, Package], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name it model\.pt2"):
        export_program(packages["llama"], tmp_path / "model.onnx")

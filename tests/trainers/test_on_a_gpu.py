"""Every tensor is where the others are: trainings, rankings and recommendations on a GPU against those on the CPU.

Where no GPU is at hand, `tests/pretend_gpu.py` is one. `benchmarks/gpu_check.py` sees to precision and kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from tests.pretend_gpu import DevicesMixedError, pretend_gpu
from tests.trainers.baselines.test_package import packed
from tests.trainers.tiny_package import make_package
from tests.trainers.tiny_task import sequences
from trainers.baselines.config import BaselineName
from trainers.baselines.package import read_baseline_package
from trainers.baselines.train import rank_users
from trainers.device import pick_device
from trainers.explanation import occlusion
from trainers.gates import gate_shares
from trainers.model.mixrec import MixRec
from trainers.new_items import rank_new
from trainers.package import read_package
from trainers.ranks import TEST_SETTINGS
from trainers.recommend import Query, Recommendation, recommend
from trainers.similar import similar_to_item, similar_to_text

HAS_GPU = torch.cuda.is_available()
HISTORY = np.array([3, 4, 5], dtype=np.int32)


@contextmanager
def gpu() -> Iterator[None]:
    """While it lasts, this process finds a GPU."""
    # Compiling takes a minute a design; what it computes is tested in tests/trainers/model/test_gpu_paths.py.
    with patch.object(MixRec, "compile_layers"), nullcontext() if HAS_GPU else pretend_gpu():
        yield


@contextmanager
def no_gpu() -> Iterator[None]:
    with patch.object(torch.cuda, "is_available", return_value=False):
        yield


@pytest.mark.skipif(HAS_GPU, reason="this machine has a real one")
def test_the_pretence_refuses_what_a_gpu_refuses() -> None:
    with pretend_gpu():
        device = pick_device()
        layer = nn.Linear(3, 2)
        there, here = torch.ones(4, 3).to(device), torch.ones(4, 3)
        with pytest.raises(DevicesMixedError, match="linear"):
            layer(there)
        with pytest.raises(DevicesMixedError, match="add"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        layer.to(device)(there).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.device == there.device == torch.zeros(1, device=device).device == device
        assert (there.cpu() + here).device == torch.device("cpu")
        assert float(there.sum()) == 12.0


def recommended(root: Path, model: dict[str, Any], training: dict[str, Any]) -> list[Recommendation]:
    """Prepared, trained, packed, read and asked: all 16 items by their scores, then the same for texts."""
    made = make_package(root, model=model, precision="float32", **training)
    package = read_package(made.package)
    found = recommend(package, Query(["i1", "i2"], k=16))
    if model.get("collaborative_columns") == "none":
        found += recommend(package, Query(["title thing"], texts=True, k=16))
    return found


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({}, {}),
        ({"collaborative_columns": "user+item", "collaborative_training": "frozen"}, {"item_loss": "sampled_softmax"}),
        ({"collaborative_columns": "none", "projection_dropout": 0.2}, {"item_loss": "gbce"}),
        ({"item_projection_form": "text+free"}, {}),
        ({"causal_expert": "lora", "context_expert": "ia3", "recommendation_adapter": "lora"}, {}),
        ({"second_mask": "causal+columns", "collaborative_model": "mf"}, {}),
    ],
    ids=str,
)
def test_mixrec_is_trained_and_asked_there(model: dict[str, Any], training: dict[str, Any], tmp_path: Path) -> None:
    with no_gpu():
        expected = recommended(tmp_path / "cpu", model, training)
    with gpu():
        found = recommended(tmp_path / "gpu", model, training)
    scores = {(place // 16, one.item): one.score for place, one in enumerate(found)}
    for place, one in enumerate(expected):
        # A GPU has no path for short rows, so even a pretended one rounds otherwise; two epochs go on from there.
        assert scores[place // 16, one.item] == pytest.approx(one.score, abs=0.05 if HAS_GPU else 1e-3)


def test_reasons_gates_and_cosines_are_found_there(tmp_path: Path) -> None:
    """Of one model, so nothing but rounding may differ."""
    folder, query = make_package(tmp_path, precision="float32").package, Query(["i1", "i2", "i4"], k=16)

    def told() -> dict[tuple[str, ...], float]:
        package = read_package(folder)
        found = recommend(package, query)
        drops = zip(found, occlusion(package, query, found), strict=True)
        return {
            **{("drop", one.item, reason.item): reason.drop for one, reasons in drops for reason in reasons},
            **{("gate", one.item): one.context_share for one in gate_shares(package, query)},
            **{("item", one.item): one.cosine for one in similar_to_item(package, "i3", k=16)},
            **{("text", one.item): one.cosine for one in similar_to_text(package, "a lamp", k=16)},
            **{("new", one.text): one.score for one in rank_new(package, query, ["a lamp", "a chair"])},
        }

    with no_gpu():
        expected = told()
    with gpu():
        found = told()
    assert found == pytest.approx(expected, abs=1e-2 if HAS_GPU else 1e-3)


@pytest.mark.parametrize("name", get_args(BaselineName))
def test_baselines_are_trained_and_asked_there(name: BaselineName, tmp_path: Path) -> None:
    with no_gpu():
        expected = packed(name, tmp_path / "cpu").score_history(HISTORY).detach()
    with gpu():
        model = packed(name, tmp_path / "gpu")
        assert next(model.parameters()).device.type == "cuda"
        for ranks in rank_users(model, sequences(), TEST_SETTINGS):
            assert (ranks.rank >= 1).all()
        found = read_baseline_package(tmp_path / "gpu" / "package").score([HISTORY])[0].cpu()
    assert found.isfinite().all()
    if not HAS_GPU:  # a real one draws other random numbers
        torch.testing.assert_close(found, expected)

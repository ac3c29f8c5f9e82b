"""Checkpoints: atomic, whole, and refused by another training."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers import checkpoint
from trainers.epochs import BEST, LAST
from trainers.finetune import finetune
from trainers.reports import EpochReport

DESIGN = Architecture.parse("010-110")


def stop_after_one(_: EpochReport) -> bool:
    return False


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(7), "c": torch.ones(2, dtype=torch.float64)}
    path = tmp_path / "deep" / "file.safetensors"
    checkpoint.write(path, tensors, {"epoch": 3, "mrr": 0.1 + 0.2})
    read, header = checkpoint.read(path)
    assert header == checkpoint.read_header(path) == {"epoch": 3, "mrr": 0.1 + 0.2}
    assert read.keys() == tensors.keys()
    assert all(read[name].equal(tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


@pytest.mark.parametrize("moment", ["save_file", "fsync", "replace"])
def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, {"a": torch.zeros(2)}, {"epoch": 1})
    old = path.read_bytes()

    def crash(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    owner = {"save_file": checkpoint, "fsync": checkpoint.os, "replace": Path}[moment]
    with monkeypatch.context() as patched:
        patched.setattr(owner, moment, crash)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 2})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path], "nothing half-written stays"


def test_what_the_system_refuses_is_its_own_error(tmp_path: Path) -> None:
    """By number, so that a full disk is told from a mistake; here the limit on the size of a file."""
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, {"a": torch.zeros(2)}, {"epoch": 1})
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoint.write(path, {"a": torch.ones(100_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def trained(steps: int) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups = [
        {"params": [model[0].weight, model[1].weight], "weight_decay": 0.1},
        {"params": [model[0].bias, model[1].bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((1, 3), float(step + 1))).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_the_optimiser_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    model, optimizer = trained(3)
    checkpoint.save_training(tmp_path / "last", model, optimizer, {"epoch": 3})
    resumed, fresh = trained(0)
    assert checkpoint.load_training(tmp_path / "last", resumed, fresh) == {"epoch": 3}
    old, new = optimizer.state_dict(), fresh.state_dict()
    assert old["param_groups"] == new["param_groups"]
    assert old["state"].keys() == new["state"].keys() == {0, 1, 2, 3}
    for index, state in old["state"].items():
        assert state.keys() == new["state"][index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in state.items():
            assert torch.equal(value, new["state"][index][name])
            assert value.dtype == new["state"][index][name].dtype
    for each, its in ((model, optimizer), (resumed, fresh)):
        its.zero_grad()
        each(torch.ones(1, 3)).square().sum().backward()
        its.step()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), resumed.parameters(), strict=True))


def test_nothing_frozen_is_kept(tmp_path: Path) -> None:
    task = tiny_task()
    finetune(tiny_config(), DESIGN, task, seed=0, folder=tmp_path, on_epoch=stop_after_one)
    frozen = sum(parameter.numel() for parameter in task.backbone.parameters())
    for name in (BEST, LAST):
        kept = load_file(tmp_path / name)
        assert not any("backbone" in key or "embed" in key for key in kept)
        weights = [tensor for key, tensor in kept.items() if not key.startswith("optimizer/")]
        assert not any(tensor.numel() == frozen for tensor in weights)
    best = load_file(tmp_path / BEST)
    last = load_file(tmp_path / LAST)
    assert {f"model/{key}" for key in best} == {key for key in last if key.startswith("model/")}
    assert all(tensor.equal(last[f"model/{key}"]) for key, tensor in best.items()), "after one epoch they are one"


@pytest.mark.parametrize("changed", ["seed", "design", "rate", "shapes", "task"])
def test_another_training_is_refused_and_leaves_the_folder_as_it_was(tmp_path: Path, changed: str) -> None:
    """Also where its weights have other shapes, which could not even be loaded."""
    task = tiny_task()
    finetune(tiny_config(), DESIGN, task, seed=0, folder=tmp_path, on_epoch=stop_after_one)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    config, design, seed = tiny_config(), DESIGN, 0
    if changed == "seed":
        seed = 1
    elif changed == "design":
        design = Architecture.parse("010-111")
    elif changed == "rate":
        config = tiny_config(learning_rate=6e-3)
    elif changed == "shapes":
        config = tiny_config({"bottleneck": 5})
    else:
        object.__setattr__(task, "fingerprint", "other data")
    with pytest.raises(ValueError, match="another design, seed or configuration: remove it first"):
        finetune(config, design, task, seed=seed, folder=tmp_path, on_epoch=stop_after_one)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [MemoryError("none left"), torch.OutOfMemoryError("none left")])
def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whoever removed the checkpoint for it, as a damaged one asks for, would lose it."""
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, {"a": torch.ones(2)}, {"epoch": 1})

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "safe_open", fail)
    with pytest.raises(type(error)) as raised:
        checkpoint.read(path)
    assert raised.value is error

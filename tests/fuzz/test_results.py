"""What trainings leave and others read: checkpoints, and tables of per-user ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from tests.fuzz.cases import fuzzed, refusal
from tests.fuzz.mutations import tables_near, tensors_near, trees_near
from trainers import checkpoint
from trainers.metrics import summarise
from trainers.ranks import UserRanks

USERS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def ranks() -> UserRanks:
    counts = np.arange(USERS, dtype=np.int64)
    return UserRanks(
        user=np.array([f"u{number}" for number in range(USERS)]),
        target=counts.astype(np.int32),
        rank=counts + 1.5,
        ties=counts + 1,
        history_length=counts,
        popularity=counts,
        repeat=counts > 2,
        cold=counts > 3,
        split="test",
        exclude_seen=False,
        fingerprint="data",
    )


@fuzzed()
@given(data=st.data())
def test_tables_of_ranks(root: Path, data: st.DataObject) -> None:
    ranks().write(root / "valid.parquet")
    path = root / "mine.parquet"
    path.write_bytes(data.draw(tables_near(pq.read_table(root / "valid.parquet"), root / "scratch")))
    message = refusal(lambda: UserRanks.read(path))
    if message is None:
        summarise(UserRanks.read(path))
    else:
        assert str(path) in message


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@fuzzed()
@given(data=st.data())
def test_checkpoints(root: Path, data: st.DataObject) -> None:
    model, optimizer = trained()
    checkpoint.save_training(root / "valid", model, optimizer, {"epoch": 1, "identity": {}})
    progress = json.dumps(data.draw(trees_near({"epoch": 1, "identity": {}})))
    header = data.draw(st.sampled_from([progress, "", "[]", "[" * 100_000]))
    path = root / "mine.safetensors"
    path.write_bytes(data.draw(tensors_near(load_file(root / "valid"), {"progress": header})))
    for read in (
        lambda: checkpoint.read_header(path),
        lambda: checkpoint.read(path),
        lambda: checkpoint.load_training(path, model, optimizer),
    ):
        message = refusal(read)
        assert message is None or str(path) in message


def test_the_readers_take_what_is_whole(root: Path) -> None:
    """Else all of the above could be refused for another reason than the one meant."""
    ranks().write(root / "whole.parquet")
    assert UserRanks.read(root / "whole.parquet").user.tolist() == ranks().user.tolist()
    model, optimizer = trained()
    checkpoint.save_training(root / "whole", model, optimizer, {"epoch": 1})
    assert checkpoint.load_training(root / "whole", model, optimizer) == {"epoch": 1}

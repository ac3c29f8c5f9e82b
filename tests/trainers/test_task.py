"""What a worker loads at its start: derived once, and the same fingerprint as ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.data.files import shop_items, shop_sequences, write_jsonl
from tests.trainers.tiny_backbone_folder import write_tiny_backbone
from trainers import task as module
from trainers.config import BackboneConfig, DataConfig, FilterConfig, FinetuneConfig
from trainers.data import stored_hard_sets
from trainers.data.hard_negatives import hard_sets
from trainers.data.prepare import prepare
from trainers.data.sources import Source
from trainers.data.users import sample_users
from trainers.errors import UserError
from trainers.task import load_task


def test_a_second_start_derives_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", shop_items()),
        sequences=write_jsonl(tmp_path / "sequences.jsonl", shop_sequences()),
    )
    prepare("shop", source, FilterConfig(), tmp_path / "shop")
    backbone = str(write_tiny_backbone(tmp_path / "backbone"))
    config = FinetuneConfig(DataConfig(name="shop"), BackboneConfig(name=backbone))
    stages: list[str] = []
    first = load_task(config, tmp_path / "shop", tmp_path, user_share=0.5, progress=stages.append)
    assert [stage.split(",")[0] for stage in stages] == [
        "weights",
        "item texts",
        "factors of the interactions",
        f"hard negatives of {int((first.item_counts > 0).sum())} items",
        "alignment states of the items",
    ]
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "shop").iterdir() if "-" in path.name)
    assert names == ["align", "hard", "text", "tokens"]

    text = np.load(next((tmp_path / "shop").glob("text-vectors-*.npy")))
    expected = hard_sets(first.data, text, share=config.training.hard_share, encoder="backbone")
    assert first.hard_sets.fingerprint == expected.fingerprint

    def refuse(*_: object) -> None:
        raise AssertionError("derived again")

    with monkeypatch.context() as patch:
        patch.setattr(stored_hard_sets, "hard_rows", refuse)
        patch.setattr(module, "mean_token_states", refuse)
        patch.setattr(module, "frozen_align_states", refuse)
        again = load_task(config, tmp_path / "shop", tmp_path, user_share=0.5)
        assert again.fingerprint == first.fingerprint
        with pytest.raises(AssertionError, match="derived again"):
            load_task(config, tmp_path / "shop", tmp_path, user_share=0.5, user_seed=1)


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_the_fingerprint_is_that_of_the_whole_text(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches recorded under it can be resumed."""
    monkeypatch.setattr(module, "_USERS_HASHED_AT_ONCE", 3)
    users = sample_users(20, 1.0, 0)[:count]
    sets = type("Sets", (), {"fingerprint": "rows=1"})()
    expected = hashlib.sha256(f"data backbone 30 {users.tolist()} rows=1".encode()).hexdigest()[:16]
    assert module._fingerprint("data backbone 30", users, sets) == expected


def test_data_in_which_nobody_has_a_next_item_are_refused(tmp_path: Path) -> None:
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", shop_items()),
        sequences=write_jsonl(tmp_path / "sequences.jsonl", shop_sequences(length=3)),
    )
    prepare("shop", source, FilterConfig(min_user_interactions=3, min_item_interactions=1), tmp_path / "shop")
    backbone = str(write_tiny_backbone(tmp_path / "backbone"))
    config = FinetuneConfig(DataConfig(name="shop"), BackboneConfig(name=backbone))
    with pytest.raises(UserError, match="no user of these data has two training items"):
        load_task(config, tmp_path / "shop", tmp_path)

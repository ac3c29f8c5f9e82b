"""A global split in time: its places against a walk through each user, and what it keeps from training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.architecture import Architecture
from tests.trainers.data.files import write_jsonl
from tests.trainers.tiny_task import sequences, tiny_config, tiny_task
from trainers.baselines.floors import floors
from trainers.config import FilterConfig
from trainers.data.errors import DataError
from trainers.data.histories import ends_of
from trainers.data.prepare import prepare
from trainers.data.sequence_data import SequenceData
from trainers.data.sources import Source
from trainers.data.splits import NONE, TemporalSplit, temporal_split
from trainers.data.statistics import summarise
from trainers.data.store_format import open_prepared, read_manifest
from trainers.evaluate import evaluate
from trainers.finetune import finetune, load_best
from trainers.ranks import Setting

HALF = TemporalSplit(validation_share=0.25, test_share=0.25)
DESIGN = Architecture.parse("010-100")


def timed(seed: int = 0) -> tuple[SequenceData, np.ndarray]:
    """The tiny sequences with random rising times, split in time."""
    data = sequences(seed, num_users=40)
    rng = np.random.default_rng(seed)
    times = np.concatenate([np.sort(rng.random(length)) for length in np.diff(data.offsets)])
    return replace(data, held_out=temporal_split(data.offsets, times, HALF)), times


@given(
    rows=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=8),
    validation=st.floats(0.05, 0.45),
    test=st.floats(0.05, 0.45),
)
def test_places_are_those_of_a_walk(rows: list[list[int]], validation: float, test: float) -> None:
    rows = [sorted(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    times = np.array([time for row in rows for time in row], dtype=np.float64)
    found = temporal_split(offsets, times, TemporalSplit(validation, test))
    ordered = sorted(times)
    first = ordered[min(len(ordered) - 1, round(len(ordered) * (1 - validation - test)))]
    second = ordered[min(len(ordered) - 1, round(len(ordered) * (1 - test)))]
    for user, row in enumerate(rows):
        start = offsets[user]
        assert found.training_ends[user] - start == sum(time < first for time in row)
        of_period = [place for place, time in enumerate(row) if first <= time < second and place > 0]
        is_first = bool(of_period) and all(time < first for time in row[: of_period[0]])
        assert found.validation[user] == (start + of_period[0] if is_first else NONE)
        late = [place for place, time in enumerate(row) if time >= second]
        assert found.test[user] == (start + late[0] if late and late[0] > 0 else NONE)


def test_training_sees_nothing_from_the_first_moment_on(tmp_path: Path) -> None:
    """Other items after it leave every bit of a trained model as it is; one before it does not."""
    data, times = timed()
    assert data.held_out is not None
    is_late = np.ones(len(data.items), dtype=bool)
    for start, end in zip(data.offsets[:-1], data.training_ends, strict=True):
        is_late[start:end] = False
    assert times[~is_late].max() < times[is_late].min()
    items = np.where(is_late, (data.items + 7) % data.num_items, data.items).astype(np.int32)
    config = tiny_config({"collaborative_columns": "user+item"}, epochs=1)

    def weights(name: str, given: SequenceData) -> dict[str, np.ndarray]:
        task = tiny_task(given)
        finetune(config, DESIGN, task, seed=0, folder=tmp_path / name, on_epoch=lambda _: True)
        model = load_best(config, DESIGN, task, seed=0, folder=tmp_path / name)
        return {key: value.numpy() for key, value in model.state_dict().items()}

    real, other = weights("real", data), weights("other", replace(data, items=items))
    assert all(np.array_equal(value, other[key]) for key, value in real.items())
    items = data.items.copy()
    items[0] = (items[0] + 7) % data.num_items
    changed = weights("changed", replace(data, items=items))
    assert not all(np.array_equal(value, changed[key]) for key, value in real.items())


def test_each_split_ranks_the_users_who_have_its_item() -> None:
    data, _ = timed()
    assert data.held_out is not None
    task = tiny_task(data)
    config = tiny_config()
    from trainers.task import build_model

    model = build_model(config, DESIGN, task, 0)
    settings = [Setting("test"), Setting("validation"), Setting("test", exclude_seen=True)]
    tables = evaluate(model, task.layout(config.model), data, settings, 6)
    for setting, table in zip(settings, tables, strict=True):
        assert (table.split, table.exclude_seen) == (setting.split, setting.exclude_seen)
        users = data.users_with(setting.split)
        assert 0 < len(users) < data.num_users
        assert table.user.tolist() == [data.user_ids[user] for user in users]
        assert table.target.tolist() == data.items[ends_of(data, users, setting.split)].tolist()
        (alone,) = evaluate(model, task.layout(config.model), data, [setting], 6)
        assert alone.rank.tolist() == table.rank.tolist()
    assert {len(floor.ranks) for floor in floors(data, "validation")} == {len(data.users_with("validation"))}
    without = np.setdiff1d(np.arange(data.num_users), data.users_with("test"))
    with pytest.raises(ValueError, match="have no test item"):
        ends_of(data, without, "test")


def test_chosen_users_keep_their_items() -> None:
    data, _ = timed()
    users = np.array([5, 2, 33])
    chosen = data.select_users(users)
    for place, user in enumerate(users):
        assert chosen.training(place).tolist() == data.training(int(user)).tolist()
        for split in ("validation", "test"):
            (ours,), (theirs,) = chosen.places(split, np.array([place])), data.places(split, np.array([user]))
            assert (ours == NONE) == (theirs == NONE)
            assert ours == NONE or chosen.items[ours] == data.items[theirs]


def test_a_prepared_split_is_kept_and_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = [{"id": f"i{number}", "title": f"Thing {number}"} for number in range(20)]
    rows = [
        {
            "user": f"u{user}",
            "items": [f"i{(user + step) % 20}" for step in range(8)],
            "ts": sorted(rng.integers(1000, size=8).tolist()),
        }
        for user in range(40)
    ]
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", items), sequences=write_jsonl(tmp_path / "sequences.jsonl", rows)
    )
    plain = prepare("shop", source, FilterConfig(), tmp_path / "plain")
    manifest = prepare("shop", source, FilterConfig(), tmp_path / "timed", temporal=TemporalSplit())
    assert manifest.fingerprint != plain.fingerprint
    assert manifest.split == read_manifest(tmp_path / "timed").split == TemporalSplit().told
    data = open_prepared(tmp_path / "timed")
    assert data.held_out is not None
    flat = np.concatenate([row["ts"] for row in rows]).astype(np.float64)
    expected = temporal_split(np.asarray(data.offsets), flat, TemporalSplit())
    for name in ("training_ends", "validation", "test"):
        assert getattr(data.held_out, name).tolist() == getattr(expected, name).tolist()
    assert len(data.training_pairs()[0]) == (data.training_ends - data.offsets[:-1]).sum()
    summary = summarise(data, 20)
    assert summary.tested_users == (expected.test != NONE).sum()
    np.save(tmp_path / "timed" / "held-out.npy", np.load(tmp_path / "timed" / "held-out.npy")[::-1])
    with pytest.raises(DataError, match="does not match its fingerprint"):
        open_prepared(tmp_path / "timed")


def test_without_time_stamps_there_is_no_such_split(tmp_path: Path) -> None:
    items = [{"id": f"i{number}", "title": f"Thing {number}"} for number in range(20)]
    rows = [{"user": user, "items": [f"i{(user + step) % 20}" for step in range(8)]} for user in range(40)]
    source = Source(
        items=write_jsonl(tmp_path / "items.jsonl", items), sequences=write_jsonl(tmp_path / "sequences.jsonl", rows)
    )
    with pytest.raises(DataError, match="has no time stamps"):
        prepare("shop", source, FilterConfig(), tmp_path / "timed", temporal=TemporalSplit())

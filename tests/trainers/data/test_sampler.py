"""What an epoch visits, what a worker gets of it, and what must never be in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trainers.data.test_windows import walk_back
from tests.trainers.tiny_task import NUM_ITEMS, sequences, tiny_config, tiny_tokens
from trainers.config import FinetuneConfig
from trainers.data.hard_negatives import hard_sets
from trainers.data.sampler import StepSampler, share
from trainers.data.sequence_data import SequenceData
from trainers.data.step import Step

ROOMY = 10_000


def sampler(
    config: FinetuneConfig | None = None, data: SequenceData | None = None, *, context: int = ROOMY, seed: int = 0
) -> StepSampler:
    data = data or sequences()
    text = np.random.default_rng(5).normal(size=(data.num_items, 8)).astype(np.float32)
    sets = hard_sets(data, text, share=0.05, encoder="random")
    return StepSampler(config or tiny_config(), data, tiny_tokens(data.num_items), sets, context, seed)


def with_user_of_three() -> SequenceData:
    """One user more, whose training part is a single item: nothing to predict."""
    data = sequences()
    return replace(
        data,
        offsets=np.append(data.offsets, data.offsets[-1] + 3),
        items=np.append(data.items, np.array([1, 2, 3], dtype=np.int32)),
        user_ids=(*data.user_ids, "short"),
    )


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_an_epoch_visits_every_user_once(batch_size: int) -> None:
    drawn = sampler(tiny_config(batch_size=batch_size), with_user_of_three())
    steps = list(drawn.epoch(1))
    assert len(steps) == drawn.steps_per_epoch == -(-24 // batch_size)
    assert sorted(user for step in steps for user in step.users) == list(range(24)), "but not the one with one item"
    assert all(len(step.users) <= batch_size for step in steps)


@pytest.mark.parametrize("align_share", [0.0, 0.3, 1.0])
def test_an_epoch_aligns_every_item_of_the_share_once(align_share: float) -> None:
    config = tiny_config(align_share=align_share, lambda_contrastive=0.0)
    visited = Counter(item for step in sampler(config).epoch(1) for item in step.align_items)
    assert len(visited) == round(align_share * NUM_ITEMS)
    assert set(visited.values()) <= {1}


def test_alignment_also_visits_what_is_contrasted() -> None:
    """Ruling 5: the unique positives and negatives of the draw, and beside them every item once an epoch."""
    steps = list(sampler().epoch(1))
    for step in steps:
        contrasted = {item for anchor in step.anchors for item in (anchor.positive, *anchor.negatives)}
        assert contrasted <= set(step.align_items)
        assert len(set(step.align_items)) == len(step.align_items)
    assert {item for step in steps for item in step.align_items} == set(range(NUM_ITEMS))


def test_rows_are_the_newest_training_items_and_never_a_held_out_one() -> None:
    data = sequences()
    for step in sampler(tiny_config(), data).epoch(1):
        for user, inputs, targets in zip(step.users, step.inputs, step.targets, strict=True):
            training = data.sequence(user)[:-2].tolist()
            kept = min(6, len(training) - 1)
            assert list(inputs) == training[-kept - 1 : -1]
            assert list(targets) == training[-kept:]


def literal_epoch(drawn: StepSampler, epoch: int) -> list[Step]:
    """An epoch with one window and one batch at a time."""
    config, data, lengths = drawn.config, drawn.data, drawn.item_tokens.lengths

    def window(user: int) -> NDArray[np.int32]:
        training = data.training(user)
        inputs = walk_back(training[:-1].tolist(), drawn.item_tokens, config.data.history, drawn.context)
        return training[len(training) - 1 - len(inputs) :]

    rng = np.random.default_rng([drawn.seed, epoch, 0])
    align = rng.permutation(data.num_items)[: round(config.training.align_share * data.num_items)]
    size = config.training.batch_size
    order = rng.permutation([user for user in range(data.num_users) if len(data.training(user)) >= 2])
    tokens = np.array([(lengths[window(int(user))[:-1]] + 1).sum() for user in order])
    batches = []
    for start in range(0, len(order), size * 32):
        bucket = slice(start, start + size * 32)
        by_length = order[bucket][np.argsort(tokens[bucket], kind="stable")]
        batches += [by_length[first : first + size] for first in range(0, len(by_length), size)]
    batches = [batches[position] for position in rng.permutation(len(batches))]
    steps = []
    for number, (users, items) in enumerate(zip(batches, np.array_split(align, len(batches)), strict=True)):
        step = drawn._draw(np.random.default_rng([drawn.seed, epoch, 1, number]), users, items)
        assert step.inputs == tuple(tuple(window(int(user))[:-1].tolist()) for user in users)
        assert step.targets == tuple(tuple(window(int(user))[1:].tolist()) for user in users)
        steps.append(step)
    return steps


@pytest.mark.parametrize(("users", "batch_size"), [(24, 5), (400, 3), (131, 4)])
@pytest.mark.parametrize("context", [8, ROOMY])
def test_every_step_equals_the_one_of_a_literal_epoch(
    users: int, batch_size: int, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.data.sequence_data.USERS_AT_ONCE", 50)  # several chunks
    config = tiny_config({"collaborative_columns": "user+item"}, batch_size=batch_size, align_share=0.7)
    drawn = sampler(config, sequences(num_users=users), context=context, seed=9)
    for epoch in (1, 2):
        assert list(drawn.epoch(epoch)) == literal_epoch(drawn, epoch)


def test_windows_of_users_without_targets() -> None:
    """One training item is a window without inputs; none at all is an empty window."""
    data = with_user_of_three()
    data = replace(
        data,
        offsets=np.append(data.offsets, data.offsets[-1] + 2),
        items=np.append(data.items, np.array([4, 5], dtype=np.int32)),
        user_ids=(*data.user_ids, "shorter"),
    )
    drawn = sampler(data=data)
    assert [drawn.window(user).tolist() for user in (24, 25)] == [[1], []]


@pytest.mark.parametrize("context", [5, 11, 17])
def test_rows_respect_the_context_of_the_backbone(context: int) -> None:
    data, tokens = sequences(), tiny_tokens()
    kept = total = 0
    drawn = sampler(data=data, context=context)
    for step in drawn.epoch(1):
        for user, inputs in zip(step.users, step.inputs, strict=True):
            training = data.sequence(user)[:-2].tolist()
            assert list(inputs) == walk_back(training[:-1], tokens, 6, context)
            assert sum(len(tokens.row(item)) + 1 for item in inputs) <= context
            kept, total = kept + len(inputs), total + len(training) - 1
    assert drawn.share_of_targets_kept() == pytest.approx(kept / total)
    assert kept < total


def test_the_share_of_targets_kept_of_a_short_history() -> None:
    """Users with 4 to 9 interactions have 1 to 6 targets; a history of 2 keeps at most 2 of each."""
    data, config = sequences(), tiny_config()
    config = replace(config, data=replace(config.data, history=2))
    targets = [len(data.sequence(user)) - 3 for user in range(data.num_users)]
    expected = sum(min(2, count) for count in targets) / sum(targets)
    assert sampler(config, data).share_of_targets_kept() == pytest.approx(expected)
    assert expected < 1
    assert sampler(data=data).share_of_targets_kept() == 1


def test_negatives_of_the_collaborative_model_are_never_in_the_users_training_part() -> None:
    """And over many epochs they are all the other items, held-out ones included (ruling 17)."""
    data, drawn = sequences(), sampler(tiny_config(collaborative_negatives=4))
    seen: dict[int, set[int]] = {}
    for epoch in range(1, 40):
        for step in drawn.epoch(epoch):
            for draw in step.collaborative:
                assert len(draw.negatives) == 4
                seen.setdefault(draw.user, set()).update(draw.negatives)
    for user in range(data.num_users):
        assert seen[user] == set(range(NUM_ITEMS)) - set(data.sequence(user)[:-2].tolist())


def test_positives_of_the_collaborative_model_are_the_window_and_none_without_columns() -> None:
    for step in sampler().epoch(1):
        positives = {user: [draw.positive for draw in step.collaborative if draw.user == user] for user in step.users}
        for user, inputs, targets in zip(step.users, step.inputs, step.targets, strict=True):
            assert positives[user] == [*inputs, targets[-1]]
    for unused in ({"collaborative_columns": "none"}, {"kind": "mixrec_base"}):
        assert not any(step.collaborative for step in sampler(tiny_config(unused)).epoch(1))


def test_a_user_who_has_everything_gets_no_collaborative_draw() -> None:
    data = sequences(num_items=12)
    whole = np.concatenate([np.arange(12, dtype=np.int32), np.array([0, 1], dtype=np.int32)])
    data = replace(
        data,
        offsets=np.append(data.offsets, data.offsets[-1] + len(whole)),
        items=np.append(data.items, whole),
        user_ids=(*data.user_ids, "has everything"),
    )
    drawn = {draw.user for step in sampler(data=data).epoch(1) for draw in step.collaborative}
    assert drawn == set(range(24))


@pytest.mark.parametrize("anchors", [1, 3])
def test_anchors_are_distinct_positions_with_the_next_item_as_positive(anchors: int) -> None:
    drawn = sampler(tiny_config(anchors_per_user=anchors, contrastive_negatives=3))
    for step in drawn.epoch(1):
        places = [(anchor.row, anchor.position) for anchor in step.anchors]
        assert len(set(places)) == len(places)
        assert Counter(row for row, _ in places) == {
            row: min(anchors, len(inputs)) for row, inputs in enumerate(step.inputs)
        }
        for anchor in step.anchors:
            assert anchor.positive == step.targets[anchor.row][anchor.position]
            assert anchor.positive not in anchor.negatives
            assert len(set(anchor.negatives)) == 3


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    first = list(sampler(seed=3).epoch(2))
    again = sampler(seed=3)
    list(again.epoch(1))  # what was drawn before leaves no trace
    assert list(again.epoch(2)) == first
    assert list(sampler(seed=3).epoch(3)) != first
    assert list(sampler(seed=4).epoch(2)) != first


def test_held_out_items_decide_on_nothing() -> None:
    data = sequences()
    items = data.items.copy()
    for end in data.offsets[1:]:
        items[end - 2 : end] = (items[end - 2 : end] + 7) % NUM_ITEMS
    assert list(sampler(data=replace(data, items=items)).epoch(1)) == list(sampler(data=data).epoch(1))


@pytest.mark.parametrize(("chance", "low", "high"), [(0.0, 0.0, 0.0), (0.3, 0.2, 0.4)])
def test_user_columns_are_dropped_at_the_given_rate(chance: float, low: float, high: float) -> None:
    drawn = sampler(tiny_config({"collaborative_columns": "user", "user_column_dropout": chance}))
    steps = [step for epoch in range(1, 21) for step in drawn.epoch(epoch)]
    assert all(step.hidden_user_columns <= set(range(len(step.users))) for step in steps)
    hidden = sum(len(step.hidden_user_columns) for step in steps)
    assert low <= hidden / sum(len(step.users) for step in steps) <= high


def test_batches_hold_rows_of_like_length() -> None:
    """Padding of the causal branch: sorted inside buckets, so clearly less than with random batches."""

    def padding(batches: list[list[int]]) -> float:
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(map(sum, batches))

    data = sequences(num_users=200)
    drawn = sampler(tiny_config(batch_size=8), data)
    sorted_rows = [[len(row) for row in step.inputs] for step in drawn.epoch(1)]
    lengths = np.random.default_rng(0).permutation([length for batch in sorted_rows for length in batch]).tolist()
    random_rows = [lengths[first : first + 8] for first in range(0, len(lengths), 8)]
    assert padding(sorted_rows) < padding(random_rows) / 3


def terms(step: Step) -> Counter[tuple[object, ...]]:
    """Every term of every loss under a name that does not depend on the order of rows."""
    hidden = step.hidden_user_columns
    seq = [
        ("seq", step.users[row], position, step.inputs[row][: position + 1], target, row in hidden)
        for row, targets in enumerate(step.targets)
        for position, target in enumerate(targets)
    ]
    contrastive = [
        ("contrastive", step.users[anchor.row], anchor.position, anchor.positive, anchor.negatives)
        for anchor in step.anchors
    ]
    collaborative = [("collaborative", draw.user, draw.positive, draw.negatives) for draw in step.collaborative]
    return Counter([*seq, *contrastive, *collaborative, *(("align", item) for item in step.align_items)])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    workers=st.integers(1, 5),
    batch_size=st.integers(1, 24),
    anchors=st.integers(1, 3),
    off=st.sampled_from(["", "lambda_align", "lambda_contrastive", "lambda_collaborative"]),
)
def test_the_shares_of_the_workers_partition_every_loss(
    seed: int, workers: int, batch_size: int, anchors: int, off: str
) -> None:
    config = tiny_config(
        {"collaborative_columns": "user+item", "user_column_dropout": 0.4},
        batch_size=batch_size,
        anchors_per_user=anchors,
        **({off: 0.0} if off else {}),
    )
    step = next(iter(sampler(config, seed=seed).epoch(1)))
    shares = [share(step, rank, workers) for rank in range(workers)]
    together: Counter[tuple[object, ...]] = Counter()
    for part in shares:
        together += terms(part)
    assert together == terms(step), "all terms, and each exactly once"
    rows = [len(part.users) for part in shares]
    assert max(rows) - min(rows) <= 1


def test_alignment_terms_go_where_the_item_is_encoded_anyway() -> None:
    for step in sampler(tiny_config(batch_size=8, anchors_per_user=2)).epoch(1):
        for rank in range(2):
            part, other = share(step, rank, 2), share(step, 1 - rank, 2)
            own, others = (
                {item for anchor in one.anchors for item in (anchor.positive, *anchor.negatives)}
                for one in (part, other)
            )
            assert not set(part.align_items) & (others - own)


@pytest.mark.parametrize("loss", ["sampled_softmax", "gbce"])
def test_a_sampled_loss_draws_distinct_items_that_all_workers_share_and_changes_no_other_draw(loss: str) -> None:
    exact = list(sampler(tiny_config()).epoch(1))
    sampled = list(sampler(tiny_config(item_loss=loss, sampled_items=7)).epoch(1))
    assert [replace(step, sampled_items=()) for step in sampled] == exact
    for step in sampled:
        assert len(set(step.sampled_items)) == len(step.sampled_items) == 7
        assert {share(step, rank, 3).sampled_items for rank in range(3)} == {step.sampled_items}
    assert len({step.sampled_items for step in sampled}) == len(sampled)
    everything = next(sampler(tiny_config(item_loss=loss)).epoch(1)).sampled_items
    assert sorted(everything) == list(range(NUM_ITEMS)), "at most the whole catalogue"

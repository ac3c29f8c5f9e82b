"""Switching designs against fresh models, and a supernet's training and scores against the ordinary ones."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from search_spaces.architecture import Architecture
from search_spaces.damoe import DamoeSpace
from tests.trainers.tiny_task import tiny_config, tiny_task
from trainers.config import FinetuneConfig
from trainers.data.batches import Batch, collate
from trainers.epochs import LAST
from trainers.evaluate import evaluate
from trainers.finetune import finetune
from trainers.metrics import per_user
from trainers.model.mixrec import MixRec
from trainers.ranks import Setting
from trainers.reports import EpochReport
from trainers.supernet import Supernet, design_of_step, train_supernet
from trainers.task import TrainingTask, build_model, sample_rows

KINDS = {"causal_expert": "ia3", "context_expert": "lora", "recommendation_adapter": "none"}
OPTIONS = pytest.mark.parametrize(
    "model",
    [
        {},
        {"replacement_frequency": 2},
        {"item_projection_form": "text+free"},
        {"item_projection_input": "raw"},
        {"item_projection_init": "random", "activation": "gelu"},
        KINDS,
    ],
    ids=str,
)


class Told:
    """Keeps the reports of all epochs."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def __call__(self, report: EpochReport) -> bool:
        self.reports.append(report)
        return True


def first_batch(config: FinetuneConfig, task: TrainingTask) -> Batch:
    return collate(next(iter(task.sampler(config, 0).epoch(1))), task.layout(config.model))


def stirred(model: MixRec) -> MixRec:
    """With random adapters: those that start at zero would hide what they read."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.layers.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return model


def some_designs(config: FinetuneConfig, task: TrainingTask, count: int = 6) -> list[Architecture]:
    """Some of all, in random order."""
    bits = DamoeSpace(len(task.backbone.layers), config.model.replacement_frequency).num_bits
    every = np.array([*product((0, 1), repeat=bits)])
    return [Architecture.from_bits(row.tolist()) for row in np.random.default_rng(0).permutation(every)[:count]]


@OPTIONS
def test_a_switched_model_is_a_fresh_one_of_that_design(model: dict[str, str]) -> None:
    config, task = tiny_config(model), tiny_task(dtype=torch.float32)
    designs = some_designs(config, task, 6 if model else 64)
    rows, batch = sample_rows(config, task, 0), first_batch(config, task)
    switched = stirred(build_model(config, designs[0], task, 0)).eval()
    with torch.no_grad():
        together = dict(switched.encode_each(rows, designs))
    outputs = set()
    for design in designs:
        fresh = MixRec(
            task.backbone,
            config.model,
            design,
            num_users=task.data.num_users,
            num_items=task.data.num_items,
            training=config.training,
        )
        fresh.load_state_dict(switched.state_dict())
        switched.eval().architecture = design
        with torch.no_grad():
            scores = switched.scores(rows)
            assert torch.equal(scores, fresh.eval().scores(rows))
            assert torch.equal(switched.item_logits(together[design]), scores)
            losses, expected = switched.train()(batch), fresh.train()(batch)
        assert all(torch.equal(losses[name], expected[name]) for name in expected)
        assert switched.architecture == design
        outputs.add(tuple(scores.flatten().tolist()))
    # Sites of another kind than a bottleneck read no placement.
    assert len(outputs) == (1 if model == KINDS else len(designs))


def test_what_has_no_design_takes_none() -> None:
    config, task = tiny_config({"kind": "mixrec_base"}), tiny_task()
    design = Architecture.parse("010-110")
    with pytest.raises(ValueError, match="mixrec_base has no design"):
        build_model(config, design, task, 0).architecture = design
    with pytest.raises(ValueError, match="give 6 bits"):
        build_model(tiny_config(), design, task, 0).architecture = Architecture.parse("010")
    with pytest.raises(ValueError, match="mixrec_base has no design"):
        Supernet(config, task, 0)


@OPTIONS
def test_untrained_each_design_starts_as_its_own_training(model: dict[str, str]) -> None:
    config, task = tiny_config(model), tiny_task()
    supernet, rows = Supernet(config, task, 3), sample_rows(config, task, 5)
    for design in some_designs(config, task):
        supernet.switch(design)
        fresh = build_model(config, design, task, 3)
        with torch.no_grad():
            assert torch.allclose(supernet.model.scores(rows), fresh.scores(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("text", ["000-000", "010-110", "111-111"])
def test_with_the_same_design_at_each_step_it_is_the_training_of_that_design(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task, design = tiny_config(), tiny_task(), Architecture.parse(text)
    monkeypatch.setattr("trainers.supernet.design_of_step", lambda *_: design)
    alone, shared = Told(), Told()
    finetune(config, design, task, seed=2, folder=tmp_path / "alone", on_epoch=alone)
    supernet = train_supernet(config, task, seed=2, folder=tmp_path / "shared", on_epoch=shared)
    assert len(shared.reports) == len(alone.reports) == 3
    for left, right in zip(shared.reports, alone.reports, strict=True):
        assert left.losses == pytest.approx(right.losses, rel=1e-6)
    (ranks,) = supernet.reciprocal_ranks([design])
    assert ranks.mean() == pytest.approx(alone.reports[-1].validation.mrr, rel=1e-9)


def test_designs_come_with_their_complement_and_are_uniform() -> None:
    space = DamoeSpace(2)
    drawn = [np.array(design_of_step(space, 7, step).bits) for step in range(4000)]
    assert all((left + right == 1).all() for left, right in zip(drawn[::2], drawn[1::2], strict=True))
    counts = Counter(tuple(bits.tolist()) for bits in drawn[::2])
    assert len(counts) == 64
    expected = len(drawn) / 2 / 64
    # Chi-squared with 63 degrees of freedom: 112 is passed with a probability of 1e-4.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 112
    assert any((np.array(design_of_step(space, 8, step).bits) != drawn[step]).any() for step in range(9))


@pytest.mark.parametrize("text", ["000-000", "111-111"])
def test_every_adapter_has_a_gradient_in_both_placements(text: str) -> None:
    config, task = tiny_config(), tiny_task()
    supernet = Supernet(config, task, 0)
    stirred(supernet.model)
    supernet.switch(Architecture.parse(text))
    sum(supernet.model(first_batch(config, task)).values()).backward()
    for name, weight in supernet.model.layers.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@OPTIONS
def test_scores_are_those_of_an_ordinary_evaluation(
    model: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = tiny_config(model, epochs=1), tiny_task()
    monkeypatch.setattr("trainers.ranks.SCORES_AT_ONCE", 1)
    monkeypatch.setattr("trainers.ranks.USERS_AT_LEAST", 10)
    monkeypatch.setattr("trainers.evaluate.TOKENS_AT_ONCE", 60)
    supernet = train_supernet(config, task, seed=1, folder=tmp_path, on_epoch=lambda _: True)
    told: list[str] = []
    designs = some_designs(config, task)
    found = supernet.reciprocal_ranks(designs, progress=told.append)
    assert "10 of 24 users" in told[2]
    layout = task.layout(config.model)
    for row, design in zip(found, designs, strict=True):
        supernet.switch(design)
        (ranks,) = evaluate(supernet.model, layout, task.data, [Setting("validation")], config.data.history)
        assert row == pytest.approx(per_user(ranks)["mrr"])
    assert np.array_equal(found, supernet.reciprocal_ranks(designs))


def test_a_supernet_is_resumed_exactly(tmp_path: Path) -> None:
    config, task = tiny_config(epochs=2), tiny_task(dtype=torch.float32)
    whole = train_supernet(config, task, seed=3, folder=tmp_path / "whole", on_epoch=lambda _: True)
    train_supernet(config, task, seed=3, folder=tmp_path / "cut", on_epoch=lambda report: report.epoch < 1)
    resumed = train_supernet(config, task, seed=3, folder=tmp_path / "cut", on_epoch=lambda _: True)
    left, right = (load_file(tmp_path / name / LAST) for name in ("whole", "cut"))
    assert all(torch.equal(left[key], right[key]) for key in left)
    again = train_supernet(config, task, seed=3, folder=tmp_path / "whole", on_epoch=lambda _: True)
    designs = some_designs(config, task)
    expected = whole.reciprocal_ranks(designs)
    for other in (resumed, again):
        assert np.array_equal(other.reciprocal_ranks(designs), expected)
    with pytest.raises(ValueError, match="another design"):
        finetune(config, designs[0], task, seed=3, folder=tmp_path / "cut", on_epoch=lambda _: True)

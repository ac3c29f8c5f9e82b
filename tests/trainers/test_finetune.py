from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from search_spaces.architecture import Architecture
from tests.trainers.tiny_task import sequences, tiny_config, tiny_task
from trainers.baselines.popularity import popularity
from trainers.data.sequence_data import SequenceData
from trainers.epochs import BEST, LAST, NotFiniteError
from trainers.finetune import finetune
from trainers.metrics import summarise
from trainers.ranks import Setting, evaluate_scores
from trainers.reports import EpochReport

DESIGN = Architecture.parse("010-110")
KINDS = {"causal_expert": "ia3", "context_expert": "lora", "recommendation_adapter": "none"}


def go_on(_: EpochReport) -> bool:
    return True


def test_learns_to_beat_popularity(tmp_path: Path) -> None:
    task = tiny_task()
    result = finetune(tiny_config(epochs=25), DESIGN, task, seed=0, folder=tmp_path, on_epoch=go_on)
    (ranks,) = evaluate_scores(task.data, [Setting("validation")], popularity(task.data))
    floor = summarise(ranks).mrr
    assert result.mrr > 2 * floor
    assert 1 <= result.best_epoch <= result.epochs_run == 25


def test_reports_every_epoch_and_stops_when_told(tmp_path: Path) -> None:
    seen: list[EpochReport] = []

    def stop_after_two(report: EpochReport) -> bool:
        seen.append(report)
        return report.epoch < 2

    result = finetune(tiny_config(), DESIGN, tiny_task(), seed=0, folder=tmp_path, on_epoch=stop_after_two)
    assert [report.epoch for report in seen] == [1, 2]
    assert result.epochs_run == 2
    metrics = seen[0].as_metrics()
    assert set(metrics) >= {"loss_seq", "loss_align", "loss_contrastive", "loss_collaborative", "loss_total"}
    assert result.mrr == max(report.validation.mrr for report in seen)
    assert metrics["validation_mrr"] == seen[0].validation.mrr


@pytest.mark.parametrize(("stop_at", "model"), [(1, {}), (2, {}), (2, KINDS)])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop_at: int, model: dict[str, str]) -> None:
    config, task = tiny_config(model, epochs=4), tiny_task(dtype=torch.float32)
    whole = finetune(config, DESIGN, task, seed=3, folder=tmp_path / "whole", on_epoch=go_on)
    finetune(config, DESIGN, task, seed=3, folder=tmp_path / "cut", on_epoch=lambda report: report.epoch < stop_at)
    resumed_from: list[int] = []

    def note(report: EpochReport) -> bool:
        resumed_from.append(report.epoch)
        return True

    resumed = finetune(config, DESIGN, task, seed=3, folder=tmp_path / "cut", on_epoch=note)
    assert resumed_from[0] == stop_at + 1
    assert resumed == whole
    for name in (LAST, BEST):
        left, right = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name


@pytest.mark.parametrize("finished", [2, 3])
def test_epochs_whose_reports_were_lost_are_told_first(tmp_path: Path, finished: int) -> None:
    """As where the caller dies and the training goes on for a moment."""
    config, task = tiny_config(epochs=3), tiny_task()
    first: list[EpochReport] = []
    again: list[EpochReport] = []

    def note(report: EpochReport) -> bool:
        first.append(report)
        return report.epoch < finished

    finetune(config, DESIGN, task, seed=3, folder=tmp_path, on_epoch=note)
    result = finetune(
        config, DESIGN, task, seed=3, folder=tmp_path, on_epoch=lambda one: not again.append(one), recorded=1
    )
    assert result.epochs_run == 3
    assert [report.epoch for report in again] == [2, 3]
    assert again[: finished - 1] == first[1:]


def test_another_training_is_never_resumed(tmp_path: Path) -> None:
    task = tiny_task()
    finetune(tiny_config(), DESIGN, task, seed=0, folder=tmp_path, on_epoch=go_on)
    with pytest.raises(ValueError, match="another design, seed or configuration"):
        finetune(tiny_config(), DESIGN, task, seed=1, folder=tmp_path, on_epoch=go_on)


def test_frozen_weights_stay_bitwise_unchanged_and_out_of_the_checkpoint(tmp_path: Path) -> None:
    task = tiny_task()
    before = [parameter.detach().clone() for parameter in task.backbone.parameters()]
    finetune(tiny_config(), DESIGN, task, seed=0, folder=tmp_path, on_epoch=go_on)
    assert all(torch.equal(old, new) for old, new in zip(before, task.backbone.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in task.backbone.parameters())
    kept = load_file(tmp_path / BEST)
    assert not any("backbone" in name for name in kept)
    assert kept["special_tokens"].shape == (2, task.backbone.width)


def permute_held_out(data: SequenceData) -> SequenceData:
    """Give every user the validation and test items of another one."""
    items = data.items.copy()
    ends = data.offsets[1:]
    order = np.roll(np.arange(data.num_users), 1)
    for back in (1, 2):
        items[ends - back] = data.items[ends[order] - back]
    assert not np.array_equal(items, data.items)
    return SequenceData(data.offsets, items, data.user_ids, data.catalogue, data.fingerprint)


@pytest.mark.parametrize("columns", ["item", "user+item"])
@pytest.mark.parametrize("collaborative", ["ncf", "mf"])
def test_held_out_interactions_never_reach_training(tmp_path: Path, columns: str, collaborative: str) -> None:
    config = tiny_config({"collaborative_columns": columns, "collaborative_model": collaborative})
    trained = {}
    for name, data in (("real", sequences()), ("permuted", permute_held_out(sequences()))):
        task = tiny_task(data)
        finetune(config, DESIGN, task, seed=0, folder=tmp_path / name, on_epoch=go_on)
        trained[name] = load_file(tmp_path / name / LAST)
    assert all(torch.equal(value, trained["permuted"][key]) for key, value in trained["real"].items())


def test_a_diverging_design_says_so(tmp_path: Path) -> None:
    task = tiny_task(dtype=torch.float32)
    with torch.no_grad():
        task.backbone.token_table.weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        finetune(tiny_config(), DESIGN, task, seed=0, folder=tmp_path, on_epoch=go_on)


@pytest.mark.parametrize(
    "model", [{"kind": "mixrec_base"}, {"collaborative_columns": "none"}, {"leading_bos": True}, KINDS]
)
def test_variants_train(tmp_path: Path, model: dict[str, object]) -> None:
    result = finetune(tiny_config(model), DESIGN, tiny_task(), seed=0, folder=tmp_path, on_epoch=go_on)
    assert 0 < result.mrr < 1


@pytest.mark.parametrize("off", ["lambda_align", "lambda_contrastive", "lambda_collaborative"])
def test_a_loss_of_weight_zero_is_not_computed(tmp_path: Path, off: str) -> None:
    seen: list[EpochReport] = []

    def keep(report: EpochReport) -> bool:
        seen.append(report)
        return False

    finetune(tiny_config(**{off: 0.0}), DESIGN, tiny_task(), seed=0, folder=tmp_path, on_epoch=keep)
    assert off.removeprefix("lambda_") not in seen[0].losses

"""The least operations of a step, against PyTorch's counter of those that are run and the masks of the formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaModel

from benchmarks.flops import attended_pairs, least_operations, operations_run
from search_spaces.architecture import Architecture
from tests.oracles.cases import Case, random_case, random_parameters, small_model
from tests.oracles.literal_mixrec import align_row, history_row
from tests.oracles.literal_rows import ALIGN, SEQ, Row, causal_mask, context_mask
from tests.oracles.tiny_backbones import VOCABULARY
from tests.trainers.model.test_mixrec_equals_literal import fast_model, layout_of
from trainers.data.batches import collate
from trainers.losses import weighted_loss


def case_of(bits: str, columns: str = "user+item", **changes: Any) -> Case:
    """Wide enough for the gate, two outputs a token, to be as small a part as in earnest."""
    model = small_model(bottleneck=16, collaborative_columns=columns, **changes)
    case = random_case("llama", bits, model=model, layers=3, num_users=25, num_items=60, rows=24)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    body = LlamaModel(config).double().eval().requires_grad_(False)
    return replace(case, backbone=body, parameters=random_parameters(body, model, 25, 60))


def executed(case: Case) -> tuple[int, int]:
    """Operations of attention and of all other products, as the model runs them."""
    model, batch = fast_model(case), collate(case.step, layout_of(case))
    found = operations_run(lambda: weighted_loss(model(batch), batch.counts, case.training).backward())  # type: ignore[no-untyped-call]
    return found["attention"], found["other"]


def least(case: Case) -> tuple[int, int]:
    assert case.architecture is not None
    batch = collate(case.step, layout_of(case))
    found = least_operations(batch, case.backbone.config, case.model, case.architecture, len(case.item_tokens))
    return found.pop("attention"), sum(found.values())


@pytest.mark.parametrize("bits", ["000000000", "111111111", "010101110"])
@pytest.mark.parametrize("columns", ["none", "user+item"])
def test_the_count_is_a_few_percent_below_what_is_executed(bits: str, columns: str) -> None:
    case = case_of(bits, columns)
    (attention, products), (run_attention, run_products) = least(case), executed(case)
    assert 0.95 * run_products < products <= run_products
    # The hidden half of causal attention and the first layer's backward pass are run, but not needed.
    assert 0.4 * run_attention < attention < run_attention


@pytest.mark.parametrize("kinds", [("lora", "lora", "lora"), ("ia3", "lora", "none"), ("bottleneck", "none", "ia3")])
def test_each_kind_of_adapter_is_counted(kinds: tuple[str, str, str]) -> None:
    sites = ("causal_expert", "context_expert", "recommendation_adapter")
    case = case_of("010101110", **dict(zip(sites, kinds, strict=True)))
    products, run_products = least(case)[1], executed(case)[1]
    assert 0.95 * run_products < products <= run_products


def test_long_rows_run_blockwise_attention_and_need_less() -> None:
    case = case_of("010101110")
    case = replace(case, item_tokens=[[6 + number % 30] * 60 for number in range(60)])
    (attention, products), (run_attention, run_products) = least(case), executed(case)
    assert 0.95 * run_products < products <= run_products
    assert 0.4 * run_attention < attention < run_attention


def test_matrix_factorisation_has_no_products() -> None:
    case = case_of("010101110", collaborative_model="mf")
    products, run_products = least(case)[1], executed(case)[1]
    assert 0.95 * run_products < products <= run_products


def test_attended_pairs_are_those_of_the_masks() -> None:
    case = case_of("010101110")
    batch = collate(case.step, layout_of(case))
    literal = case.literal
    histories = [history_row(literal, user, row) for user, row in zip(case.step.users, case.step.inputs, strict=True)]
    alignments = [align_row(literal, item) for item in batch.align_items.tolist()]

    def pairs(rows: list[Row], kind: str, readouts_only: bool) -> int:
        total = 0
        for row in rows:
            seen = causal_mask(row).sum(dim=1) + context_mask(row).sum(dim=1)
            total += int((seen[row.places(kind)] if readouts_only else seen).sum())
        return total

    for only in (False, True):
        assert batch.histories is not None
        assert batch.alignments is not None
        assert attended_pairs(batch.histories, readouts_only=only) == pairs(histories, SEQ, only)
        assert attended_pairs(batch.alignments, readouts_only=only) == pairs(alignments, ALIGN, only)


def test_other_networks_are_refused() -> None:
    case = random_case("llama", model=small_model(kind="mixrec_base"))
    batch = collate(case.step, layout_of(case))
    with pytest.raises(ValueError, match="DAMoE"):
        least_operations(batch, case.backbone.config, case.model, Architecture.parse("000-000"), 9)

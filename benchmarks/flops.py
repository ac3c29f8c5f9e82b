"""The floating point operations that a training step of MixRec cannot do without, counted from the batch's shapes.

No benchmark by itself: `benchmarks/hardware_limit.py` divides by the time. A multiply-add is two operations. Counted
are matrix products alone: a frozen map has a forward pass and the gradient of its input, a trained one the gradient of
its weight besides. The count supposes what MixRec does to need less: the last layer at the read states only, the first
layer's Q, K and V once for each distinct word and backward for special tokens only, the frozen output map once for both
branches, causal attention without the hidden half.

Left out: all element-wise work, the optimiser, products of weights with weights, the similarities of L_cl, and the
backward pass of the first layer's attention, where only special tokens need one.

Legend: M tokens, Q read states, d hidden width, h = H * e width of the queries, g = G * e of the keys, f inner width of
the feed-forward, b bottleneck or rank, c collaborative width, I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from search_spaces.architecture import Architecture, LayerDesign, Placement
from trainers.config import ModelConfig
from trainers.data.batches import Batch
from trainers.data.rows import Rows

MULTIPLY_ADD = 2
FROZEN, TRAINED = 2, 3
"""Products of a map: forward, and the gradients of its input and, where it is trained, of its weight."""
ATTENTION, ATTENTION_BACKWARD = 2, 4
"""Products of attention: logits and mixture; in the backward pass those of values, shares, queries and keys."""


def least_operations(
    batch: Batch, body: LlamaConfig, model: ModelConfig, design: Architecture, num_items: int
) -> dict[str, int]:
    """Operations of forward and backward pass, by part.

    Args:
        body: of a Llama backbone with at least two layers, each one a DAMoE layer.

    Raises:
        ValueError: another network.
    """
    if model.kind != "mixrec" or not 2 <= len(design.layers) == body.num_hidden_layers:
        raise ValueError("counted are networks of two or more layers, all of them DAMoE layers")
    d, c = body.hidden_size, model.collaborative_dim
    count: Counter[str] = Counter()
    for rows in (batch.histories, batch.alignments):
        if rows is None:
            continue
        for number, layer in enumerate(design.layers):
            is_first, is_last = number == 0, number == len(design.layers) - 1
            _add_layer(count, rows, body, model, layer, is_first=is_first, is_last=is_last)
        columns = len(rows.column_items) + len(rows.column_users)
        count["collaborative"] += TRAINED * columns * c * d
    states = len(batch.targets) + len(batch.align_terms)
    count["item projection"] += TRAINED * states * d * num_items
    if model.collaborative_model == "ncf" and batch.collaborative_negatives.numel():
        terms = len(batch.collaborative_users) + batch.collaborative_negatives.numel()
        count["collaborative"] += TRAINED * terms * (c * c // 2 + c)
    return {part: MULTIPLY_ADD * products for part, products in count.items()}


def _add_layer(
    count: Counter[str],
    rows: Rows,
    body: LlamaConfig,
    model: ModelConfig,
    design: LayerDesign,
    *,
    is_first: bool,
    is_last: bool,
) -> None:
    """Add one layer's multiply-adds."""
    d, f, b = body.hidden_size, body.intermediate_size, model.bottleneck
    h, g = body.num_attention_heads * body.head_dim, body.num_key_value_heads * body.head_dim
    tokens = len(rows.tokens)
    states = len(rows.readouts) if is_last else tokens
    columns = len(rows.column_items) + len(rows.column_users)
    if is_first:
        count["frozen maps"] += (len(rows.vocabulary) + FROZEN) * d * (h + 2 * g)
    else:
        count["frozen maps"] += FROZEN * d * (states * h + tokens * 2 * g)
    count["frozen maps"] += FROZEN * states * (h * d + 3 * d * f)
    count["collaborative"] += FROZEN * columns * d * 2 * g
    products = ATTENTION if is_first else ATTENTION + ATTENTION_BACKWARD
    count["attention"] += products * h * attended_pairs(rows, readouts_only=is_last)
    experts = ((model.causal_expert, design.causal_expert), (model.context_expert, design.context_expert))
    for kind, placement in experts:
        count["adapters"] += TRAINED * states * 2 * h  # the gate
        if kind in ("ia3", "none"):
            continue
        reads_input = kind == "bottleneck" and placement is Placement.PARALLEL
        # A parallel expert of the first layer reads frozen embeddings: no gradient goes there.
        down = TRAINED - 1 if is_first and reads_input else TRAINED
        count["adapters"] += states * b * (down * (d if reads_input else h) + TRAINED * d)
    last = {"bottleneck": 2 * d, "lora": f + d, "ia3": 0, "none": 0}[model.recommendation_adapter]
    count["adapters"] += TRAINED * states * b * last


def attended_pairs(rows: Rows, *, readouts_only: bool) -> int:
    """Queries times the keys that each sees, in both branches."""
    if readouts_only:
        causal = int((rows.positions[rows.readouts] + 1).sum())
        context = rows.context_readouts
    else:
        causal = int((rows.positions + 1).sum())
        context = rows.context
    return causal + sum(found.segments * found.queries * (found.keys + found.columns) for found in context.buckets)


def operations_run(step: Callable[[], object]) -> dict[str, int]:
    """Operations of attention and of all other matrix products that PyTorch sees while `step` runs.

    Its counter does not know products that are added in place and the CPU's blockwise attention, so they are told to
    it: the latter without the hidden half of a causal one, which it skips but for blocks on the diagonal, and without
    the logits that its backward pass computes again.
    """
    aten: Any = torch.ops.aten
    blockwise, backward = (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    )
    told = {aten.addmm_: _added, getattr(aten, blockwise): _blockwise, getattr(aten, backward): _blockwise_backward}
    with FlopCounterMode(display=False, custom_mapping=told) as counter:
        step()
    by_name = {
        str(name).removeprefix("aten."): int(count) for name, count in counter.get_flop_counts()["Global"].items()
    }
    attention = sum(count for name, count in by_name.items() if name in ("bmm", "baddbmm", blockwise, backward))
    return {"attention": attention, "other": sum(by_name.values()) - attention}


Shape = tuple[int, ...]


def _added(_: Shape, left: Shape, right: Shape, **_rest: Any) -> int:
    return MULTIPLY_ADD * left[0] * left[1] * right[1]


def _blockwise(
    queries: Shape, keys: Shape, _: Shape, _dropout: float = 0.0, is_causal: bool = False, **_rest: Any
) -> int:
    """[N, H, q, e] queries and [N, G, k, e] keys"""
    segments, heads, length, size = queries
    pairs = length * (length + 1) // 2 if is_causal else length * keys[2]
    return MULTIPLY_ADD * ATTENTION * segments * heads * size * pairs


def _blockwise_backward(
    _: Shape,
    queries: Shape,
    keys: Shape,
    values: Shape,
    _output: Shape,
    _logarithms: Shape,
    _dropout: float,
    is_causal: bool,
    **_rest: Any,
) -> int:
    return _blockwise(queries, keys, values, 0.0, is_causal) * ATTENTION_BACKWARD // ATTENTION

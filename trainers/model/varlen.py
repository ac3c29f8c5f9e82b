"""Attention over all segments at once on a GPU: torch's variable-length flash attention.

A GPU would spend its time on starting one kernel for each bucket; this starts one for all of them.

Legend: N segments, H query heads, G key-value heads, e head size.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen

EVERYTHING, UP_TO_ITSELF = (-1, -1), (-1, 0)
GROUPED: dict[str, Any] = (
    {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters else {}
)
"""The kernel has always taken fewer key-value heads than query heads; later torch (not yet 2.11) wants it said."""


def is_usable(queries: Tensor) -> bool:
    """Whether the kernel takes such queries: half precision on CUDA."""
    return queries.is_cuda and queries.dtype in (torch.bfloat16, torch.float16)


def attend(
    queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor], *, scale: float, is_causal: bool
) -> Tensor:
    """Attention inside each segment.

    Args:
        queries: [N, q, H, e] of each bucket of segments of one shape.
        keys, values: [N, k, G, e] of each bucket.

    Returns:
        [sum of N * q, H, e], bucket after bucket.
    """
    at_queries, at_keys = (_cumulative(buckets) for buckets in (queries, keys))
    window = UP_TO_ITSELF if is_causal else EVERYTHING
    flat_queries, flat_keys, flat_values = (
        torch.cat([bucket.flatten(0, 1) for bucket in buckets]) for buckets in (queries, keys, values)
    )
    most_queries, most_keys = (max(bucket.shape[1] for bucket in buckets) for buckets in (queries, keys))
    mixed = varlen.varlen_attn(
        flat_queries,
        flat_keys,
        flat_values,
        at_queries,
        at_keys,
        most_queries,
        most_keys,
        scale=scale,
        window_size=window,
        **GROUPED,
    )
    assert isinstance(mixed, Tensor)  # a tuple comes back only where it is asked for
    return mixed


def _cumulative(buckets: Sequence[Tensor]) -> Tensor:
    """[1 + all N] int32, where each segment begins and the last one ends."""
    lengths = [bucket.shape[1] for bucket in buckets for _ in range(len(bucket))]
    ends = list(itertools.accumulate(lengths, initial=0))
    return torch.tensor(ends, dtype=torch.int32, device=buckets[0].device)

"""Where tensors live and in which precision: the one place that knows about CPU and CUDA.

Tested on a pretended GPU (`tests/pretend_gpu.py`), which knows devices but neither bfloat16 nor CUDA's kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

from trainers.config import Precision

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def pick_device() -> torch.device:
    """This process's GPU if there is one, else the CPU. Under a launcher `LOCAL_RANK` picks the GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32: the item projection
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Matrix products in bfloat16 where that is asked for. `auto` asks for it on CUDA alone: on a CPU without units
    for bfloat16, float32 is both exact and faster."""
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, and take it in large pages. For one that trains, and no other.

    Each step allocates and frees the same large tensors. glibc gives such blocks back to the system and gets them anew,
    page by page: a tenth of a step, and a heap with holes. A call changes the process for good; other C libraries are
    left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first large allocation
    libc = ctypes.CDLL(None)
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 1 << 26)):
        libc.mallopt(option, value)


def move(value: T, device: torch.device) -> T:
    """A frozen dataclass with every tensor in it, nested ones too, on `device`; the value itself on the CPU."""
    if device.type == "cpu":
        return value
    moved = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, torch.Tensor):
            part = part.pin_memory().to(device, non_blocking=True)
        elif is_dataclass(part) and not isinstance(part, type):
            part = move(part, device)
        moved[field.name] = part
    return replace(value, **moved)


def rank_and_workers() -> tuple[int, int]:
    """(rank, number of workers) of the process group, or (0, 1) outside one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def wait_for_all() -> None:
    """Until every worker has come here; at once outside a process group."""
    if rank_and_workers()[1] > 1:
        dist.barrier()


def agree(going: bool) -> bool:
    """Rank 0's decision, on every rank."""
    if rank_and_workers()[1] == 1:
        return going
    decision = torch.tensor([going], dtype=torch.int32, device=pick_device())
    dist.broadcast(decision, src=0)
    return bool(decision.item())

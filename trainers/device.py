"""Where tensors live and in which precision: the one place that knows about CPU and CUDA.

Untested on CUDA: no GPU was at hand when this was written.
"""

from __future__ import annotations

import contextlib
import os

import torch
import torch.distributed as dist


def pick_device() -> torch.device:
    """This process's GPU if there is one, else the CPU. Under a launcher `LOCAL_RANK` picks the GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 on CUDA, nothing on a CPU: there float32 is both exact and faster."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def rank_and_workers() -> tuple[int, int]:
    """(rank, number of workers) of the process group, or (0, 1) outside one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1

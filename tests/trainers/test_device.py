"""Which precision is used where, and what a training process does with its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from trainers.config import Precision
from trainers.device import autocast, pick_device

STEPS = """
import resource, sys, torch
from trainers.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    return (torch.ones(1 << 23) + 1).sum()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("precision", "dtype"), [("auto", None), ("float32", None), ("bfloat16", torch.bfloat16)])
def test_products_of_a_cpu_are_exact_unless_told(precision: Precision, dtype: torch.dtype | None) -> None:
    one = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (one @ one).dtype == (dtype or torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_the_cpu() -> None:
    assert pick_device() == torch.device("cpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_kept_memory_is_not_fetched_again() -> None:
    """Ten steps of two tensors of 32 MB each are 160,000 page faults where the system has no large pages at hand."""

    def faults(mode: str) -> int:
        ran = subprocess.run([sys.executable, "-c", STEPS, mode], capture_output=True, text=True, check=True)
        return int(ran.stdout)

    assert faults("keep") < min(20_000, faults("plain")), "they are fetched once, which is 16,384 pages"

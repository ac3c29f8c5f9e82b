"""The comparison of implementations fails where they differ, and sees the memory that a step takes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.training_speed import largest_difference


def report(**values: float) -> list[dict[str, Any]]:
    return [{"tokens": [10], "runs": [{"values": values}]}]


def test_the_largest_difference_is_relative() -> None:
    reports = {"ours": report(seq=8.0, norm=2.0), "padded": report(seq=8.0004, norm=2.0)}
    assert largest_difference(reports) == pytest.approx(5e-5)


@pytest.mark.parametrize("other", [{"seq": 8.1}, {"seq": float("nan")}, {"align": 8.0}, {}])
def test_implementations_that_differ_are_no_comparison(other: dict[str, float]) -> None:
    with pytest.raises(SystemExit, match="literal"):
        largest_difference({"ours": report(seq=8.0), "literal": report(**other)})


SINCE_THE_RESET = """
from pathlib import Path
import numpy as np
from benchmarks.training_speed import resident
np.ones(1 << 25)  # 256 MB, given back at once
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
print(resident("VmHWM") - before)
np.ones(1 << 24)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_the_peak_is_that_since_the_reset() -> None:
    """In a process of its own: the allocator of one that has run other tests may take memory that is there already."""
    ran = subprocess.run([sys.executable, "-c", SINCE_THE_RESET], capture_output=True, text=True, check=True)
    at_reset, with_more = map(int, ran.stdout.split())
    assert at_reset < 1 << 26 < with_more < 1 << 28

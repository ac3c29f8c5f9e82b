"""The comparison of implementations fails where they differ, and sees the memory that a step takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.training_speed import largest_difference, resident


def report(**values: float) -> list[dict[str, Any]]:
    return [{"tokens": [10], "runs": [{"values": values}]}]


def test_the_largest_difference_is_relative() -> None:
    reports = {"ours": report(seq=8.0, norm=2.0), "padded": report(seq=8.0004, norm=2.0)}
    assert largest_difference(reports) == pytest.approx(5e-5)


@pytest.mark.parametrize("other", [{"seq": 8.1}, {"seq": float("nan")}, {"align": 8.0}, {}])
def test_implementations_that_differ_are_no_comparison(other: dict[str, float]) -> None:
    with pytest.raises(SystemExit, match="literal"):
        largest_difference({"ours": report(seq=8.0), "literal": report(**other)})


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_the_peak_is_that_since_the_reset() -> None:
    np.ones(1 << 25)  # 256 MB, given back at once
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    assert resident("VmHWM") - before < 1 << 26
    np.ones(1 << 24)
    assert 1 << 26 < resident("VmHWM") - before < 1 << 28

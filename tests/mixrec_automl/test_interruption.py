"""Signals become a request, then an exception."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixrec_automl.interruption import raise_on_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_work_that_may_be_cut_off_is_interrupted_at_once(number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        asking = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), raise_on_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is asking
        assert not stop.is_set()


ON_A_TERMINAL = """
import signal, sys, time
from mixrec_automl.interruption import stop_on_signals

with stop_on_signals() as stop:
    print("ready", flush=True)
    asked = stop.wait(20)
    print("it has gone on to write", flush=True)
open(sys.argv[1], "w").write(f"{asked}")
"""


def test_a_lost_terminal_stops_it_in_order(tmp_path: Path) -> None:
    """Whatever is printed afterwards goes nowhere, and ends nothing."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", ON_A_TERMINAL, str(tmp_path / "told")]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as it:
        os.close(theirs)
        while b"ready" not in os.read(ours, 1000):
            pass
        os.close(ours)
        it.send_signal(signal.SIGHUP)
        it.wait(20)
    assert (tmp_path / "told").read_text() == "True"


def test_under_nohup_it_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)

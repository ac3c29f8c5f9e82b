"""Signals become a request, then an exception."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixrec_automl.interruption import StopRequest, raise_on_signals, stop_on_signals


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


AT_LINE = """
import os, signal, sys, time
from mixrec_automl.interruption import stop_on_signals

line, lines, told = int(sys.argv[1]), 0, None

def trace(frame, event, _):
    global lines, told
    lines += event == "line"
    if event == "line" and lines == line:
        told = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
    return trace

with stop_on_signals() as stop:
    sys.settrace(trace)
    was_asked = stop.wait(2)
    sys.settrace(None)
    if told is None:
        print("none")
    else:
        waited = time.monotonic() - told
        print("heard" if stop.is_set() and stop.wait() and waited < 1 else f"asked: {was_asked} after {waited} s")
"""


def test_a_signal_is_heard_at_each_line_of_the_wait_that_it_interrupts() -> None:
    """The wait of `threading.Event` holds a lock in some of them that its `set` waits for."""
    found, line = [], 1
    while not found or found[-1] != "none":
        command = [sys.executable, "-c", AT_LINE, str(line)]
        found.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip())
        line += 1
    assert len(found) > 2
    assert set(found[:-1]) == {"heard"}


def test_a_request_wakes_all_who_wait() -> None:
    stop = StopRequest()
    assert not stop.wait(0.01)
    with ThreadPoolExecutor(3) as threads:
        waits = [threads.submit(stop.wait, 20) for _ in range(3)]
        stop.set()
        assert [wait.result(10) for wait in waits] == [True] * 3
    assert stop.wait()


ON_A_TERMINAL = """
import signal, sys, time
from mixrec_automl.interruption import stop_on_signals

with stop_on_signals() as stop:
    print("ready", flush=True)
    asked = stop.wait(40)
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
        try:
            it.wait(60)
        finally:
            it.kill()
    assert (tmp_path / "told").read_text() == "True"


def test_under_nohup_it_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)

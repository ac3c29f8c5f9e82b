"""Signals become a request, then an exception."""

from __future__ import annotations

import os
import signal

import pytest

from mixrec_automl.interruption import raise_on_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_may_be_cut_off_is_interrupted_at_once(number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        asking = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), raise_on_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is asking
        assert not stop.is_set()

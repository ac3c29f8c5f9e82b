"""Ctrl-C, SIGTERM and a lost terminal as a request that the program grants when it can."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from trainers.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """What `threading.Event` is, but `set` may be called by a signal handler.

    Event's takes a lock, which the thread that the signal interrupts holds for moments of its `wait`: the handler would
    wait for it forever. This one is a lock that is free once the request is made, and `set` waits for nothing.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._closed = threading.Lock()
        self._closed.acquire()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._open()

    def wait(self, seconds: float | None = None) -> bool:
        """Return `is_set()`, once it is or after `seconds`."""
        if self._closed.acquire(timeout=-1 if seconds is None else seconds):
            self._open()  # for whoever else waits
        return self._is_set

    def _open(self) -> None:
        with suppress(RuntimeError):  # it is open
            self._closed.release()


def check_main_thread() -> None:
    """Raise UserError in any other thread, which no signal reaches."""
    if threading.current_thread() is not threading.main_thread():
        raise UserError("searches and promotions answer to signals, which the main thread alone gets: call it there")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the context the first signal sets the request and the second raises KeyboardInterrupt.

    For the main thread; the former handlers are put back at the end.
    """
    stop = StopRequest()

    def request() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with _handling(request):
        yield stop


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within the context a signal raises KeyboardInterrupt at once: for work that may be cut off anywhere."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextmanager
def _handling(handler: Callable[[], None]) -> Iterator[None]:
    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _write_nowhere()
        handler()

    # Under nohup a lost terminal is nothing to stop for.
    heard = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    former = {number: signal.signal(number, handle) for number in heard}
    try:
        yield
    finally:
        for number, old in former.items():
            signal.signal(number, old)


def _write_nowhere() -> None:
    """The terminal is gone: whoever wrote to it would be ended by an error before anything is recorded."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)

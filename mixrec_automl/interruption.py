"""Ctrl-C and SIGTERM as a request that the program grants when it can."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainers.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_main_thread() -> None:
    """Raise UserError in any other thread, which no signal reaches."""
    if threading.current_thread() is not threading.main_thread():
        raise UserError("searches and promotions answer to signals, which the main thread alone gets: call it there")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Within the context the first signal sets the event and the second raises KeyboardInterrupt.

    For the main thread; the former handlers are put back at the end.
    """
    stop = threading.Event()

    def request(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with _handling(request):
        yield stop


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within the context a signal raises KeyboardInterrupt at once: for work that may be cut off anywhere."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    former = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in former.items():
            signal.signal(number, old)

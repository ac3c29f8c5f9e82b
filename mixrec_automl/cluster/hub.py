"""The mailbox between workers and controller: a Ray actor that holds undelivered events and one flag, nothing else."""

from __future__ import annotations

import asyncio

from mixrec_automl.cluster.executor import Event


class Hub:
    """Keeps the order in which events came. Everything in it may be lost without loss of truth: that is the database's.

    Made an actor by `ray.remote(num_cpus=0)(Hub)`; its methods are coroutines, so a waiting `take` blocks no `post`.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._stopping = False

    async def post(self, event: Event) -> bool:
        """Put `event` last. Answers whether the trial that posts shall go on."""
        await self._events.put(event)
        return not self._stopping

    async def take(self, timeout: float) -> Event | None:
        """The oldest event, waiting up to `timeout` seconds; None where none came."""
        try:
            return await asyncio.wait_for(self._events.get(), timeout)
        except TimeoutError:
            return None

    async def stop(self) -> None:
        """From now on answer every post with "stop"."""
        self._stopping = True

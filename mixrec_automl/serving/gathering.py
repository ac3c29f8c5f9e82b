"""Requests that arrive while the model computes are read together in its next pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mixrec_automl.serving.messages import Answer, Asked, Refusal

MOST_TOGETHER = 32
"""Histories that are read in one pass"""


class Gatherer:
    """One pass at a time, in a thread, of all that wait by then; nobody waits for others to come. For one event loop.

    (Ray Serve's own batching takes requests out of its queue one by one while a pass is under way, so that each that
    comes alone stays alone.)

    Args:
        answer: gives an answer to each of several requests.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answer | Refusal]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Asked, asyncio.Future[Answer | Refusal]]] = []
        self._passes: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer | Refusal:
        """Raises what `answer` raises for this request alone."""
        future: asyncio.Future[Answer | Refusal] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._passes is None or self._passes.done():
            self._passes = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            # Whoever has gone meanwhile has cancelled its future.
            self._waiting = [one for one in self._waiting if not one[1].done()]
            chosen, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            if not chosen:
                continue
            await self._pass(chosen)

    async def _pass(self, chosen: list[tuple[Asked, asyncio.Future[Answer | Refusal]]]) -> None:
        try:
            answers = await asyncio.to_thread(self._answer, [asked for asked, _ in chosen])
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of a library in Rust is no Exception, and nobody must wait for ever
            if len(chosen) > 1:  # one of them may be to blame, and harms no other
                for one in chosen:
                    await self._pass([one])
            elif not chosen[0][1].done():
                is_usual = isinstance(error, Exception)
                chosen[0][1].set_exception(error if is_usual else RuntimeError(f"the pass ended: {error!r}"))
            return
        for (_, future), answer in zip(chosen, answers, strict=True):
            if not future.done():
                future.set_result(answer)

"""Requests are gathered while a pass is under way, and a failure harms no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from mixrec_automl.serving.gathering import MOST_TOGETHER, Gatherer
from mixrec_automl.serving.messages import Answer, Asked, Refusal


def asked(number: int) -> Asked:
    return Asked(history=[f"{number}"])


class Passes:
    """Answers each request with its own history, as a refusal; a pass waits until it is let through."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Semaphore(0)
        self.through = threading.Semaphore(0)

    def __call__(self, requests: Sequence[Asked]) -> list[Answer | Refusal]:
        self.begun.release()
        assert self.through.acquire(timeout=20)
        self.sizes.append(len(requests))
        told = [(request.history or [""])[0] for request in requests]
        if "13" in told:
            raise LookupError("13")
        return [Refusal(detail=one) for one in told]


def test_what_arrives_during_a_pass_is_read_together_in_the_next() -> None:
    passes = Passes()

    async def ask_all() -> list[Answer | Refusal]:
        gatherer = Gatherer(passes)
        first = asyncio.create_task(gatherer.ask(asked(0)))
        await asyncio.to_thread(passes.begun.acquire)
        others = []
        for number in range(1, 12):  # one after another, as clients come
            others.append(asyncio.create_task(gatherer.ask(asked(number))))
            await asyncio.sleep(0)
        passes.through.release(2)
        return list(await asyncio.gather(first, *others))

    answers = asyncio.run(ask_all())
    assert answers == [Refusal(detail=f"{number}") for number in range(12)]
    assert passes.sizes == [1, 11]


def test_a_pass_has_a_largest_size_and_skips_who_has_gone() -> None:
    passes = Passes()

    async def ask_all() -> list[Answer | Refusal]:
        gatherer = Gatherer(passes)
        first = asyncio.create_task(gatherer.ask(asked(0)))
        await asyncio.to_thread(passes.begun.acquire)
        others = [asyncio.create_task(gatherer.ask(asked(number))) for number in range(100, 100 + MOST_TOGETHER + 5)]
        await asyncio.sleep(0)
        others[3].cancel()
        passes.through.release(3)
        return list(await asyncio.gather(first, *others[:3], *others[4:]))

    assert len(asyncio.run(ask_all())) == MOST_TOGETHER + 5
    assert passes.sizes == [1, MOST_TOGETHER, 4]


def test_a_request_that_fails_fails_alone() -> None:
    passes = Passes()
    passes.through.release(100)

    async def ask_all() -> list[Answer | Refusal | BaseException]:
        gatherer = Gatherer(passes)
        return await asyncio.gather(*(gatherer.ask(asked(number)) for number in range(12, 15)), return_exceptions=True)

    first, second, third = asyncio.run(ask_all())
    assert (first, third) == (Refusal(detail="12"), Refusal(detail="14"))
    assert isinstance(second, LookupError)


def test_it_goes_on_after_it_was_idle() -> None:
    passes = Passes()
    passes.through.release(100)

    async def ask_twice() -> list[Answer | Refusal]:
        gatherer = Gatherer(passes)
        first = await gatherer.ask(asked(1))
        await asyncio.sleep(0.01)
        return [first, await gatherer.ask(asked(2))]

    assert asyncio.run(ask_twice()) == [Refusal(detail="1"), Refusal(detail="2")]


@pytest.mark.parametrize("text", ["\x1c", " \x1f\n", "\u00a0"])
def test_a_text_of_white_space_alone_reaches_no_pass(text: str) -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        Asked(texts=[text])


def test_what_is_no_exception_leaves_nobody_waiting() -> None:
    """As a panic of a library that is written in Rust."""

    class Panic(BaseException):
        pass

    def answer(requests: Sequence[Asked]) -> list[Answer | Refusal]:
        if any(request.history == ["13"] for request in requests):
            raise Panic
        return [Refusal(detail="fine") for _ in requests]

    async def ask_all() -> list[Answer | Refusal | BaseException]:
        gatherer = Gatherer(answer)
        asking = asyncio.gather(*(gatherer.ask(asked(number)) for number in (12, 13, 14)), return_exceptions=True)
        return list(await asyncio.wait_for(asking, 20))

    first, broken, last = asyncio.run(ask_all())
    assert first == last == Refusal(detail="fine")
    assert isinstance(broken, RuntimeError)

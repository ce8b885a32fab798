"""Waiting for what other processes bring about: a condition with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 120.0


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str = "the condition") -> T:
    """The first answer that is true, or anything but empty; `AssertionError` without one in time."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (answer := await ask()):  # noqa: ASYNC110 - another process sets no event of ours
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}") from None
    return answer

"""A read that fails is missing data with a reason, never a value (promise 8)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from app.errors import AgentError

T = TypeVar("T")


async def or_missing(
    answer: Awaitable[T], what: str, missing: list[str], tolerated: type[AgentError] = AgentError
) -> T | None:
    """The answer; None where reading failed with a `tolerated` error, whose reason is added to `missing`."""
    try:
        return await answer
    except tolerated as error:
        missing.append(f"{what}: {error}")
        return None

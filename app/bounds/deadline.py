"""The one way to bound work in time: an error of the product's own instead of `TimeoutError`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class deadline:  # noqa: N801 - used like a function
    """Cancel the block after `seconds` and raise `error()`; also where the block itself times out."""

    def __init__(self, seconds: float, error: Callable[[], Exception]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._error = error

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._error() from None
        if isinstance(error, TimeoutError):
            raise self._error() from None

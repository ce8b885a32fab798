"""The one way to bound work in time: an error of the product's own instead of `TimeoutError`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def deadline(seconds: float, error: Callable[[], Exception]) -> AsyncIterator[None]:
    """Cancel the block after `seconds` and raise `error()`; also where the block itself times out."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise error() from None

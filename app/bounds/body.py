"""The one reader of bodies from outside, never longer than a limit."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable


async def read_bounded(chunks: AsyncIterable[bytes], limit: int, too_long: Callable[[], Exception]) -> bytes:
    """The chunks as one body; raises `too_long()` once more than `limit` bytes arrived.

    Received bytes are counted: a declared length may be absent or wrong.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise too_long()
    return bytes(body)


async def read_start(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """The first `most` bytes of a body; what follows is not read."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) >= most:
            break
    return bytes(body[:most])

"""The connections of `heal run`: heads have a deadline and a bound, and the limit locks no client out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from app.api.connections import HEAD_BYTES, BoundedProtocol

PATIENCE_SECONDS = 60.0
REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


@asynccontextmanager
async def serving(*, most: int = 100, head_seconds: float = 600.0) -> AsyncIterator[int]:
    """A real server with the protocol of `heal run`; its port."""
    protocol = type("Small", (BoundedProtocol,), {"most": most, "head_seconds": head_seconds})
    config = uvicorn.Config(
        PlainTextResponse("here"), port=0, http=protocol, log_level="error", timeout_keep_alive=600, ws="none"
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


async def said(reader: asyncio.StreamReader) -> bytes:
    """What the server sends until it closes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def answer(port: int) -> bytes:
    """The first line of an answer to a whole request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    async with asyncio.timeout(PATIENCE_SECONDS):
        line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("begun", [b"", b"GET / HT", REQUEST[:-2]])
async def test_a_head_that_does_not_arrive_ends_the_connection(begun: bytes) -> None:
    """Neither silence nor a dripping head holds a connection for longer than the deadline."""
    async with serving(head_seconds=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        assert await said(reader) == b""
        writer.close()


async def test_a_second_head_has_the_same_deadline() -> None:
    """A connection that was answered once is no better than a new one."""
    async with serving(head_seconds=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + REQUEST[:10])
        assert (await said(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_endless_head_ends_the_connection() -> None:
    """A head is bounded in size, not only in time."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST[:-2] + b"X: " + b"x" * (HEAD_BYTES + 1))
        assert await said(reader) == b""
        writer.close()


async def test_at_the_limit_a_silent_client_makes_room() -> None:
    """A hundred silent connections keep neither a probe nor an operator out."""
    async with serving(most=10) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _ in range(5):
            assert (await answer(port)).startswith(b"HTTP/1.1 200")
        ended = [await said(reader) for reader, _ in silent[:80]]
        assert ended == [b""] * 80
        for _, writer in silent:
            writer.close()

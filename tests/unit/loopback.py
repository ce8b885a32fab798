"""A real HTTP server on the loopback interface with configured faults, for tests of the connectors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

Behaviour = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]
"""Answers one request by writing whatever it likes to the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass(slots=True, kw_only=True)
class Loopback:
    """The running server."""

    url: str = ""
    behaviour: Behaviour
    requests: list[Request] = field(default_factory=list)
    start: Callable[[int], Awaitable[asyncio.Server]]
    server: asyncio.Server

    async def stop_listening(self) -> None:
        """From now on connections are refused; those that are open live on."""
        self.server.close()

    async def listen_again(self) -> None:
        """At the same address; not while it listens."""
        self.server = await self.start(int(self.url.rpartition(":")[2]))


@asynccontextmanager
async def loopback(behaviour: Behaviour) -> AsyncIterator[Loopback]:
    """Serve until the block ends; connections that still hang then are dropped."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            while (request := await _read(reader)) is not None:
                served.requests.append(request)
                await served.behaviour(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            handlers.discard(task)
            writer.close()

    async def start(port: int) -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", port)

    served = Loopback(behaviour=behaviour, start=start, server=await start(0))
    served.url = f"http://127.0.0.1:{served.server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        served.server.close()
        pending = tuple(handlers)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await served.server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method=method, target=target, headers=headers, body=body)


def reply(status: int, body: bytes | str | object = b"", **headers: str) -> Behaviour:
    """Answer every request alike; anything but bytes and text is sent as JSON."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else _json(body)
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    answer = ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return behave


def raw(answer: bytes) -> Behaviour:
    """Write these bytes and hang up."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    return behave


async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time without end: no single read is slow, the whole is never there."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer without end, as fast as it is taken."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while True:
        writer.write(chunk)
        await writer.drain()


def _json(body: object) -> bytes:
    return json.dumps(body).encode()

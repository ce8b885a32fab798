"""One connection to the server's protocol in memory: bytes in, bytes out, and nothing of a network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import uvicorn
from uvicorn.server import ServerState

from app.api.connections import BoundedProtocol
from app.api.intake_door.door import DOOR
from tests.api.harness import Harness

PATIENCE_SECONDS = 60.0


class Wire(asyncio.Transport):
    """A connection over `protocol` to an application; made on its event loop."""

    def __init__(self, api: Harness, protocol: type[BoundedProtocol]) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50000)})
        config = uvicorn.Config(api.app, log_level="error", access_log=False, ws="none")
        self.state = ServerState()
        self.said = b""
        self.closed = False
        self._more = asyncio.Event()
        door: Any = api.app
        self.protocol = protocol(config, self.state, {DOOR: door.door})
        self.protocol.connection_made(self)

    async def send(self, pieces: Sequence[bytes | int], answers: int) -> bytes:
        """Everything that is answered to these pieces, up to so many answers or the end.

        A number among the pieces: the rest is sent once there are so many answers.
        """
        for piece in pieces:
            if isinstance(piece, int):
                await self._answered(piece)
            elif not self.closed:
                self.protocol.data_received(piece)
            await asyncio.sleep(0)
        await self._answered(answers)
        return self.said

    async def _answered(self, most: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.closed and len(_answers(self.said)) < most:
                await self._more.wait()
                self._more.clear()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """What the server sends."""
        self.said += bytes(data)
        self._more.set()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        """The server ends the connection."""
        if not self.closed:
            self.closed = True
            self._more.set()
            self.protocol.connection_lost(None)

    def abort(self) -> None:
        """The same at once."""
        self.close()

    def pause_reading(self) -> None:
        """What was sent is sent."""

    def resume_reading(self) -> None:
        """What was sent is sent."""


def _answers(said: bytes) -> list[httpx2.Response]:
    """The complete answers, each with a length."""
    found = []
    while b"\r\n\r\n" in said:
        head, _, rest = said.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers: list[tuple[bytes, bytes]] = []
        for line in lines:
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        length = int(dict(headers).get(b"content-length", b"0"))
        if len(rest) < length:
            break
        found.append(httpx2.Response(int(status.split()[1]), headers=headers, content=rest[:length]))
        said = rest[length:]
    return found


def request(path: str, body: bytes, headers: dict[str, str], *, version: str = "1.1") -> bytes:
    """A request as bytes; a host and the length are added where they are not given."""
    given = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + body


async def exchange(
    api: Harness, protocol: type[BoundedProtocol], pieces: Sequence[bytes | int], answers: int
) -> bytes:
    """What a new connection is answered to these pieces."""
    wire = Wire(api, protocol)
    try:
        return await wire.send(pieces, answers)
    finally:
        wire.close()


async def post(
    api: Harness, protocol: type[BoundedProtocol], path: str, body: bytes, headers: dict[str, str]
) -> httpx2.Response:
    """The answer to one request in one piece."""
    said = await exchange(api, protocol, [request(path, body, headers)], 1)
    return _answers(said)[0]

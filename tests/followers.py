"""Many clients of `/v1/changes` over real sockets, some of which read nothing."""

from __future__ import annotations

import asyncio
import resource
import socket
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import uvicorn

from app.agent.ids import IncidentId
from app.api.changes import MOST_CLIENTS, MOST_IDS, ChangeFeed
from app.api.connections import BoundedProtocol
from app.bootstrap import Adapters, assemble
from app.clock import SystemClock
from app.main import create_app
from app.store import open_store
from tests.api.harness import make_settings
from tests.api.stories import opened
from tests.contract.eventually import eventually

_SLOW_SECONDS = 1.0
_SMALL_BUFFER = 4096
"""Of the kernel, so that a client that reads nothing is noticed after some 100 kB."""
_AT_ONCE = 25
"""Clients that connect before the next ones do."""
_ASK = b"GET /v1/changes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class _Impatient(BoundedProtocol):
    """The connections of `heal run`, with less patience."""

    most = 2 * MOST_CLIENTS
    stalled_seconds = 2 * _SLOW_SECONDS


@dataclass(slots=True, kw_only=True)
class Follower:
    """A client that reads everything."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: bytearray = field(default_factory=bytearray)
    ended: bool = False

    async def follow(self) -> None:
        while part := await self.reader.read(65_536):
            self.heard += part
        self.ended = True

    def knows(self, incident_id: str) -> bool:
        return incident_id.encode() in self.heard


async def follow(folder: Path, *, reading: int, silent: int) -> None:
    """Connect all, report changes until the silent ones are gone, and look at what the others received.

    Every round waits until each reading client has the event of the round, so that none of them
    is ever behind, however slow the machine is.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    settings = make_settings(folder)  # as many connections as by default
    store = await open_store(settings.database_url.get_secret_value())
    container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
    app = create_app(settings)
    app.state.container = container
    feed = ChangeFeed(most=reading + silent, every=0.05, slow=_SLOW_SECONDS)
    app.state.changes = feed
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
        listening.bind(("127.0.0.1", 0))
        listening.listen(reading + silent + 16)
        config = uvicorn.Config(app, lifespan="off", log_level="critical", http=_Impatient)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        address = listening.getsockname()
        followers: list[Follower] = []
        tasks: list[asyncio.Task[None]] = []
        mute: list[socket.socket] = []

        async def connected() -> bool:
            return feed.clients == len(followers) + len(mute)

        for _ in range(reading):
            followers.append(await _reading(address))
            tasks.append(asyncio.create_task(followers[-1].follow()))
            if len(followers) % _AT_ONCE == 0:
                await eventually(connected)
        for _ in range(silent):
            mute.append(_silent(address))
            await eventually(connected)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}", trust_env=False) as client:
            refused = await client.get("/v1/changes")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            number = 0
            while feed.clients > reading:
                number += 1
                await _round(feed, followers, number)
                assert number < 100_000, "the silent clients are still connected"
            assert (await client.get("/healthz")).status_code == 200
        assert number > 1

        async def closed() -> bool:
            return len(server.server_state.connections) <= reading + 1

        await eventually(closed, "the connections of the silent clients are closed")
        assert not [one for one in followers if one.ended], "a client that reads was disconnected"
        incident_id = await opened(container)
        await _all_know(followers, incident_id)
        followers.append(await _reading(address))
        tasks.append(asyncio.create_task(followers[-1].follow()))
        gone, mute = mute, []
        await eventually(connected)
        app.state.stop.request()
        server.should_exit = True
        await serving
        await asyncio.gather(*tasks)
        assert all(one.ended for one in followers), "a stop ends every stream"
        assert feed.clients == 0
        for each in gone:
            each.close()
    await container.close()


async def _reading(address: tuple[str, int]) -> Follower:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(_ASK)
    return Follower(reader=reader, writer=writer)


def _silent(address: tuple[str, int]) -> socket.socket:
    """Asks, and never reads the answer."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    one.connect(address)
    one.sendall(_ASK)
    return one


async def _round(feed: ChangeFeed, followers: list[Follower], number: int) -> None:
    """An event as long as there is, and every reading client has it."""
    ids = {IncidentId(f"inc_{number:028x}{one:04x}") for one in range(MOST_IDS)}
    feed.notify(ids)
    await _all_know(followers, f"inc_{number:028x}{0:04x}")
    for one in followers:
        one.heard.clear()


async def _all_know(followers: list[Follower], incident_id: str) -> None:
    async def known() -> bool:
        return all(one.knows(incident_id) or one.ended for one in followers)

    await eventually(known)
    assert not [one for one in followers if one.ended], "a client that reads was disconnected"

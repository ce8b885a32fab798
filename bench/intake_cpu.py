"""CPU time of the agent for each event of intake, without sockets: one process, a real database.

Requests go through the protocol of `heal run`, or with `--asgi` through that of uvicorn alone.

`python -m bench.intake_cpu` prints one line for each shape of load, on SQLite, or with
`--postgresql` on a server of its own, whose time is not counted. Processor time depends
less on what else the machine does than rates do. Compare two checkouts in turn, with
`--rounds` and the least of each. `--profile FILE` writes the profiles of the event loop and of
SQLite's writer under single events instead; with `--postgresql` there is the event loop alone.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy.engine import make_url

from testbed.postgres import postgres_server
from testbed.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
SERVICES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape of load."""

    name: str
    entries: int
    connections: int
    requests: int
    breaching: float = 0.0


SHAPES = (
    Shape(name="single events, 32 connections", entries=1, connections=32, requests=1000),
    Shape(name="bodies of 100, 4 connections", entries=100, connections=4, requests=40),
    Shape(name="single events, 1 % breaching", entries=1, connections=32, requests=1000, breaching=0.01),
    Shape(name="single events, 10 % breaching", entries=1, connections=32, requests=1000, breaching=0.1),
)


def bodies(shape: Shape, number: int) -> Iterator[bytes]:
    """Bodies like those of `bench/intake.lua`; a breaching sample reports a crash loop."""
    started, sent = time.time() - 600, 0
    for _ in range(shape.requests):
        events = []
        for _ in range(shape.entries):
            sent += 1
            at = time.gmtime(started + sent // 1_000_000)
            event: dict[str, Any] = {
                "service": f"service-{number}-{sent % SERVICES}",
                "environment": "prod",
                "error_rate": 0.01,
                "p95_latency_ms": 100 + sent % 50,
                "timestamp": f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{sent % 1_000_000:06d}Z",
            }
            if shape.breaching and sent % round(1 / shape.breaching) == 0:
                event["crash_looping"] = True
            events.append(event)
        yield json.dumps(events if shape.entries > 1 else events[0]).encode()


HEAD = (
    "POST /events/metric HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
)


class Sender(asyncio.Transport):
    """One connection to the protocol of `heal run`, without a socket."""

    def __init__(self, protocol: type[Any], config: Any, state: Any, lifespan: dict[str, Any]) -> None:
        super().__init__({"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50000)})
        self._answered: asyncio.Future[bytes] | None = None
        self._closed = False
        self._protocol = protocol(config, state, lifespan)
        self._protocol.connection_made(self)

    async def post(self, body: bytes) -> None:
        """Send one delivery in one piece, and wait for its answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._protocol.data_received(HEAD.format(len(body)).encode() + body)
        answer = await self._answered
        if not answer.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(f"the agent answered {answer[:40]!r}")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """The answer, or its first part."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(bytes(data))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """There is no socket."""
        if not self._closed:
            self._closed = True
            self._protocol.connection_lost(None)

    def pause_reading(self) -> None:
        """One request at a time."""

    def resume_reading(self) -> None:
        """One request at a time."""


async def _load(connect: Callable[[], Sender], shape: Shape, number: int) -> float:
    """Processor microseconds for each event."""
    waiting = iter(list(bodies(shape, number)))

    senders = [connect() for _ in range(shape.connections)]

    async def connection(sender: Sender) -> None:
        for body in waiting:
            await sender.post(body)

    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(connection(sender))
    for sender in senders:
        sender.close()
    return (time.process_time() - began) / (shape.requests * shape.entries) * 1e6


async def _run(profile: Path | None, rounds: int, *, asgi: bool) -> None:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    from app.api.intake_door.door import DOOR
    from app.api.intake_door.protocol import door_protocol
    from app.bootstrap import Adapters, assemble
    from app.clock import SystemClock
    from app.config import load_settings
    from app.main import create_app
    from app.store import open_store, store_over
    from app.store.database.sqlite import open_sqlite

    settings = load_settings()
    url = settings.database_url.get_secret_value()
    database = await open_sqlite(make_url(url)) if url.startswith("sqlite") else None
    """None on PostgreSQL, where there is no thread of a writer."""
    store = await open_store(url) if database is None else store_over(database, narrow_samples=True)
    container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
    app: Any = create_app(settings)
    app.state.container = container
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    protocol = HttpToolsProtocol if asgi else door_protocol(settings.max_connections)
    connect = partial(Sender, protocol, config, ServerState(), {DOOR: app.door})
    if profile is None:
        for number, shape in enumerate(SHAPES):
            found = sorted([await _load(connect, shape, number) for _ in range(rounds)])
            median = found[len(found) // 2]
            print(f"{shape.name}: {found[0]:,.0f} us at least, {median:,.0f} us median", flush=True)
    else:
        await _load(connect, SHAPES[0], 0)
        loop, writer = (cProfile.Profile(time.thread_time) for _ in range(2))
        if database is not None:
            await database.write(lambda _: writer.enable())  # a unit of work runs on the writer's thread
        loop.enable()
        await _load(connect, SHAPES[0], 0)  # of services on record, as most samples are
        loop.disable()
        if database is not None:
            await database.write(lambda _: writer.disable())
        with profile.open("w") as out:
            for name, profiler in (("event loop", loop), ("writer", writer))[: 1 if database is None else 2]:
                out.write(f"{SHAPES[0].requests} {SHAPES[0].name}: the thread of the {name}\n")
                pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(25)
    await container.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--profile", type=Path)
    arguments.add_argument("--rounds", type=int, default=1, help="the same services again in each")
    arguments.add_argument("--postgresql", action="store_true", help="on a PostgreSQL server, not on SQLite")
    arguments.add_argument("--asgi", action="store_true", help="through the protocol of uvicorn alone")
    given = arguments.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        url = f"sqlite:///{folder}/bench.db"
        if given.postgresql:
            supervisor = Supervisor()
            stack.callback(supervisor.close)
            url = stack.enter_context(postgres_server(supervisor)).url()
        os.environ |= {"DATABASE_URL": url, "RUNBOOKS_DIR": str(ROOT / "runbooks"), "LOG_LEVEL": "warning"}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(given.profile, given.rounds, asgi=given.asgi))


if __name__ == "__main__":
    main()

"""The cost of thousands of incidents that await approval, and the delay from an answer to the action.

`python -m bench.waiting`: a PostgreSQL with fsync on, two real workers, 10,000
incidents in AWAITING_APPROVAL. It prints figures and asserts nothing: they depend on
the machine. Bounded in counts and time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url

from app.agent.identity.people import Person
from app.agent.ports.store import Store
from app.store import store_over
from app.store.database.postgresql import PostgresDatabase, open_postgresql
from bench.processes import Start, cpu_seconds, family_cpu_seconds, memory_mib, percentile
from bench.rest import Waiting, fill
from testbed.postgres import PostgresServer, postgres_server
from testbed.supervisor import Process, Supervisor

EXPIRES_IN = timedelta(hours=4)
SETTLE_SECONDS = 10
_ANSWERER = Person(name="bench")
PATIENCE_SECONDS = 60.0
TAKE_OVERS = 5
WORKERS = 2

_TELL = """
CREATE FUNCTION bench_tell() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('bench_intents', NEW.incident_id); RETURN NULL; END $$;
CREATE TRIGGER bench_tells AFTER INSERT ON intents FOR EACH ROW EXECUTE FUNCTION bench_tell();
"""
"""Says when the first row that a worker writes for an answered incident is committed."""


@dataclass(kw_only=True)
class Ground:
    """A database with workers over it."""

    server: PostgresServer
    url: str
    database: PostgresDatabase
    start: Start
    workers: dict[str, Process] = field(default_factory=dict)
    """By the name under which they hold claims."""

    @property
    def store(self) -> Store:
        return store_over(self.database)

    async def add_worker(self) -> None:
        known = await self._owners()
        process = self.start.worker(f"worker-{len(known)}-{time.monotonic_ns()}")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (new := await self._owners() - known):
            process.check()
            if time.monotonic() > deadline:
                raise TimeoutError("a worker did not come up")
            await asyncio.sleep(0.05)
        self.workers[new.pop()] = process

    async def _owners(self) -> set[str]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            rows = await (await connection.execute("SELECT owner FROM workers")).fetchall()
        return {str(owner) for (owner,) in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Shares of one core, and memory, while nothing happens."""

    worker_cores: float
    postgres_cores: float
    worker_mib: float


async def idle(ground: Ground, seconds: float) -> Idle:
    """Averages over the workers; PostgreSQL's share is for all of them together."""
    pids = [process.pid for process in ground.workers.values()]
    postgres = ground.server.pid or 0
    before, began = (sum(map(cpu_seconds, pids)), family_cpu_seconds(postgres)), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return Idle(
        worker_cores=(sum(map(cpu_seconds, pids)) - before[0]) / took / len(pids),
        postgres_cores=(family_cpu_seconds(postgres) - before[1]) / took,
        worker_mib=sum(map(memory_mib, pids)) / len(pids),
    )


class Ear:
    """Hears of the first intent of each incident."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection
        self._heard: dict[str, asyncio.Future[float]] = {}

    async def listen(self) -> None:
        await self._connection.execute("LISTEN bench_intents")
        async for told in self._connection.notifies():
            future = self._heard.pop(told.payload, None)
            if future is not None:
                future.set_result(time.monotonic())

    def expect(self, one: Waiting) -> asyncio.Future[float]:
        return self._heard.setdefault(one.incident, asyncio.get_running_loop().create_future())


async def answered(ground: Ground, ear: Ear, one: Waiting) -> float:
    """Seconds from the answer's commit to a worker's first write."""
    acted = ear.expect(one)
    await ground.store.approvals.answer(
        one.approval, approve=True, by=Person(name="bench"), comment="", at=datetime.now(UTC)
    )
    committed = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await acted - committed


async def taken_over(ground: Ground, ear: Ear, one: Waiting) -> float:
    """Seconds from the kill of a worker that held an answered incident to the other's first write."""
    owner, process = ground.workers.popitem()
    held = await ground.store.claims.take(one.incident, owner, timedelta(hours=1), datetime.now(UTC))
    if held is None:
        raise RuntimeError(f"{one.incident} is held by somebody")
    acted = ear.expect(one)
    await ground.store.approvals.answer(
        one.approval, approve=True, by=Person(name="bench"), comment="", at=datetime.now(UTC)
    )
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        seconds = await acted - killed
    process.stop()
    await ground.add_worker()
    return seconds


async def measure(ground: Ground, count: int, answers: int, seconds: float) -> Table:
    for _ in range(WORKERS):
        await ground.add_worker()
    await asyncio.sleep(SETTLE_SECONDS)
    empty = await idle(ground, seconds)
    began = time.monotonic()
    waiting = await fill(ground.database, count, EXPIRES_IN)
    print(f"{count:,} incidents wait after {time.monotonic() - began:.0f} s", flush=True)
    await asyncio.sleep(SETTLE_SECONDS)
    full = await idle(ground, seconds)
    ground.server.execute(_TELL, str(make_url(ground.url).database))
    chosen = random.sample(waiting, answers + TAKE_OVERS)
    async with await psycopg.AsyncConnection.connect(ground.url, autocommit=True) as connection:
        ear = Ear(connection)
        listening = asyncio.create_task(ear.listen())
        await asyncio.sleep(1)
        waits = [await answered(ground, ear, one) for one in chosen[:answers]]
        overs = [await taken_over(ground, ear, one) for one in chosen[answers:]]
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return _table(count, (empty, full), waits, overs)


def _table(count: int, idles: tuple[Idle, Idle], waits: list[float], overs: list[float]) -> Table:
    table = Table(title=f"{WORKERS} workers on PostgreSQL, with nothing and with {count:,} incidents waiting")
    for column in ("", "0 waiting", f"{count:,} waiting", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    empty, full = idles
    for name, one, other in (
        ("idle CPU of a worker, of a core", empty.worker_cores, full.worker_cores),
        ("idle CPU of PostgreSQL, of a core", empty.postgres_cores, full.postgres_cores),
    ):
        table.add_row(name, f"{one:.2%}", f"{other:.2%}", f"{other / one:.2f}" if one else "")
    table.add_row(
        "memory of a worker",
        f"{empty.worker_mib:.1f} MiB",
        f"{full.worker_mib:.1f} MiB",
        f"{full.worker_mib / empty.worker_mib:.2f}",
    )
    table.add_row(
        f"answer to a worker's first write, {len(waits)} answers",
        "",
        f"p50 {percentile(waits, 0.5) * 1000:.0f} ms, p99 {percentile(waits, 0.99) * 1000:.0f} ms",
        "",
    )
    table.add_row(
        f"kill -9 to the other's first write, {len(overs)} kills",
        "",
        f"median {percentile(overs, 0.5):.2f} s, longest {max(overs):.2f} s",
        "",
    )
    return table


async def _run(server: PostgresServer, supervisor: Supervisor, given: argparse.Namespace) -> Table:
    url = server.url(server.create())
    database = await open_postgresql(make_url(url))
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            settings = {
                "DATABASE_URL": url,
                "DRY_RUN": "false",
                "APPROVAL_FOR_RISKS": "low",
                "LOG_LEVEL": "warning",
            }
            start = Start(supervisor=supervisor, folder=Path(folder), settings=settings)
            ground = Ground(server=server, url=url, database=database, start=start)
            try:
                return await measure(ground, given.waiting, given.answers, given.seconds)
            finally:
                for process in ground.workers.values():
                    process.stop(grace_seconds=10)
    finally:
        await database.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long idleness is watched")
    given = parser.parse_args()
    supervisor = Supervisor()
    try:
        with postgres_server(supervisor) as server:
            Console(width=120).print(asyncio.run(_run(server, supervisor, given)))
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compares the driver over the claims table with DBOS, which it replaced: one machine, one run.

`python -m bench.engines` installs DBOS into an environment of its own under
`build/`, and pairs the two over the same PostgreSQL with fsync on, the same trivial
incidents (`bench.engine_worker`) and the same measurements in turn. It prints
figures and ratios for ADR 10 and asserts nothing. Bounded in counts and time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
from rich.console import Console
from rich.table import Table

from app.agent.ids import ServiceKey, SignalId
from app.agent.intake import IntakeRules
from app.agent.models import (
    Deploy,
    DeployStatus,
    Signal,
    SignalKind,
)
from app.agent.ports.store import Store
from app.agent.slo import SloThresholds
from app.store import open_store
from bench.engine_worker import HANGING, RESTING
from bench.processes import ROOT, cpu_seconds, family_cpu_seconds, memory_mib, percentile
from testbed.postgres import PostgresServer, postgres_server
from testbed.supervisor import Process, Supervisor

PEER = "dbos==3.4.*"
PATIENCE_SECONDS = 900.0
TAKE_OVERS = 5
ROUNDS = 3
"""Throughput is measured in turn, so many times each."""
AT_ONCE = 100
"""Incidents opened in one transaction."""

_RULES = IntakeRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(minutes=1),
        reopen_after=timedelta(hours=1),
    )
)


@dataclass(kw_only=True)
class Engine:
    """One of the two, over a database of its own."""

    name: str
    python: Path
    server: PostgresServer
    supervisor: Supervisor
    folder: Path
    store: Store
    url: str
    workers: dict[str, Process] = field(default_factory=dict)
    _handing_over: asyncio.subprocess.Process | None = None

    async def scale(self, count: int) -> None:
        """Have so many workers, all of them ready."""
        while len(self.workers) > count:
            _, process = self.workers.popitem()
            process.stop(grace_seconds=5)
        started: dict[str, Process] = {}
        while len(self.workers) < count:
            owner = f"{self.name}-{uuid4().hex[:8]}"
            command = [str(self.python), "-m", "bench.engine_worker", self.name, self.url, owner]
            process = self.supervisor.start(
                owner, command, log=self.folder / f"{owner}.log", env={"PYTHONPATH": str(ROOT)}
            )
            self.workers[owner] = started[owner] = process
        table = "SELECT owner FROM workers" if self.name == "driver" else "SELECT name FROM bench_executors"
        for owner, process in started.items():
            await self.until(f"{owner} to work", lambda t=table, o=owner: self._named(t, o), process)  # type: ignore[misc]  # bound at once

    async def open(self, services: Sequence[str]) -> list[float]:
        """Open one incident for each service and hand it to the engine; when each was handed over."""
        opened: list[str] = []
        times: list[float] = []
        for at in range(0, len(services), AT_ONCE):
            some = [_signal(service) for service in services[at : at + AT_ONCE]]
            accepted = await self.store.signals.accept(some, _RULES, dry_run=True)
            times += [time.time()] * len(some)
            opened += [str(each.disposition.incident_id) for each in accepted]
        return times if self.name == "driver" else [await self._hand_over(each) for each in opened]

    async def until(
        self, what: str, holds: Callable[[], Awaitable[bool]], process: Process | None = None
    ) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await holds():
            if process is not None:
                process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"timed out waiting for {what}")
            await asyncio.sleep(0.1)

    async def rows(self, statement: str) -> list[tuple[object, ...]]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            return await (await connection.execute(statement.encode())).fetchall()

    async def close(self) -> None:
        await self.scale(0)
        if self._handing_over is not None:
            self._handing_over.kill()
            await self._handing_over.wait()
        await self.store.close()

    async def _hand_over(self, incident: str) -> float:
        if self._handing_over is None:
            self._handing_over = await asyncio.create_subprocess_exec(
                *(self.python, "-m", "bench.engine_worker", "enqueue", self.url, ""),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
        stdin, stdout = self._handing_over.stdin, self._handing_over.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("a process without pipes")
        stdin.write(f"{incident}\n".encode())
        return float(await stdout.readline())

    async def _named(self, statement: str, owner: str) -> bool:
        with suppress(psycopg.errors.UndefinedTable):
            return (owner,) in await self.rows(statement)
        return False


# ------------------------------------------------------------------ what is measured


async def throughput(engine: Engine, workers: int, count: int) -> float:
    """Incidents per second, from the first one's first step to the last one's end; all wait at the start."""
    await engine.scale(0)
    mark = f"rate-{uuid4().hex[:8]}-"
    await engine.open([f"{mark}{n}" for n in range(count)])
    await engine.scale(workers)
    closed = f"SELECT count(*) FROM incidents WHERE service LIKE '{mark}%' AND closed_at IS NOT NULL"  # noqa: S608 - names of ours
    await engine.until("the incidents to end", lambda: _is(engine, closed, count))
    [(began, ended)] = await engine.rows(
        "SELECT extract(epoch FROM min(t.at)), extract(epoch FROM max(t.at)) FROM timeline t"  # noqa: S608 - as above
        f" JOIN incidents i ON i.id = t.incident_id WHERE i.service LIKE '{mark}%' AND t.message LIKE 'step%'"
    )
    return count / (float(str(ended)) - float(str(began)))


async def wakes(engine: Engine, count: int) -> list[float]:
    """Seconds from when an incident was handed over to an idle engine until its first step began."""
    await engine.scale(1)
    waits = []
    for number in range(count):
        service = f"wake-{number}"
        [handed_over] = await engine.open([service])
        waits.append(await _step_at(engine, service, 0) - handed_over)
    return waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """One worker over incidents that rest."""

    count: int
    worker_cores: float
    postgres_cores: float
    mib: float


async def resting(engine: Engine, count: int, already: int, seconds: float) -> Rest:
    await engine.scale(1)
    await engine.open([f"{RESTING}{n}" for n in range(already, count)])
    rested = f"SELECT count(*) FROM timeline WHERE message = 'step 0' AND incident_id IN (SELECT id FROM incidents WHERE service LIKE '{RESTING}%')"  # noqa: E501, S608 - names of ours
    await engine.until("the incidents to rest", lambda: _is(engine, rested, count))
    await asyncio.sleep(seconds / 3)
    [worker] = engine.workers.values()
    postgres = engine.server.pid or 0
    before, began = (cpu_seconds(worker.pid), family_cpu_seconds(postgres)), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return Rest(
        count=count,
        worker_cores=(cpu_seconds(worker.pid) - before[0]) / took,
        postgres_cores=(family_cpu_seconds(postgres) - before[1]) / took,
        mib=memory_mib(worker.pid),
    )


async def take_over(engine: Engine, number: int) -> float:
    """Seconds from kill -9 of the worker that works on an incident to the next step by another one."""
    await engine.scale(2)
    service = f"{HANGING}{number}"
    await engine.open([service])
    await _step_at(engine, service, 0)
    [(owner,)] = await engine.rows(
        f"SELECT c.owner FROM claims c JOIN incidents i ON i.id = c.incident_id WHERE i.service = '{service}'"  # noqa: S608 - names of ours
    )
    process = engine.workers.pop(str(owner))
    os.kill(process.pid, signal.SIGKILL)
    killed = time.time()
    seconds = await _step_at(engine, service, 1) - killed
    process.stop()
    return seconds


async def _step_at(engine: Engine, service: str, step: int) -> float:
    found: list[float] = []

    async def there() -> bool:
        rows = await engine.rows(
            "SELECT extract(epoch FROM t.at) FROM timeline t JOIN incidents i ON i.id = t.incident_id"  # noqa: S608 - names of ours
            f" WHERE i.service = '{service}' AND t.message = 'step {step}'"
        )
        found.extend(float(str(row[0])) for row in rows)
        return bool(found)

    await engine.until(f"step {step} of {service}", there)
    return found[0]


async def _is(engine: Engine, statement: str, count: int) -> bool:
    return await engine.rows(statement) == [(count,)]


def _signal(service: str) -> Signal:
    now = datetime.now(UTC)
    identifier = uuid4().hex
    return Signal(
        id=SignalId(f"sig_{identifier}"),
        kind=SignalKind.DEPLOY,
        key=ServiceKey(environment="bench", service=service),
        source="http",
        observed_at=now,
        received_at=now,
        dedup_key=identifier,
        stale=False,
        payload=Deploy(version="1.15.0", status=DeployStatus.FAILED, commit_sha="d1e2f3a"),
    )


# ------------------------------------------------------------------ the comparison


@dataclass(kw_only=True)
class Figures:
    rates: dict[int, list[float]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    overs: list[float] = field(default_factory=list)


async def compare(engines: Sequence[Engine], given: argparse.Namespace) -> list[Figures]:
    """Each measurement of one engine, then of the other; only one of them has workers at a time."""
    figures = [Figures() for _ in engines]
    for workers in (1, 4):
        for _ in range(ROUNDS):
            for engine, found in zip(engines, figures, strict=True):
                rate = await throughput(engine, workers, given.incidents)
                found.rates.setdefault(workers, []).append(rate)
                _say(engine, f"{rate:.0f} incidents/s with {workers} workers")
                await engine.scale(0)
    for engine, found in zip(engines, figures, strict=True):
        found.waits = await wakes(engine, given.wakes)
        _say(engine, f"wake to start {percentile(found.waits, 0.5) * 1000:.0f} ms")
        await engine.scale(0)
    for engine, found in zip(engines, figures, strict=True):
        found.overs = [await take_over(engine, number) for number in range(TAKE_OVERS)]
        _say(engine, f"take-over {found.overs}")
        await engine.scale(0)
    for engine, found in zip(engines, figures, strict=True):
        already = 0
        for count in (0, *given.resting):
            found.rests.append(await resting(engine, count, already, given.seconds))
            already = count
            _say(engine, str(found.rests[-1]))
        await engine.scale(0)
    return figures


def table(names: Sequence[str], figures: Sequence[Figures]) -> Table:
    shown = Table(title="The same trivial incidents on PostgreSQL, one paired run")
    for column in ("", *names, f"{names[0]} / {names[1]}"):
        shown.add_column(column, justify="left" if not column else "right")

    def row(what: str, values: list[float], form: str, scale: float = 1.0) -> None:
        ratio = f"{values[0] / values[1]:.2f}" if values[1] else ""
        shown.add_row(what, *(form.format(value * scale) for value in values), ratio)

    for workers in figures[0].rates:
        row(
            f"incidents/s, {workers} workers, median",
            [percentile(f.rates[workers], 0.5) for f in figures],
            "{:.0f}",
        )
    for share in (0.5, 0.99):
        row(
            f"wake to start, p{share * 100:.0f}",
            [percentile(f.waits, share) for f in figures],
            "{:.0f} ms",
            1000,
        )
    row("kill -9 to the next step, median", [percentile(f.overs, 0.5) for f in figures], "{:.2f} s")
    row("kill -9 to the next step, longest", [max(f.overs) for f in figures], "{:.2f} s")
    for number, rest in enumerate(figures[0].rests):
        rests = [f.rests[number] for f in figures]
        row(f"worker's CPU, {rest.count:,} resting", [r.worker_cores for r in rests], "{:.2%}")
        row(f"PostgreSQL's CPU, {rest.count:,} resting", [r.postgres_cores for r in rests], "{:.2%}")
        row(f"worker's memory, {rest.count:,} resting", [r.mib for r in rests], "{:.0f} MiB")
    last = [f.rests[-1] for f in figures]
    row(
        "memory for each resting incident",
        [
            (f.rests[-1].mib - f.rests[0].mib) * 1024 / max(1, r.count)
            for f, r in zip(figures, last, strict=True)
        ],
        "{:.1f} KiB",
    )
    return shown


def _say(engine: Engine, what: str) -> None:
    print(f"{engine.name}: {what}", flush=True)


def peer_python() -> Path:
    """A Python with DBOS, and with the product's own dependencies behind it."""
    home = ROOT / "build" / "bench" / "dbos"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = home / "lib" / version / "site-packages" / "zz_agent.pth"
    path.write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


async def _run(server: PostgresServer, supervisor: Supervisor, given: argparse.Namespace) -> Table:
    pythons = {"driver": Path(sys.executable), "dbos": peer_python()}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        engines = []
        for name, python in pythons.items():
            database = server.create()
            url = server.url(database)
            server.execute("CREATE TABLE bench_executors (name text PRIMARY KEY)", database)
            store = await open_store(url)
            engine = Engine(
                name=name,
                python=python,
                server=server,
                supervisor=supervisor,
                folder=Path(folder),
                store=store,
                url=url,
            )
            engines.append(engine)
        try:
            return table(list(pythons), await compare(engines, given))
        finally:
            for engine in engines:
                await engine.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--incidents", type=int, default=300)
    parser.add_argument("--wakes", type=int, default=100)
    parser.add_argument("--resting", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long idleness is watched")
    given = parser.parse_args()
    supervisor = Supervisor()
    try:
        with postgres_server(supervisor) as server:
            Console(width=110).print(asyncio.run(_run(server, supervisor, given)))
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

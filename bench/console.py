"""How fast the console reads a year of history: `python -m bench.console [--incidents N] [--entries N]`.

One command: it starts a PostgreSQL of its own, fills it (`bench.console_history`), counts the
days as the sweep does, starts the product's API on it, and measures pages and API over HTTP,
one request at a time. Then every page is read again with `auto_explain`, and each plan of a
statement that scans a large table from end to end is a finding. It prints JSON or a Markdown table,
exits with 1 where a target is missed or a plan scans a table, and removes what it made.

One million incidents with 20 entries each take about 20 GB in `--folder` while it runs. Loading
takes much longer than measuring: `--keep FOLDER` only loads, and keeps the database in FOLDER with
its server stopped; `--reuse FOLDER` measures what was kept there, as often as needed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import httpx2
from sqlalchemy import text

from bench.console_database import (
    SERVING,
    Loaded,
    NotLoadedError,
    bring_up_to_date,
    fill,
    gigabytes,
    loaded_in,
    server_of,
)
from bench.console_history import ACTIVE, Size, engine_of
from bench.console_plans import LOGGED, Plan, plans_of
from bench.processes import family_cpu_seconds, percentile
from bench.serving import PATIENCE_SECONDS, Server, start_server
from testbed import TestbedError
from testbed.postgres import PostgresServer
from testbed.supervisor import Supervisor

INCIDENTS = 1_000_000
ENTRIES = 20
ROUNDS = 100
SLOW_ROUNDS = 12
"""Of requests that may take longer: statistics."""
PAGE_MS = 100.0
YEAR_MS = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Requests of one kind, and how long they may take."""

    name: str
    paths: Sequence[str]
    limit_ms: float | None
    """Of the 95th percentile; None: no target is set."""
    rounds: int = ROUNDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Times of one kind of request, in milliseconds."""

    name: str
    requests: int
    p50_ms: float
    p95_ms: float
    longest_ms: float
    cpu_ms: float
    """Processor time of server and PostgreSQL for each request; a busy machine hardly changes it."""
    limit_ms: float | None

    @property
    def met(self) -> bool:
        return self.limit_ms is None or self.p95_ms < self.limit_ms


@dataclass(slots=True, kw_only=True)
class Result:
    """What one run found."""

    incidents: int
    entries: int
    load_seconds: float = 0.0
    count_days_seconds: float = 0.0
    database_gb: float = 0.0
    measured: list[Measured] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)

    @property
    def scans(self) -> list[Plan]:
        return [plan for plan in self.plans if plan.scanned]

    @property
    def failures(self) -> list[str]:
        slow = [
            f"{one.name}: p95 {one.p95_ms:.0f} ms, limit {one.limit_ms:.0f} ms"
            for one in self.measured
            if one.limit_ms is not None and not one.met
        ]
        return slow + [f"sequential scan of {', '.join(plan.scanned)}: {plan.query}" for plan in self.scans]


def readings(ids: Sequence[str]) -> list[Reading]:
    """Everything that is asked: the targets of the console, and what has none."""

    def stats(**where: str) -> str:
        return "/dashboard/analytics?" + urlencode({"since": "365d", **where})

    year = [stats(), "/v1/stats?since=365d"]
    filtered = [
        stats(environment="prod"),
        stats(severity="critical"),
        stats(cause="bad_release"),
        stats(service="service-7"),
        stats(environment="prod", severity="critical"),
        stats(interval="day"),
        "/v1/stats.csv?since=365d",
    ]
    searches = ["/dashboard?q=rollback", "/dashboard?q=service-7+bad+release", f"/dashboard?q={ids[0]}"]
    return [
        Reading(name="board", paths=["/dashboard"], limit_ms=PAGE_MS),
        Reading(
            name="board, filtered",
            paths=[
                "/dashboard?service=service-7",
                "/dashboard?environment=staging",
                "/dashboard?state=escalated",
                "/dashboard?since=7d",
                "/dashboard?since=365d&until=300d&state=recovered",
                "/dashboard?service=service-7&environment=prod&state=proposed",
            ],
            limit_ms=PAGE_MS,
        ),
        Reading(name="board, later pages", paths=_pages(ids), limit_ms=PAGE_MS),
        Reading(name="board, text search", paths=searches, limit_ms=PAGE_MS),
        Reading(
            name="board, a text that no incident has", paths=["/dashboard?q=xyzzy"], limit_ms=None, rounds=5
        ),
        Reading(name="incident page", paths=[f"/dashboard/incidents/{one}" for one in ids], limit_ms=PAGE_MS),
        Reading(
            name="chart of an incident", paths=[f"/v1/incidents/{one}/chart" for one in ids], limit_ms=PAGE_MS
        ),
        Reading(name="incident, API", paths=[f"/v1/incidents/{one}" for one in ids], limit_ms=PAGE_MS),
        Reading(name="approvals", paths=["/dashboard/approvals"], limit_ms=None),
        Reading(name="operations", paths=["/dashboard/operations"], limit_ms=None),
        Reading(name="services", paths=["/dashboard/services"], limit_ms=None),
        Reading(name="service", paths=["/dashboard/services/prod/service-7"], limit_ms=None),
        Reading(name="analytics, a year", paths=year, limit_ms=YEAR_MS, rounds=SLOW_ROUNDS),
        Reading(
            name="analytics, a year, filtered", paths=filtered, limit_ms=YEAR_MS, rounds=3 * len(filtered)
        ),
        Reading(
            name="analytics, 30 days", paths=["/dashboard/analytics"], limit_ms=YEAR_MS, rounds=SLOW_ROUNDS
        ),
    ]


def _pages(ids: Sequence[str]) -> list[str]:
    return [f"/dashboard?cursor={one}" for one in ids]


def measure(client: httpx2.Client, reading: Reading, pids: Sequence[int], effort: float) -> Measured:
    """One request at a time, each path in turn, after some that warm up."""
    times: list[float] = []
    busy = 0.0
    rounds = max(2, round(reading.rounds * effort))
    for number in range(-min(5, len(reading.paths)), rounds):
        path = reading.paths[number % len(reading.paths)]
        if number == 0:
            busy = sum(map(family_cpu_seconds, pids))
        begun = time.perf_counter()
        answer = client.get(path)
        took = (time.perf_counter() - begun) * 1000
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}: {answer.text[:500]}")
        if number >= 0:
            times.append(took)
    return Measured(
        name=reading.name,
        requests=len(times),
        p50_ms=round(percentile(times, 0.5), 1),
        p95_ms=round(percentile(times, 0.95), 1),
        longest_ms=round(max(times), 1),
        cpu_ms=round((sum(map(family_cpu_seconds, pids)) - busy) * 1000 / len(times), 1),
        limit_ms=reading.limit_ms,
    )


def touch_each_day(url: str) -> None:
    """One incident of each day changes, so that the whole year is stale."""
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE incidents SET worked = NOT coalesce(worked, false) WHERE id IN (SELECT"
                " (SELECT id FROM incidents WHERE opened_at >= day ORDER BY opened_at LIMIT 1)"
                " FROM generate_series(CAST(:since AS timestamptz), CAST(:until AS timestamptz),"
                " interval '1 day') AS day)"
            ),
            {"since": datetime.now(UTC).replace(year=datetime.now(UTC).year - 1), "until": datetime.now(UTC)},
        )
    engine.dispose()


@contextmanager
def served(supervisor: Supervisor, folder: Path, url: str, name: str) -> Iterator[tuple[httpx2.Client, int]]:
    """A client of the product's API on this database, and the id of its process; nothing else runs."""
    program = [sys.executable, "-c", "from app.cli import main; main()", "run", "--role", "api"]
    settings = {"DATABASE_URL": url, "HOST": "127.0.0.1", "LOG_LEVEL": "warning"}
    server: Server = start_server(supervisor, folder, program, settings, name)
    with httpx2.Client(base_url=server.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client, server.process.pid
    server.process.stop(grace_seconds=5)


def run(folder: Path, loaded: Loaded, effort: float) -> Result:
    """Measure and explain what was loaded in this folder."""
    result = Result(
        incidents=loaded.incidents,
        entries=loaded.incidents * loaded.entries,
        load_seconds=loaded.load_seconds,
        count_days_seconds=loaded.count_days_seconds,
    )
    supervisor = Supervisor()
    try:
        serving = server_of(supervisor, folder, SERVING)
        serving.start()
        url = serving.url(loaded.database)
        bring_up_to_date(url)
        result.database_gb = gigabytes(url)
        say(f"{result.incidents} incidents, {result.entries} entries, {result.database_gb} GB")
        asked = readings(loaded.ids)
        with served(supervisor, folder, url, "api") as (client, pid):
            for reading in asked:
                result.measured.append(measure(client, reading, [pid, _pid(serving)], effort))
                say(str(result.measured[-1]))
        serving.stop()
        result.plans = _explained(supervisor, folder, loaded, asked)
        serving.start()
        touch_each_day(url)
        stale = replace(asked[-3], name="analytics, a year of stale days")
        with served(supervisor, folder, url, "stale") as (client, pid):
            result.measured.append(measure(client, stale, [pid, _pid(serving)], effort))
            say(str(result.measured[-1]))
        serving.stop()
    finally:
        supervisor.close()
    return result


def _explained(supervisor: Supervisor, folder: Path, loaded: Loaded, asked: Sequence[Reading]) -> list[Plan]:
    """The plans of every statement, from a server that logs them."""
    explaining = server_of(supervisor, folder, {**SERVING, **LOGGED})
    log = explaining.directory / "log"
    before = log.stat().st_size
    explaining.start()
    with served(supervisor, folder, explaining.url(loaded.database), "explained") as (client, _):
        for reading in asked:
            for path in reading.paths[:12]:
                client.get(path)
        with client.stream("GET", "/v1/changes") as events:
            next(iter(events.iter_raw()))
            time.sleep(3)  # the look at what changed is a statement too
    explaining.stop()
    return plans_of(log, since=before)


def _pid(server: PostgresServer) -> int:
    if server.pid is None:
        raise TestbedError("PostgreSQL is not running")
    return server.pid


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def as_markdown(result: Result) -> str:
    """The figures as a table, the plans as another, and what failed."""
    lines = [
        f"{result.incidents:,} incidents, {result.entries:,} timeline entries, {result.database_gb} GB;"
        f" loaded in {result.load_seconds:.0f} s, days counted in {result.count_days_seconds:.0f} s.",
        "",
        "| request | requests | p50 | p95 | longest | processor time | limit of p95 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in result.measured:
        limit = "none" if one.limit_ms is None else f"{one.limit_ms:.0f} ms{'' if one.met else ' (missed)'}"
        lines.append(
            f"| {one.name} | {one.requests} | {one.p50_ms:.0f} ms | {one.p95_ms:.0f} ms"
            f" | {one.longest_ms:.0f} ms | {one.cpu_ms:.0f} ms | {limit} |"
        )
    lines += ["", "| statement | times | access |", "|---|---|---|"]
    lines += [f"| `{plan.query[:110]}` | {plan.times} | {', '.join(plan.access)} |" for plan in result.plans]
    lines += ["", *(f"FAILED: {each}" for each in result.failures or ["nothing"])]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every target is met and no plan scans a large table from end to end."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--incidents", type=int, default=INCIDENTS)
    parser.add_argument("--entries", type=int, default=ENTRIES, help="timeline entries of each incident")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the usual number of requests")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path, help="where the figures and plans are written as JSON")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="load into this new folder, measure nothing"
    )
    kept.add_argument("--reuse", type=Path, metavar="FOLDER", help="measure what --keep loaded into it")
    given = parser.parse_args(arguments)
    if given.incidents < 10 * ACTIVE:
        parser.error(f"--incidents must be at least {10 * ACTIVE}")
    size = Size(incidents=given.incidents, entries=given.entries, until=datetime.now(UTC))
    if given.keep is not None:
        try:
            given.keep.mkdir()
        except OSError as error:
            parser.error(f"--keep needs a folder that does not exist yet: {error}")
        given.keep.chmod(0o755)
        fill(given.keep, size, say)
        say(f"loaded; measure with: python -m bench.console --reuse {given.keep}")
        return 0
    if given.reuse is not None:
        try:
            result = run(given.reuse, loaded_in(given.reuse), given.effort)
        except NotLoadedError as error:
            parser.error(str(error))
    else:
        folder = Path(tempfile.mkdtemp(prefix="heal-console-", dir=given.folder))
        folder.chmod(0o755)  # PostgreSQL runs as an account of its own under root
        try:
            result = run(folder, fill(folder, size, say), given.effort)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    document: Mapping[str, object] = {**asdict(result), "failures": result.failures}
    if given.json is not None:
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    print(as_markdown(result))
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())

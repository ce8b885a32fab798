"""An upgrade with incidents in flight: the version before and the present one side by side.

On PostgreSQL processes of both versions work on one database while the present one
migrates it; on SQLite one stops and the other goes on with its file. The cluster is
the counting stand-in: it counts how often each intent took effect (promise 2).

Two cases, some two minutes each.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.agent.audit.accounting import AuditQuestion, SignalAudit
from app.agent.ids import SignalId
from app.agent.models import DispositionKind
from app.store import open_store
from app.store.database import locks
from testbed import TestbedError
from testbed.ports import free_ports
from testbed.postgres import THROWAWAY, postgres_server
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for
from tests.e2e.previous_version import Version, lend, present_version, previous_version
from tests.soak.accounts import engine_of, install_claim_log
from tests.soak.processes import SHORT

pytestmark = pytest.mark.real

PATIENCE_SECONDS = 300.0
SERVICES = 16
SETTINGS = {
    **SHORT,
    "APPROVAL_FOR_RISKS": "high",
    "INCIDENT_SETTLE_SECONDS": "20",
    "VERIFY_SOAK_SECONDS": "20",
    "VERIFY_TIMEOUT_SECONDS": "600",
    "VERIFY_MAX_SAMPLE_AGE_SECONDS": "30",
    "CLAIM_LEASE_SECONDS": "1200",
    "PROMETHEUS_POLL_SECONDS": "1",
}

ANSWER = """
import asyncio, sys
from datetime import UTC, datetime
from app.store import open_store

try:
    from app.agent.identity.people import Person
except ImportError:  # one module in older versions
    from app.agent.identity import Person
ann = Person(name="ann")

async def answer():
    store = await open_store(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    approvals = getattr(store, "approvals", store)  # one object with every method, in older versions
    await approvals.answer(sys.argv[2], approve=True, by=ann, comment="", at=datetime.now(UTC))
    await store.close()

asyncio.run(answer())
"""
"""Run by the version before, which does not migrate the database for it."""


@dataclass(kw_only=True)
class Stage:
    """A database, the stand-in, and processes of two versions."""

    supervisor: Supervisor
    folder: Path
    database_url: str
    old: Version
    new: Version
    target_port: int = field(default_factory=lambda: free_ports(1)[0])
    posted: list[str] = field(default_factory=list)
    """Ids of accepted signals."""
    running: list[Process] = field(default_factory=list)
    """What was started and not stopped: none of them may end while something is waited for."""

    # -------------------------------------------------------------- processes

    def start_target(self) -> None:
        options = (
            "--port",
            str(self.target_port),
            "--log",
            str(self.target_log),
            "--services",
            str(SERVICES),
        )
        calm = ("--slowest", "0.1", "--lost", "0", "--refused", "0")
        command = self.new.command("tests.soak.target", *options, *calm)
        self.running.append(
            self.supervisor.start(
                "target", command, log=self.folder / "target.out", env=self.new.environment()
            )
        )
        self.wait("the stand-in to answer", lambda: self._answers("/services"))

    def start(self, name: str, version: Version, *arguments: str, **extra: str) -> Process:
        """The product itself over the stand-in."""
        return self._start(name, version, "tests.e2e.patient_agent", arguments, extra)

    def start_pausing(
        self, name: str, version: Version, point: str, *arguments: str, **extra: str
    ) -> Process:
        """As `start`, but its first incident stops at a point, and stays there."""
        pauses = self.folder / name
        pauses.mkdir()
        lent = {"PAUSE_AT": point, "PAUSE_FOLDER": str(pauses), **extra}
        return self._start(name, version, "tests.e2e.pausing_worker", arguments, lent)

    def _start(
        self, name: str, version: Version, module: str, arguments: tuple[str, ...], extra: Mapping[str, str]
    ) -> Process:
        owners = self.folder / "owners"
        owners.mkdir(exist_ok=True)
        environment = {
            **version.environment(),
            **SETTINGS,
            "DATABASE_URL": self.database_url,
            "RUNBOOKS_DIR": str(version.tree / "runbooks"),
            "SOAK_TARGET": f"http://127.0.0.1:{self.target_port}",
            "SOAK_OWNERS": str(owners),
            **extra,
        }
        command = version.command(module, *arguments)
        process = self.supervisor.start(name, command, log=self.folder / f"{name}.log", env=environment)
        self.running.append(process)
        return process

    def stop(self, process: Process, grace_seconds: float = 0.0) -> None:
        """End a process that is no longer needed; `TestbedError` if it has ended by itself."""
        process.check()
        self.running.remove(process)
        process.stop(grace_seconds)

    def owners_of(self, *processes: Process) -> set[str]:
        pids = {str(process.pid) for process in processes}
        return {file.name for file in (self.folder / "owners").iterdir() if file.read_text() in pids}

    def at_work(self, process: Process) -> bool | NotYet:
        """Whether its peers see it."""
        seen = {str(owner) for (owner,) in self.rows("SELECT owner FROM workers")}
        return True if seen & self.owners_of(process) else NotYet(f"{process.name} is not seen")

    def paused(self, name: str) -> bool | NotYet:
        return True if (self.folder / name / "reached").exists() else NotYet("it has not paused")

    # -------------------------------------------------------------- the world outside

    def damage(self, number: int) -> None:
        """A bad release of a service; taking it back heals."""
        body = {"service": f"svc-{number:03d}", "breakage": "crash", "number": 7}
        httpx2.post(f"http://127.0.0.1:{self.target_port}/damage", json=body).raise_for_status()

    def effects(self) -> Counter[str]:
        """How often each intent took effect, as the stand-in counted it."""
        if not self.target_log.exists():
            return Counter()
        lines = [json.loads(line) for line in self.target_log.read_text().splitlines()]
        return Counter(line["intent"] for line in lines if line["kind"] == "effect")

    def post(self, port: int, path: str, **event: Any) -> None:
        """Accepted at once, or the test fails: no sender has to repeat anything during an upgrade."""
        body = {"environment": "prod", "timestamp": datetime.now(UTC).isoformat(), **event}
        answer = httpx2.post(f"http://127.0.0.1:{port}{path}", json=body, timeout=120)
        assert answer.status_code == 202, answer.text
        self.posted.append(answer.json()["signal_id"])

    def tell_failed(self, port: int, number: int) -> None:
        self.post(port, "/events/deploy", service=f"svc-{number:03d}", version="7", status="failed")

    def tell_well(self, port: int, number: int) -> None:
        """Worth nothing."""
        self.post(port, "/events/metric", service=f"other-{number}", error_rate=0.0)

    # -------------------------------------------------------------- the database

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with engine_of(self.database_url).connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def schema(self) -> str:
        [(found,)] = self.rows("SELECT version_num FROM alembic_version")
        return str(found)

    def states(self) -> dict[str, str]:
        """The state of each service's newest incident; an intent under way goes before it."""
        found = {
            str(service): str(state)
            for service, state in self.rows("SELECT service, state FROM incidents ORDER BY opened_at")
        }
        for (service,) in self.rows(
            "SELECT incidents.service FROM incidents JOIN intents ON intents.incident_id = incidents.id"
            " WHERE intents.state = 'executing'"
        ):
            found[service] = "executing"
        return found

    def pending_approvals(self) -> dict[str, str]:
        """The request that waits for an answer, by service."""
        rows = self.rows(
            "SELECT incidents.service, approvals.id FROM approvals"
            " JOIN incidents ON incidents.id = approvals.incident_id WHERE approvals.state = 'pending'"
        )
        return {str(service): str(approval) for service, approval in rows}

    def approve_as_old(self, number: int) -> None:
        with self.about_to_approve_as_old(number) as say_yes:
            say_yes()

    @contextmanager
    def about_to_approve_as_old(self, number: int) -> Iterator[Callable[[], None]]:
        """A person with a terminal of the old version; what is given says yes."""
        arguments = (self.database_url, self.pending_approvals()[f"svc-{number:03d}"])
        command = [str(self.old.python), "-P", "-c", ANSWER, *arguments]
        environment = {**os.environ, **self.old.environment()}
        with subprocess.Popen(
            command,
            cwd=self.old.tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as person:
            assert person.stdout is not None
            assert person.stdout.readline() == "ready\n"
            yield lambda: self._say_yes(person)

    @staticmethod
    def _say_yes(person: subprocess.Popen[str]) -> None:
        person.communicate("yes\n", timeout=PATIENCE_SECONDS)
        assert person.returncode == 0

    def approve_all(self, port: int) -> None:
        for approval in self.pending_approvals().values():
            body = {"decision": "approve", "by": "ann"}
            answer = httpx2.post(f"http://127.0.0.1:{port}/approvals/{approval}", json=body, timeout=120)
            assert answer.status_code in (200, 409), answer.text  # a symptom that went away makes it void

    @contextmanager
    def migrations_held_up(self) -> Iterator[None]:
        """Other processes that migrate or open a store wait meanwhile, as behind a slow peer."""
        slot = zlib.crc32(b"migrations") % locks.SLOTS
        with engine_of(self.database_url).connect() as connection:
            connection.execute(text(f"SELECT pg_advisory_lock({int(locks.Space.SCHEMA)}, {slot})"))
            yield

    def somebody_waits_to_migrate(self) -> bool | NotYet:
        waiting = self.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return True if waiting else NotYet("no process waits")

    def wait(self, what: str, holds: Callable[[], bool | NotYet]) -> None:
        """Until it holds; fails at once, with the end of its log, when a process has ended."""

        def still() -> bool | NotYet:
            answer = holds()
            if isinstance(answer, NotYet):
                for process in self.running:
                    process.check()
            return answer

        wait_for(what, still, timeout_seconds=PATIENCE_SECONDS, interval_seconds=0.1)

    def wait_for_states(self, **wanted: str) -> None:
        def reached() -> bool | NotYet:
            states = self.states()
            there = {service: states.get(service.replace("_", "-")) for service in wanted}
            return True if there == wanted else NotYet(str(states))

        self.wait(f"{wanted}", reached)

    def wait_until_trusted(self) -> None:
        def trusted() -> bool | NotYet:
            try:
                [(count,)] = self.rows(
                    "SELECT count(DISTINCT service) FROM revision_history WHERE health = 'served_well'"
                )
            except Exception as error:  # noqa: BLE001 - the tables are not there yet
                return NotYet(str(error)[:200])
            return True if count >= SERVICES else NotYet(f"{count} are trusted")

        self.wait("every service to be trusted", trusted)

    def wait_until_ready(self, port: int) -> None:
        def ready() -> bool | NotYet:
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=20)
            except httpx2.TransportError as error:
                return NotYet(repr(error))
            return True if answer.status_code == 200 else NotYet(answer.text)

        self.wait("the API to be ready", ready)

    def wait_until_all_ended(self, port: int) -> None:
        """Answering whatever is asked meanwhile."""

        def ended() -> bool | NotYet:
            self.approve_all(port)
            left = self.rows("SELECT service, state FROM incidents WHERE closed_at IS NULL")
            return NotYet(str(left)) if left else True

        self.wait("every incident to end", ended)

    # -------------------------------------------------------------- the end

    def check_the_end(self) -> SignalAudit:
        """What must hold after any upgrade."""
        twice = {intent: times for intent, times in self.effects().items() if times > 1}
        assert twice == {}
        audit = asyncio.run(self._audit())
        assert audit.adds_up, audit
        for log in self.folder.glob("*.log"):
            if log != self.target_log:
                told = log.read_text(errors="replace")
                assert "Traceback" not in told, f"{log.name}: {told[-4000:]}"
                assert "ERROR" not in told, f"{log.name}: {told[-4000:]}"
        return audit

    async def _audit(self) -> SignalAudit:
        store = await open_store(self.database_url)
        try:
            lost = [one for one in self.posted if await store.signals.get(SignalId(one)) is None]
            question = AuditQuestion(now=datetime.now(UTC), pending_for=timedelta(minutes=5), deep=True)
            audit = await store.accounting.audit(question)
        finally:
            await store.close()
        assert lost == []
        return audit

    @property
    def target_log(self) -> Path:
        return self.folder / "effects.log"

    def _answers(self, path: str) -> bool | NotYet:
        try:
            httpx2.post(f"http://127.0.0.1:{self.target_port}{path}", content=b"null").raise_for_status()
        except httpx2.HTTPError as error:
            return NotYet(repr(error))
        return True


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Version:
    version = previous_version(tmp_path_factory.mktemp("previous"))
    for module in ("pausing_worker", "patient_agent"):
        lend(version, f"tests/e2e/{module}.py")
    return version


def test_two_versions_work_side_by_side_through_a_migration(
    supervisor: Supervisor, old: Version, tmp_path: Path
) -> None:
    """With incidents in every state, workers dying, and signals arriving at both all the while."""
    new = present_version()
    with postgres_server(supervisor, settings=THROWAWAY) as server:
        stage = Stage(
            supervisor=supervisor,
            folder=tmp_path,
            database_url=server.tcp_url(server.create()),
            old=old,
            new=new,
        )
        _side_by_side(stage)


def _side_by_side(stage: Stage) -> None:
    old, new = stage.old, stage.new
    old_port, watch_port, new_port = free_ports(3)
    stage.start_target()
    old_api = stage.start("old-api", old, "run", "--role", "api", "--port", str(old_port))
    old_watch = stage.start("old-watch", old, "run", "--role", "watch", "--port", str(watch_port))
    stage.wait_until_trusted()
    stage.wait_until_ready(old_port)
    assert stage.schema() == old.schema != new.schema
    install_claim_log(engine_of(stage.database_url))

    # Two workers that will stop with an intent begun: before its effect, and after it.
    begun = stage.start_pausing("begun", old, "begun", "worker", WORKER_CONCURRENCY="1")
    for number in range(4):
        stage.damage(number)
        stage.tell_failed(old_port, number)
    stage.wait_for_states(**dict.fromkeys(("svc_000", "svc_001", "svc_002", "svc_003"), "awaiting_approval"))
    stage.approve_as_old(0)
    stage.wait("the first worker to pause", lambda: stage.paused("begun"))
    applied = stage.start_pausing("applied", old, "applied", "worker", WORKER_CONCURRENCY="1")
    stage.approve_as_old(1)
    stage.wait("the second worker to pause", lambda: stage.paused("applied"))
    assert sum(stage.effects().values()) == 1
    # So long a soak that the verification does not end before the migration, however slow the machine.
    old_worker = stage.start("old-worker", old, "worker", VERIFY_SOAK_SECONDS="500")
    stage.wait("the old worker to be at work", lambda: stage.at_work(old_worker))
    for number in range(20):
        stage.tell_well(old_port, number)

    # A process of the present version comes, and migrates under the others' hands.
    with stage.about_to_approve_as_old(2) as say_yes:
        with stage.migrations_held_up():
            new_worker = stage.start("new-worker", new, "worker")
            stage.wait("the new version to come", stage.somebody_waits_to_migrate)
            say_yes()
            stage.wait_for_states(svc_002="verifying")
            stage.tell_failed(old_port, 4)
            stage.wait_for_states(**{name.replace("-", "_"): state for name, state in _IN_FLIGHT.items()})
            assert stage.schema() == old.schema
        stage.wait("the schema to be the new one", lambda: stage.schema() == new.schema or NotYet("not yet"))
    migrated_at = datetime.now(UTC)
    assert set(_IN_FLIGHT) <= set(stage.states()), "an incident was lost"
    stage.stop(begun)
    stage.stop(applied)
    new_api = stage.start("new-api", new, "run", "--role", "api", "--port", str(new_port))
    stage.wait_until_ready(new_port)

    # Both take what arrives at either.
    for number in range(20, 40):
        stage.tell_well((old_port, new_port)[number % 2], number)
    for number in range(5, 12):
        stage.damage(number)
        stage.tell_failed((old_port, new_port)[number % 2], number)
    stage.wait(
        "both versions to have taken incidents",
        lambda: _both_take(stage, migrated_at, old_worker, new_worker),
    )
    stage.approve_all(new_port)

    # The old ones go; everything ends.
    for process in (old_watch, old_worker, old_api):
        stage.stop(process, grace_seconds=20)
    for number in range(12, 14):
        stage.damage(number)
        stage.tell_failed(new_port, number)
    stage.wait_until_all_ended(new_port)
    stage.stop(new_worker, grace_seconds=20)
    stage.stop(new_api, grace_seconds=20)
    audit = stage.check_the_end()
    # What the old ones began says whom it concerned, so that it counts for everybody's limits.
    assert stage.rows("SELECT id FROM intents WHERE environment IS NULL OR service IS NULL") == []
    assert audit.present[DispositionKind.IGNORED] >= 20
    assert {stage.states()[f"svc-{number:03d}"] for number in range(4)} == {"recovered"}
    assert set(stage.effects().values()) == {1}


_IN_FLIGHT = {
    "svc-000": "executing",
    "svc-001": "executing",
    "svc-002": "verifying",
    "svc-003": "awaiting_approval",
    "svc-004": "open",
}


def _both_take(stage: Stage, since: datetime, *workers: Process) -> bool | NotYet:
    taken = {
        str(owner)
        for owner, at in stage.rows("SELECT owner, at FROM soak_claims WHERE owner IS NOT NULL")
        if at > since
    }
    missing = [worker.name for worker in workers if not taken & stage.owners_of(worker)]
    return NotYet(f"{missing} took nothing yet") if missing else True


def test_a_wait_fails_with_the_log_of_a_process_that_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    here = present_version()
    stage = Stage(supervisor=supervisor, folder=tmp_path, database_url="", old=here, new=here)
    command = (sys.executable, "-c", "raise SystemExit('no free port')")
    stage.running.append(supervisor.start("agent", command, log=tmp_path / "agent.log"))
    with pytest.raises(TestbedError, match=r"(?s)agent ended with 1.*no free port"):
        stage.wait("what never comes", lambda: NotYet("nothing"))


def test_on_sqlite_the_present_version_goes_on_with_the_file(
    supervisor: Supervisor, old: Version, tmp_path: Path
) -> None:
    """Killed with incidents in every state; the next start is the new version, which may be rolled back."""
    new = present_version()
    (port,) = free_ports(1)
    url = f"sqlite:///{tmp_path / 'heal.db'}"
    stage = Stage(supervisor=supervisor, folder=tmp_path, database_url=url, old=old, new=new)
    stage.start_target()
    # So long a soak that no verification ends before the process is stopped, however slow the machine.
    long = {"VERIFY_SOAK_SECONDS": "500"}
    process = stage.start_pausing("old", old, "applied", "run", "--port", str(port), **long)
    stage.wait_until_trusted()
    for number in range(3):
        stage.damage(number)
        stage.tell_failed(port, number)
    stage.wait_for_states(**dict.fromkeys(("svc_000", "svc_001", "svc_002"), "awaiting_approval"))
    stage.approve_as_old(0)
    stage.wait("the agent to pause", lambda: stage.paused("old"))
    stage.approve_as_old(1)
    stage.wait_for_states(svc_001="verifying")
    stage.tell_well(port, 1)
    stage.tell_failed(port, 4)
    wanted = {
        "svc-000": "executing",
        "svc-001": "verifying",
        "svc-002": "awaiting_approval",
        "svc-004": "open",
    }
    assert stage.states() == wanted
    assert stage.schema() == old.schema
    stage.stop(process)

    agent = stage.start("new", new, "run", "--port", str(port))
    stage.wait_until_ready(port)
    assert stage.schema() == new.schema
    for number in (1, 2):
        stage.tell_well(port, number)
    stage.wait_until_all_ended(port)
    stage.stop(agent, grace_seconds=20)
    assert stage.rows("SELECT count(*) FROM samples") == [(1,)], "of the service on record"

    # Back to the old version, and forward again: nothing is lost, and no id is given twice.
    for name, version in (("back", old), ("forward", new)):
        agent = stage.start(name, version, "run", "--port", str(port))
        stage.wait_until_ready(port)
        for number in (1, 2):
            stage.tell_well(port, number)
        stage.stop(agent, grace_seconds=20)
    # Two of each program that writes narrow rows, from schema 0010 on, beside the first.
    assert stage.rows("SELECT count(*) FROM samples") == [(5 if old.schema >= "0010" else 3,)]
    assert len(set(stage.posted)) == len(stage.posted)
    stage.check_the_end()
    assert {stage.states()[f"svc-{number:03d}"] for number in range(3)} == {"recovered"}
    assert set(stage.effects().values()) == {1}

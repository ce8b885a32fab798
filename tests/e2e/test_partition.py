"""A worker that is cut off from PostgreSQL in the middle of its work, and still reaches its target.

The worker runs in a network namespace whose link to the database's is cut at a chosen
point; another one beside it reaches the database over a Unix socket and takes over,
either because the server notices that the first is gone or because the claim's lease
runs out. The target counts effects: an intent has at most one, whichever worker carries it
out (promise 2), and the first worker's late writes are refused (promise 3).

Six cases of some minutes each; needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
import pytest

from app.agent.ids import IncidentId
from app.agent.models import IncidentRecord, IncidentState, IntentState
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.timeline import verify_chain
from app.store import open_store
from testbed.netns import Partition, partition
from testbed.postgres import SUPERUSER, PostgresServer, postgres_server
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for
from tests import sizes
from tests.e2e.pausing_worker import Point
from tests.soak.processes import ROOT, SHORT
from tests.soak.wire import Break, Breakage

pytestmark = pytest.mark.real

TARGET_PORT = 8080
PATIENCE_SECONDS = 900.0
LONG_LEASE_SECONDS = 10 * PATIENCE_SECONDS
"""So long that no test waits for it: a takeover in time is due to the server's notice."""
SHORT_LEASE_SECONDS = 3
"""Over before the server's keepalives give up, which takes them eleven seconds."""
ENDS = {IncidentState.RECOVERED, IncidentState.ESCALATED}
CASES = [
    (Point.BEGUN, LONG_LEASE_SECONDS, "cut off"),
    (Point.BEGUN, SHORT_LEASE_SECONDS, "at once"),
    (Point.APPLIED, LONG_LEASE_SECONDS, "connected"),
    (Point.APPLIED, SHORT_LEASE_SECONDS, "cut off"),
    (Point.VERIFYING, LONG_LEASE_SECONDS, "cut off"),
    (Point.VERIFYING, SHORT_LEASE_SECONDS, "connected"),
]
CHANGE_CASES = 3
"""For a single change: each point once, with one lease or the other."""


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    started = Supervisor()
    yield started
    started.close()


@pytest.fixture(scope="module")
def network() -> Iterator[Partition]:
    with partition() as made:
        yield made


@pytest.fixture(scope="module")
def postgres(supervisor: Supervisor, network: Partition) -> Iterator[PostgresServer]:
    far = network.far
    with postgres_server(supervisor, address=far.address, within=far.within) as server:
        yield server


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A stand-in and the processes over it, all on the near side; the database is on the far one."""

    supervisor: Supervisor
    network: Partition
    postgres: PostgresServer
    database: str
    folder: Path
    lease_seconds: float

    def start_target(self) -> Process:
        options = ("--port", str(TARGET_PORT), "--log", str(self.target_log), "--services", "3")
        calm = ("--slowest", "0", "--lost", "0", "--refused", "0")
        process = self._start("target", "tests.soak.target", *options, *calm)
        wait_for("the target to answer", self._target_answers, timeout_seconds=PATIENCE_SECONDS)
        return process

    def start_agent(self, name: str, *arguments: str) -> Process:
        """A process of the product that reaches the database whatever happens to the link."""
        return self._start(name, "tests.soak.agent", *arguments)

    def start_first(self, point: Point) -> Process:
        """The worker whose database is at the other end of the link."""
        address = self.network.far.address
        url = f"postgresql://{SUPERUSER}@{address}:{self.postgres.port}/{self.database}"
        extra = {"DATABASE_URL": url, "PAUSE_AT": point, "PAUSE_FOLDER": str(self.folder)}
        return self._start("first", "tests.e2e.pausing_worker", "worker", extra=extra)

    def damage(self, number: int) -> datetime:
        """A bad release of a service, and when; taking it back heals."""
        at = datetime.now(UTC)
        asked = Break(service=f"svc-{number:03d}", breakage=Breakage.ERRORS, number=7)
        self._ask("/damage", msgspec.json.encode(asked).decode())
        return at

    def effects(self) -> Counter[str]:
        """How often each intent took effect, as the target counted it."""
        return Counter(line["intent"] for line in self.writes() if line["kind"] == "effect")

    def writes(self) -> list[dict[str, str]]:
        """Every write that reached the target, accepted or refused, in order."""
        return [json.loads(line) for line in self.target_log.read_text().splitlines()]

    def late_writes(self) -> list[str]:
        late = self.folder / "late"
        return late.read_text().splitlines() if late.exists() else []

    def go_on(self) -> None:
        (self.folder / "go-on").touch()

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.postgres.socket_url(self.database), autocommit=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    @property
    def target_log(self) -> Path:
        return self.folder / "target.log"

    def _start(self, name: str, module: str, *arguments: str, extra: dict[str, str] | None = None) -> Process:
        owners = self.folder / "owners"
        owners.mkdir(exist_ok=True)
        environment = {
            **SHORT,
            "VERIFY_TIMEOUT_SECONDS": "600",
            "PROMETHEUS_POLL_SECONDS": "1",
            "CLAIM_LEASE_SECONDS": str(self.lease_seconds),
            "DATABASE_URL": self.postgres.socket_url(self.database),
            "RUNBOOKS_DIR": str(ROOT / "runbooks"),
            "SOAK_TARGET": f"http://127.0.0.1:{TARGET_PORT}",
            "SOAK_OWNERS": str(owners),
            "PYTHONPATH": str(ROOT),
            **(extra or {}),
        }
        command = [*self.network.near.within, sys.executable, "-m", module, *arguments]
        return self.supervisor.start(name, command, log=self.folder / f"{name}.log", env=environment)

    def _target_answers(self) -> bool | NotYet:
        try:
            self._ask("/services", "null")
        except subprocess.CalledProcessError as error:
            return NotYet(error.stderr)
        return True

    def _ask(self, path: str, body: str) -> None:
        """From the near side: its loopback is not this process's."""
        program = (
            "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], sys.argv[2].encode(), timeout=5)"
        )
        url = f"http://127.0.0.1:{TARGET_PORT}{path}"
        command = [*self.network.near.within, sys.executable, "-c", program, url, body]
        subprocess.run(command, check=True, capture_output=True, text=True)


async def until(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"timed out waiting for {what}"
        await asyncio.sleep(0.05)


async def incident_of(store: Store, number: int, since: datetime) -> IncidentRecord | None:
    """The service's newest incident since then, whole."""
    where = IncidentFilter(service=f"svc-{number:03d}", since=since)
    page = await store.incidents.find(where, limit=1, cursor=None)
    return await store.incidents.get(page.items[0].incident.id) if page.items else None


async def ended(store: Store, number: int, since: datetime) -> IncidentRecord:
    found: list[IncidentRecord] = []

    async def closed() -> bool:
        record = await incident_of(store, number, since)
        if record is not None and record.incident.state.closed:
            found.append(record)
        return bool(found)

    await until(f"the incident of service {number} to end", closed)
    return found[0]


def holder(scene: Scene, incident: IncidentId) -> str | None:
    [(owner,)] = scene.rows(f"SELECT owner FROM claims WHERE incident_id = '{incident}'")  # noqa: S608 - our own id
    return None if owner is None else str(owner)


@pytest.mark.parametrize(
    ("point", "lease_seconds", "goes_on"), CASES if sizes.whole() else sizes.share(CASES, CHANGE_CASES)
)
async def test_another_worker_takes_over_from_one_that_is_cut_off(
    supervisor: Supervisor,
    network: Partition,
    postgres: PostgresServer,
    tmp_path: Path,
    point: Point,
    lease_seconds: float,
    goes_on: str,
) -> None:
    """The incident ends elsewhere; the first worker does no harm, and is of use again once it is back.

    It goes on at once when it is cut off, when the incident has ended elsewhere and it is
    still cut off, or only when it is connected again.
    """
    scene = Scene(
        supervisor=supervisor,
        network=network,
        postgres=postgres,
        database=postgres.create(),
        folder=tmp_path,
        lease_seconds=lease_seconds,
    )
    store = await open_store(postgres.socket_url(scene.database))
    started = [scene.start_target(), scene.start_agent("watch", "run", "--role", "watch", "--port", "8081")]
    try:
        await until("every service to be trusted", lambda: _trusted(scene))
        started.append(scene.start_first(point))
        await until("the first worker to be alive", lambda: _alive(scene, 2))
        await until("what the start stirred up to end", lambda: _calm(store))
        since = scene.damage(0)
        await until("the first worker to reach the point", lambda: _exists(tmp_path / "reached"))
        record = await incident_of(store, 0, since)
        assert record is not None
        first = holder(scene, record.incident.id)
        started.append(second := scene.start_agent("second", "worker"))
        await until("the second worker to be alive", lambda: _alive(scene, 3))
        network.cut()
        if goes_on == "at once":
            scene.go_on()
        other = scene.damage(1)  # rings for all: the server has something to send to the one that is cut off
        healed = await ended(store, 0, since)
        assert healed.incident.state in ENDS
        assert (await ended(store, 1, other)).incident.state is IncidentState.RECOVERED
        assert holder(scene, record.incident.id) != first
        if goes_on == "cut off":
            scene.go_on()
            await until("the first worker to go on", lambda: _has_tried(scene))
        network.heal()
        scene.go_on()
        await until("the first worker to be alive again", lambda: _alive(scene, 3))
        await until("the first worker to have gone on", lambda: _has_tried(scene))
        if goes_on == "connected" and point is Point.APPLIED:
            await until("a late write to be refused", lambda: _refused(scene))
        second.stop(grace_seconds=20)
        later = scene.damage(2)
        assert (await ended(store, 2, later)).incident.state is IncidentState.RECOVERED
        await _adds_up(scene, store, healed)
        for process in started:
            if process is not second:
                process.check()
    finally:
        network.heal()
        for process in reversed(started):
            process.stop()
        await store.close()
        postgres.drop(scene.database)


async def _adds_up(scene: Scene, store: Store, healed: IncidentRecord) -> None:
    effects, late = scene.effects(), scene.late_writes()
    if "apply tried" in late:
        kinds = [line["kind"] for line in scene.writes() if line["service"] == "svc-000"]
        assert sorted(kinds) in (["effect"], ["effect", "refusal"]), "two sent it, or one looked"
    assert effects
    assert set(effects.values()) == {1}, "an intent took effect more than once"
    assert not [line for line in late if line.endswith(" succeeded")], late
    after = await store.incidents.get(healed.incident.id)
    assert after == healed, "the incident that ended elsewhere was changed by the one that was cut off"
    assert verify_chain(healed.incident.id, healed.timeline)
    assert all(intent.state is IntentState.FINISHED for intent in healed.intents)
    began = {intent.id for intent in healed.intents if intent.started_at is not None}
    assert began & set(effects), "what happened is on record"


async def _calm(store: Store) -> bool:
    return not await store.incidents.all_open()


async def _trusted(scene: Scene) -> bool:
    statement = "SELECT count(DISTINCT service) FROM revision_history WHERE health = 'served_well'"
    try:
        [(count,)] = scene.rows(statement)
    except psycopg.Error:
        return False
    return count == 3


async def _alive(scene: Scene, processes: int) -> bool:
    """So many hold the lock that stands for being alive; one that is cut off holds its own for a while."""
    [(count,)] = scene.rows(
        "SELECT count(*) FROM workers JOIN pg_locks ON classid = 1212481541 AND objid = number"
        " WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return count == processes


async def _exists(path: Path) -> bool:
    return path.exists()  # noqa: ASYNC240 - one look at the local disk


async def _has_tried(scene: Scene) -> bool:
    """It has asked the target for the effect, or the store for what it needs to go on."""
    return bool(scene.late_writes())


async def _refused(scene: Scene) -> bool:
    """By the fencing token; or not sent, over a connection that was given up while it was cut."""
    return any(line.endswith((" ClaimLost", " TransientError")) for line in scene.late_writes())

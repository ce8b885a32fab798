"""What a process of each role does, and leaves to the others; as parts of one process, and as real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import psycopg
import pytest
from pydantic import ValidationError

from app.agent.notifications.outbox import Announcements
from app.bootstrap import Adapters, Container, assemble
from app.clock import SystemClock
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.world import World as SimulatedWorld
from app.settings.entries import Role
from app.store import open_shared
from app.workers import LocalRunner, attended
from testbed.ports import free_ports
from tests.contract.eventually import eventually
from tests.contract.memory_channel import MemoryChannel
from tests.forked import Forked, forked
from tests.stories import settings_for

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

WATCHING = {"watcher", "recheck", "poller"}
TELLING = {"notify memory"}

# ------------------------------------------------------------ what is started


@asynccontextmanager
async def process(
    directory: Path, database_url: str, role: Role, *, channels: bool = False
) -> AsyncIterator[Container]:
    """A wired agent of that role over a simulated cluster, with its work started."""
    clock = SystemClock()
    simulated = SimulatedWorld(clock)
    cluster = SandboxCluster.over(simulated)
    store, fleet = await open_shared(database_url)
    runner = LocalRunner()
    container = assemble(
        settings_for(directory, database_url=database_url, role=role),
        clock=clock,
        store=store,
        world=Adapters(
            reader=cluster.reader,
            rehearsal=cluster.rehearsal,
            watch=cluster.watch,
            metrics=SandboxMetrics(simulated),
            channels=(MemoryChannel(),) if channels else (),
        ),
        fleet=fleet,
        runner=runner,
    )
    try:
        async with attended(container, runner):
            assert (runner.driver is not None) == ("driver" in at_work())
            yield container
    finally:
        await container.close()


def at_work() -> set[str]:
    """The names of what runs in this process, besides the test."""
    named = {task.get_name() for task in asyncio.all_tasks()}
    return named & {"presence", "driver", "sweep", "forget", "watch", "announce", *WATCHING, *TELLING}


@pytest.mark.parametrize(
    ("role", "started", "when_elected"),
    [
        (Role.ALL, {"presence", "driver", "sweep", "watch"}, {"forget", *WATCHING}),
        (Role.API, {"presence"}, set()),
        (Role.WORKER, {"presence", "driver", "sweep"}, {"forget"}),
        (Role.WATCH, {"presence", "sweep", "watch"}, {"forget", *WATCHING}),
    ],
)
async def test_each_role_starts_its_part(
    tmp_path: Path, postgres_url: str, role: Role, started: set[str], when_elected: set[str]
) -> None:
    """Only `all` and `worker` drive, only `all` and `watch` look at the cluster; then all of it ends."""
    async with process(tmp_path, postgres_url, role):
        assert at_work() == started

        async def elected() -> bool:
            return at_work() == started | when_elected

        await eventually(elected, f"{role} does its part")
    assert at_work() == set()


@pytest.mark.parametrize("role", list(Role))
async def test_workers_update_the_channels(tmp_path: Path, postgres_url: str, role: Role) -> None:
    """One of the drivers does it for all; the process that runs a pass records announcements."""
    async with process(tmp_path, postgres_url, role, channels=True) as container:
        assert isinstance(container.loop.stages.closer.notifier, Announcements)
        tells = role in (Role.ALL, Role.WORKER)
        assert ("announce" in at_work()) is tells

        async def elected() -> bool:
            return not tells or at_work() >= TELLING

        await eventually(elected, f"{role} tells the channel")
    assert at_work() == set()


@pytest.mark.parametrize("role", [Role.ALL, Role.WORKER])
async def test_the_one_process_of_an_sqlite_file_does_everything(tmp_path: Path, role: Role) -> None:
    """It has no peer, so a worker watches too."""
    async with process(tmp_path, f"sqlite:///{tmp_path}/heal.db", role):

        async def everything() -> bool:
            return at_work() == {"presence", "driver", "sweep", "forget", "watch", *WATCHING}

        await eventually(everything)


@pytest.mark.parametrize("role", [Role.API, Role.WATCH])
def test_roles_that_need_others_are_refused_on_sqlite(tmp_path: Path, role: Role) -> None:
    """The message says what to do."""
    with pytest.raises(ValidationError, match="requires PostgreSQL"):
        settings_for(tmp_path, role=role)


async def test_of_two_watchers_one_watches(tmp_path: Path, postgres_url: str) -> None:
    """The other one stands by, and takes over when the first has gone."""

    def watching() -> int:
        return sum(task.get_name() == "watcher" for task in asyncio.all_tasks())

    async def one() -> bool:
        return watching() == 1

    async with AsyncExitStack() as first, AsyncExitStack() as second:
        leader = await first.enter_async_context(process(tmp_path, postgres_url, Role.WATCH))
        await eventually(one)
        other = await second.enter_async_context(process(tmp_path, postgres_url, Role.WATCH))
        lease, now = timedelta(seconds=30), datetime.now(UTC)
        assert not await other.fleet.elect("watch", other.loop.owner, lease, now)
        assert watching() == 1
        await first.aclose()
        now = datetime.now(UTC)
        assert await other.fleet.elect("watch", other.loop.owner, lease, now), leader.loop.owner


# ------------------------------------------------------------ real processes


class Agents:
    """Processes of the installed `heal` over one database."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "DATABASE_URL": database_url,
            "RUNBOOKS_DIR": str(Path(__file__).parent.parent.parent / "runbooks"),
            "INCIDENT_SETTLE_SECONDS": "0",
            "VERIFY_SOAK_SECONDS": "0",
            "VERIFY_TIMEOUT_SECONDS": "0.5",
            "VERIFY_INTERVAL_SECONDS": "0.1",
        }
        self.started: list[Forked] = []

    def start(self, *arguments: str, **settings: str) -> Forked:
        environment = {**self.environment, **settings}
        log = self.directory / "heal.log"
        one = forked(arguments, folder=self.directory, environment=environment, log=log)
        self.started.append(one)
        return one

    def end(self) -> None:
        for one in self.started:
            one.kill()
            one.wait()


@pytest.fixture
def agents(tmp_path: Path, postgres_url: str) -> Iterator[Agents]:
    """Processes that end with the test."""
    found = Agents(tmp_path, postgres_url)
    yield found
    found.end()


async def test_roles_as_processes_share_the_work(agents: Agents, postgres_url: str) -> None:
    """API and watcher only take in and show; a worker drives; one that is killed is followed by another."""
    api_port, watch_port = free_ports(2)
    agents.start("run", "--role", "api", "--port", str(api_port))
    watch = agents.start("run", "--role", "watch", "--port", str(watch_port))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api_port}") as api:

        async def incident(service: str) -> str:
            event = {
                "service": service,
                "environment": "prod",
                "version": "2",
                "status": "failed",
                "timestamp": datetime.now(UTC).isoformat(),
            }
            answer = (await api.post("/events/deploy", json=event)).raise_for_status()
            found: str = answer.json()["incident_id"]
            return found

        async def comes_to(incident_id: str, state: str) -> None:
            async def there() -> bool:
                return await state_of(incident_id) == state

            await eventually(there, f"{incident_id} is {state}")

        async def state_of(incident_id: str) -> str:
            found: str = (await api.get(f"/incidents/{incident_id}")).raise_for_status().json()["state"]
            return found

        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{watch_port}") as watcher:
            await eventually(lambda: _ready(api), "the API is ready")
            await eventually(lambda: _ready(watcher), "the watcher is ready")
            assert (await watcher.get("/incidents")).status_code == 404
        first = await incident("first")
        # The API is seen at work for a while: it notices that the watcher died. No worker drives meanwhile.
        watch.kill()
        watch.wait()
        await eventually(lambda: _counted(postgres_url, 1), "the API finds the watcher dead")
        assert await state_of(first) == "open"
        assert await _rows(postgres_url, "SELECT count(*) FROM claims") == 0

        killed = agents.start("worker", VERIFY_TIMEOUT_SECONDS="3600")
        await comes_to(first, "verifying")
        killed.kill()
        killed.wait()
        second = await incident("second")
        agents.start("worker")
        for each in (first, second):
            await comes_to(each, "proposed")


async def _ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


async def _counted(database_url: str, alive: int) -> bool:
    return await _rows(database_url, "SELECT count(*) FROM workers") == alive


async def _rows(database_url: str, question: str) -> int:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute(question.encode())).fetchone()
    assert row is not None
    return int(row[0])

"""A harness for scenarios of the loop: the real agent on the simulated cluster, on a virtual clock.

Everything is the product's own code: intake, loop, policy, executor, verifier, store on
SQLite. Only the cluster, the metrics and the time are simulated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.agent.approvals.answer import answer
from app.agent.guardrails.opt_out import OptOut
from app.agent.identity.people import Person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    Approval,
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    KillSwitch,
    Note,
    Payload,
    TimelineEntry,
)
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.ports.store.signals import Accepted
from app.bootstrap import Adapters, Container, assemble
from app.config import Settings
from app.errors import TransientError
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.objects import Template
from app.sandbox.world import Workload
from app.sandbox.world import World as SimulatedWorld
from app.store import open_in_memory, open_store
from app.terms.live import LiveSettings
from app.testing import VirtualClock
from app.workers.alerts.own import ServiceAlerts
from app.workers.cluster_watcher import Watcher
from app.workers.metric_poller import Poller
from tests.shared_policy import shared_policy
from tests.sqlite_template import migrated

NAMESPACE = "prod"
SERVICE = "shop"
KEY = ServiceKey(environment=NAMESPACE, service=SERVICE)
STEP_SECONDS = 5.0
ACTING: dict[str, Any] = {"dry_run": False, "allow_high_risk_actions": True}

Worlds = Callable[[Adapters], Adapters]


def settings_for(directory: Path, **changes: Any) -> Settings:
    """Settings of a test: nothing is read from a file, times are short."""
    values: dict[str, Any] = {
        "database_url": migrated(directory / "heal.db"),
        "runbooks_dir": Path(__file__).parent.parent / "runbooks",
        "breach_for_seconds": 30,
        "verify_soak_seconds": 60,
        "verify_timeout_seconds": 300,
        "trust_revision_after_seconds": 60,
        "incident_settle_seconds": 10,
        **changes,
    }
    return Settings(_env_file=None, **values)


@dataclass(kw_only=True)
class Story:
    """One agent in one simulated world."""

    clock: VirtualClock
    world: SimulatedWorld
    cluster: SandboxCluster
    agent: Container
    watcher: Watcher
    poller: Poller
    start: Callable[..., tuple[Container, Watcher, Poller]]

    async def restart(self, **settings_changes: Any) -> None:
        """As after kill -9: a new agent on the same store, in the same world, perhaps with other settings.

        It takes over what its predecessor held, as a process does that opens the file again.
        """
        self.agent, self.watcher, self.poller = self.start(**settings_changes)
        await self.agent.store.claims.release_owner(self.agent.loop.owner)

    def deploy(self, name: str = SERVICE, image: str = "shop:1", **changes: Any) -> None:
        """A service with three healthy replicas."""
        template = Template(image=image, memory_limit="256Mi")
        workload = Workload(namespace=NAMESPACE, name=name, template=template)
        self.world.deploy(replace(workload, **changes))

    async def live(self, seconds: float) -> None:
        """Let time pass as a running agent would: watch, poll, and move incidents on."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < until:
            await self.clock.advance(STEP_SECONDS)
            for key in await self.cluster.reader.services():
                await self.watcher.look(key)
            await self.poller.poll()
            for incident in await self.agent.store.incidents.all_open():
                await self.agent.loop.advance(incident.id)

    async def live_until(
        self, holds: Callable[[IncidentRecord], bool], limit_seconds: float = 1800, *, key: ServiceKey = KEY
    ) -> IncidentRecord:
        """Live until the newest incident of the service is so."""
        until = self.clock.now() + timedelta(seconds=limit_seconds)
        while self.clock.now() < until:
            await self.live(STEP_SECONDS)
            record = await self.newest(key)
            if record is not None and holds(record):
                return record
        raise AssertionError(f"not so within {limit_seconds} s: {await self.newest(key)}")

    async def live_to_the_last_look(self, *, key: ServiceKey = KEY) -> None:
        """Live until the next look of a verification is the one at its time limit."""
        record = await self.newest(key)
        assert record is not None
        assert record.incident.verification is not None
        rules = self.agent.loop.stages.verifier.rules
        ends = record.incident.verification.started_at + rules.timeout
        await self.live((ends - self.clock.now()).total_seconds() - STEP_SECONDS)

    async def live_until_asked(self) -> Approval:
        """Live until the newest incident waits for people; what it waits for."""
        record = await self.live_until(
            lambda r: bool(r.approvals) and r.approvals[-1].state is ApprovalState.PENDING
        )
        assert record.incident.state is IncidentState.AWAITING_APPROVAL
        return record.approvals[-1]

    async def say(
        self, approval: Approval, *, yes: bool, by: str = "ann", roles: Sequence[str] = (), comment: str = ""
    ) -> Approval:
        """A person answers."""
        store, now = self.agent.store, self.clock.now()
        person = Person(name=by, roles=frozenset(roles))
        return await answer(store.approvals, approval.id, approve=yes, by=person, comment=comment, at=now)

    async def brake(self, *, engaged: bool, by: str = "ann", reason: str = "database migration") -> None:
        """A person sets the kill switch."""
        at = self.clock.now()
        await self.agent.store.guardrails.set_kill_switch(
            KillSwitch(engaged=engaged, by=by, reason=reason, at=at)
        )

    async def live_until_ended(self, limit_seconds: float = 1800, *, key: ServiceKey = KEY) -> IncidentRecord:
        """Live until the newest incident of the service has ended."""
        return await self.live_until(lambda record: record.incident.state.closed, limit_seconds, key=key)

    async def tell(self, payload: Payload, *, key: ServiceKey = KEY, age_seconds: float = 0) -> Accepted:
        """A signal posted by someone, observed that long ago."""
        now = self.clock.now()
        (accepted,) = await self.agent.intake.accept(
            [
                new_signal(
                    key=key,
                    source="http",
                    observed_at=now - timedelta(seconds=age_seconds),
                    received_at=now,
                    payload=payload,
                    stale_after=self.agent.stale_after,
                )
            ]
        )
        return accepted

    async def newest(self, key: ServiceKey = KEY) -> IncidentRecord | None:
        """The newest incident of a service, whole."""
        where = IncidentFilter(service=key.service, environment=key.environment)
        page = await self.agent.store.incidents.find(where, limit=1, cursor=None)
        return await self.agent.store.incidents.get(page.items[0].incident.id) if page.items else None

    async def load(self, incident_id: IncidentId) -> IncidentRecord:
        record = await self.agent.store.incidents.get(incident_id)
        assert record is not None
        return record

    def image(self, name: str = SERVICE) -> str:
        """What the Deployment asks for now."""
        (deployment,) = self.world.deployments(NAMESPACE, name)
        return deployment.template.image

    def marker(self, name: str = SERVICE) -> str | None:
        (deployment,) = self.world.deployments(NAMESPACE, name)
        return deployment.meta.annotations.get("self-healing-devops-agent/intent")

    def versions(self) -> Mapping[str, int]:
        """Generation of every Deployment: what a dry run must leave alone."""
        return {
            f"{d.meta.namespace}/{d.meta.name}": d.meta.generation
            for namespace, name in self.world.services()
            for d in self.world.deployments(namespace, name)
        }


async def innocent_release_beside_a_dying_dependency(stage: Story) -> None:
    """Shop 2 is released, and the database it calls goes away: no rollback of shop will help."""
    stage.deploy("db", "db:1")
    stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
    await stage.live(240)
    stage.world.release(NAMESPACE, SERVICE, "shop:2")
    await stage.live(10)
    stage.world.set_replicas(NAMESPACE, "db", 0)


@dataclass
class Listener:
    """People who receive notifications; `deaf` ones cannot be reached."""

    told: list[str] = field(default_factory=list)
    deaf: bool = False

    async def send(self, text: str, incident: Incident) -> None:
        if self.deaf:
            raise TransientError("no answer")
        self.told.append(text)


@dataclass
class LastLook:
    """A reader during whose last look before a write something changes."""

    inner: Any
    change: Callable[[], None]
    looks: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        self.looks += 1
        if self.looks == 2:
            self.change()
        found: OptOut = await self.inner.opt_out(action, key)
        return found


def messages(entries: tuple[TimelineEntry, ...] | list[Note]) -> str:
    """A timeline as text, for a test to look into."""
    return "\n".join(f"{entry.stage}: {entry.message}" for entry in entries)


@asynccontextmanager
async def story(
    directory: Path,
    *,
    connected: Worlds = lambda world: world,
    shaken_store: Callable[[Store], Any] = lambda store: store,
    read_again: Callable[[], Settings] | None = None,
    on_file: bool = False,
    **settings_changes: Any,
) -> AsyncIterator[Story]:
    """A stage with nothing deployed yet; `connected` may swap adapters, as a fault would.

    `read_again` reads the settings when `config_file` changes. The store is SQLite in memory:
    the same statements as in a file, which stories of several tasks at once ask for, without
    a change of threads for each of them, which is most of the time of a story.
    """
    settings = settings_for(directory, **settings_changes)
    clock = VirtualClock()
    world = SimulatedWorld(clock)
    cluster = SandboxCluster.over(world)
    metrics = SandboxMetrics(world)
    url = settings.database_url.get_secret_value()
    store = shaken_store(await open_store(url) if on_file else open_in_memory())
    adapters = connected(
        Adapters(
            reader=cluster.reader,
            rehearsal=cluster.rehearsal,
            writer=None if settings.dry_run else cluster.writer(),
            watch=cluster.watch,
            metrics=metrics,
            policy_engine=shared_policy(),
        )
    )

    def start(**changes: Any) -> tuple[Container, Watcher, Poller]:
        changed = settings.model_copy(update=changes)
        live = LiveSettings(changed, read_again) if read_again is not None else None
        connected = replace(adapters, writer=None) if changed.dry_run else adapters
        return _agent(changed, clock, store, connected, live)

    agent, watcher, poller = start()
    try:
        yield Story(
            clock=clock,
            world=world,
            cluster=cluster,
            agent=agent,
            watcher=watcher,
            poller=poller,
            start=start,
        )
    finally:
        await store.close()


def _agent(
    settings: Settings, clock: VirtualClock, store: Store, adapters: Adapters, live: LiveSettings | None
) -> tuple[Container, Watcher, Poller]:
    """A freshly started agent: nothing in memory but what the store remembers."""
    agent = assemble(settings, clock=clock, store=store, world=adapters, live=live)
    assert adapters.watch is not None
    assert adapters.metrics is not None
    assert adapters.reader is not None
    assert agent.historian is not None
    watcher = Watcher(
        watch=adapters.watch,
        observer=agent.observer,
        historian=agent.historian,
        intake=agent.intake,
        clock=clock,
        stale_after=agent.stale_after,
    )
    poller = Poller(
        source=adapters.metrics,
        reader=adapters.reader,
        signals=store.signals,
        intake=agent.intake,
        slo=agent.slo,
        clock=clock,
        every=timedelta(seconds=STEP_SECONDS),
        stale_after=agent.stale_after,
        alerts=ServiceAlerts(
            services=agent.slo.services,
            baselines=agent.observer.baselines,
            every=timedelta(seconds=STEP_SECONDS),
        ),
    )
    return agent, watcher, poller

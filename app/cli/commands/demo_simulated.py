"""Plays a scenario of the simulated world to the real agent, in compressed time.

Called by `heal demo`. Cluster and metrics are simulated and say so; observer,
diagnosis, planner, policy, executor, verifier, store, watcher and poller are the
ones of the product, wired by the same composition root. Nothing outside this
process and its database is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from app.agent.ids import IncidentId
from app.agent.loop import Loop
from app.agent.models import (
    Deploy,
    DeployStatus,
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
)
from app.agent.ports.policy import PolicyEngine
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim, ClaimRepository
from app.agent.ports.store.incidents import IncidentFilter
from app.bootstrap import Container, assemble
from app.cli.commands.errors import CommandFailed
from app.cli.commands.listener import SeenEvents, StoryListener
from app.clock import Clock, SteppedClock
from app.config import Settings
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.sandbox.api import AuditEntry
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.runner import InlineRunner
from app.sandbox.scenarios.story import Beat, Release, Scenario
from app.sandbox.world import World
from app.simulation.wiring import LEASE_SECONDS, observing, report, simulated, watched_settings
from app.store import open_store

OWNER = "simulation"
_STEP_SECONDS = 1.0
_MARGIN = timedelta(seconds=10)
"""What the last step of a story may take beyond its limit."""
_BETWEEN_STORIES = timedelta(minutes=2)
_MOST_STORIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryPace:
    """How fast the story is printed."""

    wall_seconds_per_second: float
    """0 plays as fast as it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a story ended."""

    incidents: tuple[IncidentRecord, ...]
    audit: tuple[AuditEntry, ...]
    """Every change of the simulated cluster, by any writer."""


def simulation_settings(settings: Settings, *, dry_run: bool) -> Settings:
    """The user's settings, changed for a short story without approvals: no real system is changed."""
    # The story has no person who answers, and the next one opens an incident of the same service.
    alone = {"approval_for_risks": frozenset(), "reopen_after_seconds": 0.0}
    return watched_settings(settings, dry_run=dry_run).model_copy(update=alone)


async def play(
    settings: Settings,
    scenario: Scenario,
    new_clock: Callable[[datetime], SteppedClock],
    story_listener: StoryListener,
    pace: StoryPace,
) -> Played:
    """Play to the end of every incident of the story; `CommandFailed` when it does not end.

    The story is set in the recent past, far enough that it ends before now: the records
    that it leaves are read by agents on the machine's clock.
    """
    store = await open_store(settings.database_url.get_secret_value())
    try:
        start = datetime.now(UTC) - timedelta(seconds=scenario.limit_seconds) - _MARGIN
        scenario = await _undisturbed(store, scenario, start)
        clock = new_clock(start)
        # The shipped policies: the user's own may require approvals, which a simulation cannot answer.
        policy = EmbeddedPolicy(shipped_policies(), timeout_seconds=settings.policy_timeout_seconds)
        try:
            stage = await _Stage.build(settings, scenario, clock, store, policy)
            async with stage.working():
                return await _play(stage, clock, story_listener, pace)
        finally:
            await policy.aclose()
    finally:
        await store.close()


async def _undisturbed(store: Store, scenario: Scenario, start: datetime) -> Scenario:
    """The scenario in a namespace without another demo at that time: each would be evidence in the other."""
    for number in range(1, _MOST_STORIES):
        one = scenario if number == 1 else scenario.within(f"{scenario.namespace}-{number}")
        if await _last_story(store, one) + _BETWEEN_STORIES <= start:
            return one
    raise CommandFailed(f"{_MOST_STORIES} demos ran within minutes; wait, or use another database")


async def _last_story(store: Store, scenario: Scenario) -> datetime:
    """When the last story of that service ended, as its records say."""
    ends = [datetime.min.replace(tzinfo=UTC)]
    levels = await store.signals.levels(scenario.key)
    if levels is not None and levels.last_sample_at is not None:
        ends.append(levels.last_sample_at)
    where = IncidentFilter(service=scenario.key.service, environment=scenario.key.environment)
    newest = (await store.incidents.find(where, limit=1, cursor=None)).items
    ends += [record.incident.closed_at or record.incident.opened_at for record in newest]
    return max(ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """The simulated world with the real agent over it."""

    scenario: Scenario
    world: World
    container: Container
    loop: Loop
    runner: InlineRunner
    kept: _KeptClaims

    @classmethod
    async def build(
        cls, settings: Settings, scenario: Scenario, clock: Clock, store: Store, policy: PolicyEngine
    ) -> _Stage:
        world = World(clock)
        scenario.set_up(world)
        cluster = SandboxCluster.over(world)
        outside = simulated(cluster, SandboxMetrics(world), settings, policy=policy)
        runner = InlineRunner(clock)
        kept = _KeptClaims(store.claims)
        keeping = replace(store, claims=cast("ClaimRepository", kept))
        container = assemble(settings, clock=clock, store=keeping, world=outside, runner=runner)
        loop = replace(container.loop, owner=OWNER)
        runner.attach(loop)
        stage = cls(scenario=scenario, world=world, container=container, loop=loop, runner=runner, kept=kept)
        await stage.end_leftovers()
        return stage

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Runs watcher and poller; an incident that is open at the end is ended too."""
        try:
            async with observing(self.container):
                yield
        finally:
            await self.runner.close()
            await self.end_leftovers()
            await self.kept.release_all()

    async def happen(self, beat: Beat) -> None:
        """Play a beat; a pipeline reports its release to the agent."""
        self.scenario.play(self.world, beat.happening)
        if isinstance(beat.happening, Release):
            started = Deploy(version=beat.happening.version, status=DeployStatus.STARTED)
            await report(self.container, [(self.scenario.key, started)], "simulation")

    async def records(self) -> tuple[IncidentRecord, ...]:
        """Every incident of this story, as it is on record now."""
        found = [await self.container.store.incidents.get(one) for one in self.runner.woken]
        return tuple(record for record in found if record is not None)

    async def end_leftovers(self) -> None:
        """An interrupted demo leaves its incident open, which no agent can process: escalate it."""
        store, clock = self.container.store, self.container.clock
        for incident in await store.incidents.all_open():
            if _family(incident.key.environment) != _family(self.scenario.namespace):
                continue
            lease = timedelta(seconds=LEASE_SECONDS)
            now = max(clock.now(), incident.opened_at)
            claim = await store.claims.take(incident.id, OWNER, lease, now)
            if claim is not None:
                await _break_off(store, claim, incident, now)
                await store.claims.release(claim)


def _family(namespace: str) -> str:
    """A namespace without the number that `_undisturbed` gives it."""
    name, _, number = namespace.rpartition("-")
    return name if name and number.isdigit() else namespace


async def _break_off(store: Store, claim: Claim, incident: Incident, now: datetime) -> None:
    why = "The simulation was broken off before its end."
    ended = replace(incident, state=IncidentState.ESCALATED, closed_at=now, summary=why)
    await store.incidents.save(
        claim, ended, [Note(at=now, stage=Stage.LEARN, message=f"Closed: escalated. {why}")]
    )


async def _play(stage: _Stage, clock: SteppedClock, story_listener: StoryListener, pace: StoryPace) -> Played:
    """Advance the time step by step, and print what is new after each step."""
    begun = clock.now()
    beats = list(stage.scenario.beats)
    seen = SeenEvents(story_listener, begun)
    story_listener.happened(begun, f"{stage.scenario.key}: healthy, under load.")
    while True:
        passed = (clock.now() - begun).total_seconds()
        while beats and passed >= beats[0].at_seconds:
            story_listener.happened(clock.now(), beats[0].says)
            await stage.happen(beats.pop(0))
        await seen.levels(stage.container, stage.scenario.key)
        await clock.advance(_STEP_SECONDS)
        stage.runner.check()
        records = await stage.records()
        seen.entries(records)
        if not beats and records and all(record.incident.state.closed for record in records):
            return Played(incidents=records, audit=tuple(stage.world.api.audit))
        if passed > stage.scenario.limit_seconds:
            raise CommandFailed(
                f"the demo did not end within {stage.scenario.limit_seconds:.0f} simulated seconds"
            )
        await asyncio.sleep(_STEP_SECONDS * pace.wall_seconds_per_second)


class _KeptClaims:
    """Claims of a story, which are kept to its end.

    A running agent on the same database would otherwise take the incident over
    between two steps, and find no cluster behind it.
    """

    def __init__(self, claims: ClaimRepository) -> None:
        self._claims = claims
        self._kept: dict[IncidentId, Claim] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claims, name)

    async def release(self, claim: Claim, due_at: datetime | None = None) -> None:  # noqa: ARG002 - kept
        """Does nothing: `release_all` releases every claim at the end."""
        self._kept[claim.incident_id] = claim

    async def release_all(self) -> None:
        """At the end of the story: their leases are in its time, and may be far from the machine's."""
        for claim in self._kept.values():
            await self._claims.release(claim)
        self._kept.clear()

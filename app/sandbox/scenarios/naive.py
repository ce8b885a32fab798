"""The agents to compare with: one that does nothing, and one that restarts, then rolls back.

Both see what the real agent sees through the same ports. The second is what a
script of an afternoon does: a breach that lasts a minute is answered with a restart,
a breach that lasts on with a rollback of the newest revision, and then with a page.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.evidence.conditions import workload_conditions
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, ActionName, Risk, SliSample
from app.agent.workload import WorkloadView
from app.errors import AgentError
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.scenarios.document import Event
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.judge import MAX_ERRORS, MAX_P95_MS, Act, Run, violations
from app.sandbox.scenarios.stage import PAST_SECONDS, ScenarioWorld, key_of

LOOK_SECONDS = 15.0
WINDOW = timedelta(minutes=1)
"""How far back a measurement looks, for every agent."""
_BREACH_FOR = timedelta(seconds=60)
_GIVEN = timedelta(seconds=180)
"""How long an action is given to help."""


class HandClock:
    """Time that its owner sets; nothing sleeps on it."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        raise RuntimeError(f"nothing sleeps on this clock, and not for {seconds:g} s")

    def pass_to(self, moment: datetime) -> None:
        self._now = moment


@dataclass(slots=True)
class _Case:
    """What the naive agent remembers of a service."""

    breached_since: datetime | None = None
    acted_at: datetime | None = None
    tried: int = 0
    paged: bool = False


@dataclass(slots=True)
class _Naive:
    played: ScenarioWorld
    start: datetime
    cases: dict[ServiceKey, _Case] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    detected_at: float | None = None
    incidents: int = 0

    async def look(self, now: datetime) -> None:
        cluster, metrics = (
            SandboxCluster.over(self.played.world),
            SandboxMetrics(self.played.world, window=WINDOW),
        )
        for service in self.played.services:
            key = key_of(service.name)
            workload = await cluster.reader.workload(key)
            sample = await metrics.sli(key, now)
            if workload is not None:
                await self._consider(key, workload, sample, cluster, now)

    async def _consider(
        self,
        key: ServiceKey,
        workload: WorkloadView,
        sample: SliSample,
        cluster: SandboxCluster,
        now: datetime,
    ) -> None:
        case = self.cases.setdefault(key, _Case())
        if not (_breaches(sample) or workload_conditions(workload)):
            case.breached_since = None
            return
        if case.breached_since is None:
            case.breached_since = now
        if now - case.breached_since < _BREACH_FOR or case.paged:
            return
        if case.tried == 0:
            self.incidents += 1
            fault_at = self.played.variant.fault_at
            seconds = (now - self.start).total_seconds()
            if self.detected_at is None and fault_at is not None and seconds >= fault_at:
                self.detected_at = seconds
        if case.acted_at is not None and now - case.acted_at < _GIVEN:
            return
        await self._act(key, case, workload, cluster, now)

    async def _act(
        self, key: ServiceKey, case: _Case, workload: WorkloadView, cluster: SandboxCluster, now: datetime
    ) -> None:
        case.tried, case.acted_at = case.tried + 1, now
        older = [r for r in workload.revisions if r.number < workload.current_revision]
        if case.tried == 1:
            await self._write(cluster, _action(ActionName.RESTART, workload, {}), key, now)
        elif case.tried == 2 and older:
            # Its own restart made the newest revision: it goes back behind that.
            mine = workload.revisions[0]
            target = next((r for r in older if r.template_hash != mine.template_hash), older[0])
            rollback = _action(ActionName.ROLLBACK, workload, {"revision": target.number})
            await self._write(cluster, rollback, key, now)
        else:
            case.paged = True
            self.pages.append(key.service)

    async def _write(self, cluster: SandboxCluster, action: Action, key: ServiceKey, now: datetime) -> None:
        seconds = (now - self.start).total_seconds()
        try:
            target = await cluster.reader.target(action)
            await cluster.writer().apply(action, IntentId(f"naive-{len(self.acts)}"), target, None)
        except AgentError:
            return
        self.acts.append(Act(action=action.name, service=key.service, at=seconds))


def _breaches(sample: SliSample) -> bool:
    return (sample.error_rate or 0.0) > MAX_ERRORS or (sample.p95_latency_ms or 0.0) > MAX_P95_MS


def _action(name: ActionName, workload: WorkloadView, parameters: dict[str, int]) -> Action:
    return Action(
        name=name,
        risk=Risk.HIGH,
        target=workload.target.ref,
        parameters=dict(parameters),
        expected_effect="it may help",
        undo=None,
    )


def run_nothing(variant: Variant, start: datetime) -> Run:
    """The twin: what happens without any action."""
    return asyncio.run(_play(variant, start, act=False))


def run_naive(variant: Variant, start: datetime) -> Run:
    """The agent that restarts, then rolls back, then asks a person."""
    return asyncio.run(_play(variant, start, act=True))


async def _play(variant: Variant, start: datetime, *, act: bool) -> Run:
    clock = HandClock(start - timedelta(seconds=PAST_SECONDS))
    played = ScenarioWorld(variant, clock)
    naive = _Naive(played, start)
    horizon = variant.scenario.horizon
    looks = [(LOOK_SECONDS * n, None) for n in range(1, int(horizon / LOOK_SECONDS) + 1)] if act else []
    moments: list[tuple[float, Event | None]] = [(event.at, event) for event in variant.events]
    for seconds, event in sorted([*moments, *looks], key=lambda moment: moment[0]):
        clock.pass_to(start + timedelta(seconds=seconds))
        if event is not None:
            played.happen(event)
        else:
            await naive.look(clock.now())
    clock.pass_to(start + timedelta(seconds=horizon))
    played.world.catch_up()
    return fared(
        played,
        start,
        Run(
            acts=tuple(naive.acts),
            pages=tuple(naive.pages),
            incidents=naive.incidents,
            detected_at=naive.detected_at,
            violated={},
            unhealthy_until=0.0,
            horizon=horizon,
        ),
    )


def fared(played: ScenarioWorld, start: datetime, run: Run) -> Run:
    """The run with how every service fared."""
    end = start + timedelta(seconds=run.horizon)
    found = {name: violations(played.world.traffic.levels(name), start, end) for name in played.names}
    return replace(
        run,
        violated={name[1]: seconds for name, (seconds, _) in found.items()},
        unhealthy_until=max(last for _, last in found.values()),
    )

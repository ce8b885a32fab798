"""Promise 13 over generated histories: crashes, pauses of hours, resolutions, late answers, refusing sources.

The agent is the real one over the simulated world, on a virtual clock. At every
write an oracle that knows only what was reported, measured and seen says whether
a fresh reason stands.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    ActionName,
    Alert,
    ApprovalState,
    Deploy,
    DeployStatus,
    MetricSample,
    Payload,
    SliSample,
    TelemetryHealth,
    Trigger,
)
from app.agent.ports.store.incidents import IncidentFilter
from app.bootstrap import Adapters
from app.errors import AgentError, Forbidden
from app.testing import DEFAULT_START
from tests.reason_oracle import Measured, Reported, Seen
from tests.repositories import exchanged
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, Story, messages, story

MAX_AGE_SECONDS = 300.0
_DEADLY = frozenset({"add", "begin", "finish", "snapshot", "target", "apply"})


class Killed(BaseException):
    """The process is gone; nothing may catch this but the test."""


class Event(StrEnum):
    """What may happen next in a history."""

    FIRES = "the alert fires"
    RESOLVES = "the alert resolves"
    REPEATS = "the alert is delivered as firing again"
    BAD_SAMPLE = "a sender reports errors"
    GOOD_SAMPLE = "a sender reports that it is well"
    DEPLOY_FAILED = "a pipeline reports a failed deploy"
    DEPLOY_SUCCEEDED = "its retry succeeded"
    MEASURES_ERRORS = "the own source measures errors"
    MEASURES_HEALTH = "the own source measures health"
    MEASURES_NOTHING = "the own source has no series"
    REFUSES = "the own source answers 403"
    CRASH = "the process dies at its next step"
    HOURS = "the agent stands still for hours"
    ANSWERED = "people approve what they were asked"


@dataclass(kw_only=True)
class Stage:
    """What the generated events act on."""

    reported: Reported = field(default_factory=lambda: Reported(start=DEFAULT_START))
    measures: Event = Event.MEASURES_NOTHING
    deadly: bool = False
    writes: int = 0
    unfounded: list[str] = field(default_factory=list)
    story: Story | None = None
    alert: Alert | None = None

    @property
    def now(self) -> float:
        assert self.story is not None
        return (self.story.clock.now() - DEFAULT_START).total_seconds()

    # the metric source

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        rate = {Event.MEASURES_ERRORS: 0.4, Event.MEASURES_HEALTH: 0.001}.get(self.measures)
        answered = self.measures is not Event.REFUSES
        if self.story is not None:
            self.reported.rates["agent"] = Measured(at=self.now, answered=answered, error_rate=rate)
        if not answered:
            raise Forbidden("Prometheus answered 403 Forbidden")
        return SliSample(at=at, error_rate=rate, p95_latency_ms=None if rate is None else 80.0)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        return ()

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        return TelemetryHealth(known_services=len(keys), silent_services=0, source_reachable=True)

    # the moment of a write

    def written(self, action: Action) -> None:
        self.writes += 1
        if action.name is ActionName.RESTORE:
            return
        if not self.reported.reasons("agent", self.now, MAX_AGE_SECONDS):
            self.unfounded.append(f"{action.name} at {self.now:.0f} s without a fresh reason")


@dataclass
class Watched:
    """An adapter that reports to the stage what it shows, and over which the process may die."""

    inner: Any
    stage: Stage

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def watched(*arguments: Any, **named: Any) -> Any:
            stage = self.stage
            if stage.deadly and name in _DEADLY:
                stage.deadly = False
                raise Killed
            if name == "apply":
                stage.written(arguments[0])
            answer = await found(*arguments, **named)
            if name == "workload" and answer is not None and stage.story is not None:
                sick = any(pod.waiting_reason is not None for pod in answer.pods)
                whole = answer.rollout_complete and answer.available_replicas >= answer.desired_replicas > 0
                stage.reported.looks["agent"] = Seen(at=stage.now, unhealthy=sick, whole=whole)
            return answer

        return watched


histories = st.lists(
    st.tuples(st.sampled_from(Event), st.sampled_from([0, 5, 20, 60, 200])), min_size=4, max_size=14
)


@pytest.mark.timeout(1200)
@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, approvals=st.booleans(), crashes=st.booleans())
async def test_at_every_write_a_fresh_reason_stands(
    history: list[tuple[Event, int]], approvals: bool, crashes: bool
) -> None:
    """Whatever happens in whatever order: what is written stands on a reason that nothing contradicts."""
    stage = Stage()

    def connected(world: Adapters) -> Adapters:
        return replace(
            world,
            metrics=stage,
            reader=Watched(world.reader, stage),
            writer=Watched(world.writer, stage),
        )

    gate: dict[str, Any] = {"approval_for_risks": frozenset({"high"})} if approvals else {}
    with tempfile.TemporaryDirectory() as directory:
        async with story(
            Path(directory),
            connected=connected,
            shaken_store=lambda store: exchanged(store, intents=Watched(store.intents, stage)),
            **{**ACTING, "trust_min_requests": 0},  # its metric source counts no requests
            **gate,
        ) as told:
            stage.story = told
            told.deploy()
            await told.live(90)
            told.world.release(NAMESPACE, SERVICE, "shop:2-crash" if crashes else "shop:2")
            for event, seconds in [(Event.FIRES, 20), *history]:
                await _happens(stage, told, event)
                await _live(stage, told, seconds)
            await _live(stage, told, 120)
            page = await told.agent.store.incidents.find(
                IncidentFilter(service=SERVICE), limit=50, cursor=None
            )
            records = [await told.load(item.incident.id) for item in page.items]
            assert stage.unfounded == [], "\n".join(messages(record.timeline) for record in records)


async def _happens(stage: Stage, told: Story, event: Event) -> None:
    now = told.clock.now()
    match event:
        case Event.FIRES:
            stage.alert = Alert(
                name="HighErrorRate",
                firing=True,
                fingerprint="f1",
                starts_at=now,
                trigger=Trigger.HIGH_ERROR_RATE,
            )
            await _deliver(stage, told, stage.alert)
        case Event.RESOLVES if stage.alert is not None:
            await _deliver(stage, told, replace(stage.alert, firing=False))
        case Event.REPEATS if stage.alert is not None:
            await _deliver(stage, told, stage.alert)
        case Event.BAD_SAMPLE:
            await _deliver(stage, told, MetricSample(error_rate=0.4))
        case Event.GOOD_SAMPLE:
            await _deliver(stage, told, MetricSample(error_rate=0.001))
        case Event.DEPLOY_FAILED:
            await _deliver(stage, told, Deploy(version="2", status=DeployStatus.FAILED))
        case Event.DEPLOY_SUCCEEDED:
            await _deliver(stage, told, Deploy(version="2", status=DeployStatus.SUCCEEDED))
        case Event.MEASURES_ERRORS | Event.MEASURES_HEALTH | Event.MEASURES_NOTHING | Event.REFUSES:
            stage.measures = event
        case Event.CRASH:
            stage.deadly = True
        case Event.HOURS:
            await told.clock.advance(3 * 3600)
        case Event.ANSWERED:
            await _approve(told)


async def _deliver(stage: Stage, told: Story, payload: Payload) -> None:
    now = told.clock.now()
    alert = payload if isinstance(payload, Alert) else None
    key = None if alert is None else f"alert:{alert.fingerprint}:{alert.starts_at}:{alert.firing}"
    signal = new_signal(
        key=KEY,
        source="http",
        observed_at=now,
        received_at=now,
        payload=payload,
        stale_after=told.agent.stale_after,
        dedup_key=key,
    )
    stage.reported.told(signal, stage.now)
    await told.agent.intake.accept([signal])


async def _approve(told: Story) -> None:
    record = await told.newest()
    pending = [a for a in record.approvals if a.state is ApprovalState.PENDING] if record is not None else []
    for approval in pending:
        try:
            await told.say(approval, yes=True)
        except AgentError:
            continue  # it expired, or is void


async def _live(stage: Stage, told: Story, seconds: float) -> None:
    """Let the agent live; one that died is started again after a while."""
    until = stage.now + seconds
    while stage.now < until:
        try:
            await told.live(5)
        except Killed:
            await told.clock.advance(7)
            await told.restart()

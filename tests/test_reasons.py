"""Promise 13: without a fresh reason that was not withdrawn nothing is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.ids import IntentId, ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    ActionName,
    Alert,
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    IncidentRecord,
    IncidentState,
    MetricSample,
    OutcomeKind,
    SliSample,
    Snapshot,
    TelemetryHealth,
    Trigger,
)
from app.agent.ports.cluster import ClusterWriter
from app.agent.workload import TargetState
from app.bootstrap import Adapters
from app.errors import Conflict, Forbidden, TransientError
from tests.repositories import exchanged
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, Story, messages, story

HOURS = 3600.0

UNCOUNTED = {**ACTING, "trust_min_requests": 0}
"""The metric source of these stories counts no requests."""


class Killed(BaseException):
    """The process is gone; nothing may catch this but the test."""


@dataclass
class Metrics:
    """A metric source that answers as the test says; without an answer it has no series of any service."""

    says: Callable[[datetime], SliSample] = lambda at: SliSample(at=at)

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        return self.says(at)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        return ()

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        return TelemetryHealth(known_services=len(keys), silent_services=0, source_reachable=True)


def refuses(_: datetime) -> SliSample:
    """A source that answers 403."""
    raise Forbidden("Prometheus answered 403 Forbidden")


@dataclass
class Fragile:
    """A reader over which the process dies once, when it is about to carry out a decision."""

    inner: Any
    armed: bool = False

    def __getattr__(self, name: str) -> Any:
        if self.armed and name == "snapshot":
            self.armed = False
            raise Killed
        return getattr(self.inner, name)


@dataclass(kw_only=True)
class Setting:
    """A story with the parts that a test may turn."""

    stage: Story
    metrics: Metrics
    reader: Fragile

    @property
    def untouched(self) -> bool:
        """Nothing was ever written to the Deployment."""
        return self.stage.marker() is None and self.stage.image() == "shop:2"


@asynccontextmanager
async def innocent(directory: Path, **changes: Any) -> AsyncIterator[Setting]:
    """A service that is well, released a moment ago; what is said about it is only posted."""
    metrics, readers = Metrics(), []

    def connected(world: Adapters) -> Adapters:
        readers.append(Fragile(world.reader))
        return replace(world, metrics=metrics, reader=readers[0])

    async with story(directory, connected=connected, **{**UNCOUNTED, **changes}) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        yield Setting(stage=stage, metrics=metrics, reader=readers[0])


def alert(*, firing: bool = True, starts_at: datetime, fingerprint: str = "f1") -> Alert:
    return Alert(
        name="HighErrorRate",
        firing=firing,
        fingerprint=fingerprint,
        starts_at=starts_at,
        trigger=Trigger.HIGH_ERROR_RATE,
    )


async def fire(setting: Setting) -> Alert:
    """The alert fires now."""
    told = alert(starts_at=setting.stage.clock.now())
    accepted = await setting.stage.tell(told)
    assert accepted.disposition.kind is DispositionKind.OPENED
    return told


async def resolve(setting: Setting, told: Alert) -> None:
    await setting.stage.tell(replace(told, firing=False))


async def deliver(stage: Story, told: Alert) -> Disposition:
    """A delivery of Alertmanager: the same alert with the same start and status is the same signal."""
    now = stage.clock.now()
    status = "firing" if told.firing else "resolved"
    signal = new_signal(
        key=KEY,
        source="alertmanager",
        observed_at=told.starts_at if told.firing else now,
        received_at=now,
        payload=told,
        stale_after=timedelta.max,
        dedup_key=f"alertmanager:{told.fingerprint}:{told.starts_at.isoformat()}:{status}",
    )
    (accepted,) = await stage.agent.intake.accept([signal])
    return accepted.disposition


def tried(record: IncidentRecord) -> bool:
    """An intent came to an end."""
    return bool(record.intents) and record.intents[0].outcome is not None


def nothing_began(record: IncidentRecord) -> bool:
    return all(intent.started_at is None for intent in record.intents)


# ------------------------------------------------------------ the five stories


async def test_an_alert_that_fires_leads_to_the_rollback(tmp_path: Path) -> None:
    """The setting of the stories: with nothing against it, the alert alone is reason enough."""
    async with innocent(tmp_path) as setting:
        await fire(setting)
        record = await setting.stage.live_until(
            lambda r: bool(r.intents) and r.intents[0].outcome is not None
        )
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK], messages(record.timeline)
        decided = next(e for e in record.timeline if "stands_on" in e.data)
        assert [r["reason"] for r in decided.data["stands_on"]] == ["the alert HighErrorRate"]  # type: ignore[union-attr,index,call-overload]  # plain JSON


async def test_nothing_is_rolled_back_three_hours_after_the_diagnosis(tmp_path: Path) -> None:
    """Killed between decision and write; three hours later nothing says any more that it is unhealthy."""
    async with innocent(tmp_path) as setting:
        await fire(setting)
        setting.reader.armed = True
        with pytest.raises(Killed):
            await setting.stage.live_until_ended()
        await setting.stage.clock.advance(3 * HOURS)
        await setting.stage.restart()
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)
        assert record.incident.state is IncidentState.ESCALATED
        assert "the alert HighErrorRate was last known to be true at" in record.incident.summary
        assert "Re-evaluating: " in messages(record.timeline)


async def test_nothing_is_done_on_an_alert_that_already_resolved(tmp_path: Path) -> None:
    """It resolved while the incident gathered signals; no series shows the recovery: a person is asked."""
    async with innocent(tmp_path) as setting:
        told = await fire(setting)
        await setting.stage.clock.advance(2)
        await resolve(setting, told)
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)
        assert record.incident.state is IncidentState.ESCALATED
        assert "the alert HighErrorRate was reported as resolved at" in messages(record.timeline)
        assert messages(record.timeline).count("Waiting for fresh evidence") == 1


async def test_nothing_is_done_while_the_agents_own_measurement_is_within_the_objective(
    tmp_path: Path,
) -> None:
    """0.1 % errors measured: neither alert nor posted samples count, and there is no all-clear either."""
    async with innocent(tmp_path) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        await fire(setting)
        await setting.stage.tell(MetricSample(error_rate=0.4))
        ended = await setting.stage.live_until_ended()
        assert ended.incident.state is IncidentState.ESCALATED
        assert "error rate was reported, but its measured error rate is 0.1" in messages(ended.timeline)
        assert setting.untouched, messages(ended.timeline)
        assert nothing_began(ended)


async def test_nothing_is_done_when_the_metric_source_answers_403(tmp_path: Path) -> None:
    """Failing to measure is a telemetry outage, never a reason: what was posted does not stand alone."""
    async with innocent(tmp_path) as setting:
        setting.metrics.says = refuses
        await fire(setting)
        await setting.stage.tell(MetricSample(error_rate=0.4))
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)
        assert record.incident.state is IncidentState.ESCALATED
        assert "403" in record.incident.summary


async def test_nothing_is_done_on_figures_five_hours_old(tmp_path: Path) -> None:
    """Posted figures that the agent slept over for five hours, and a series whose newest sample is as old."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        for _ in range(3):
            await stage.tell(MetricSample(error_rate=0.4))
            await stage.clock.advance(20)
        await stage.clock.advance(5 * HOURS)
        setting.metrics.says = lambda at: SliSample(at=at - timedelta(hours=5), error_rate=0.4)
        await stage.restart()
        record = await stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)
        assert "last known to be true at" in messages(record.timeline)


# ------------------------------------------------------------ withdrawals


async def test_a_recovery_measured_by_the_agent_ends_the_incident_without_action(tmp_path: Path) -> None:
    """Resolved and measured within the objective for the soak."""
    async with innocent(tmp_path) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        told = await fire(setting)
        await resolve(setting, told)
        record = await setting.stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)


async def test_a_healthy_sample_withdraws_what_posted_samples_opened(tmp_path: Path) -> None:
    """The reporter of the breach reports that it is over."""
    async with innocent(tmp_path) as setting:
        for _ in range(3):
            await setting.stage.tell(MetricSample(error_rate=0.4))
            await setting.stage.clock.advance(15)
        await setting.stage.tell(MetricSample(error_rate=0.001))
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert "The symptoms ended before any action" in messages(record.timeline)


async def test_a_failed_deploy_whose_retry_succeeded_is_over(tmp_path: Path) -> None:
    """The pipeline says so; nothing else speaks for acting."""
    async with innocent(tmp_path) as setting:
        await setting.stage.tell(Deploy(version="2", status=DeployStatus.FAILED))
        await setting.stage.clock.advance(5)
        await setting.stage.tell(Deploy(version="2", status=DeployStatus.SUCCEEDED))
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)


@dataclass
class Resolving:
    """A writer or reader before whose call something happens, once."""

    inner: Any
    method: str
    happens: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name != self.method or self.happens is None:
            return found
        happens, self.happens = self.happens, None

        async def after(*arguments: Any, **named: Any) -> Any:
            await happens()
            return await found(*arguments, **named)

        return after


@pytest.mark.parametrize("count", [1, 40])
async def test_a_resolution_that_commits_right_before_the_action_begins_refuses_it(
    tmp_path: Path, count: int
) -> None:
    """The transaction that begins the action sees it, though the look a moment before did not.

    However many alerts there are: the record keeps less of those that ended.
    """
    stores: list[Resolving] = []

    def shaken(store: Any) -> Any:
        stores.append(Resolving(store.intents, "begin"))
        return exchanged(store, intents=stores[0])

    metrics = Metrics()
    async with story(
        tmp_path,
        connected=lambda world: replace(world, metrics=metrics),
        shaken_store=shaken,
        **UNCOUNTED,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        told = [alert(starts_at=stage.clock.now(), fingerprint=f"f{number}") for number in range(count)]
        for one in told:
            await stage.tell(one)

        async def resolved() -> None:
            for one in told:
                await stage.tell(replace(one, firing=False))

        stores[0].happens = resolved
        record = await stage.live_until(tried)
        outcome = record.intents[0].outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.REFUSED, messages(record.timeline)
        known = "reported as resolved" if count == 1 else "no longer on record"
        assert f"the alert HighErrorRate was {known} at" in outcome.message
        assert nothing_began(record)
        await stage.live_until_ended()
        assert stage.marker() is None


async def test_the_agent_that_stood_still_after_it_began_sends_nothing(tmp_path: Path) -> None:
    """The process pauses for hours between the durable intent and the write."""
    stores: list[Resolving] = []

    def shaken(store: Any) -> Any:
        stores.append(_PausesAfter(store.intents, "begin"))
        return exchanged(store, intents=stores[0])

    metrics = Metrics()
    async with story(
        tmp_path, connected=lambda world: replace(world, metrics=metrics), shaken_store=shaken, **UNCOUNTED
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        await stage.tell(alert(starts_at=stage.clock.now()))

        async def paused() -> None:
            stage.clock._now += timedelta(hours=3)

        stores[0].happens = paused
        record = await stage.live_until(tried)
        outcome = record.intents[0].outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.REFUSED
        assert outcome.message.startswith("not sent, because there is no current reason")
        assert stage.marker() is None


class _PausesAfter(Resolving):
    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name != self.method or self.happens is None:
            return found
        happens, self.happens = self.happens, None

        async def then(*arguments: Any, **named: Any) -> Any:
            answer = await found(*arguments, **named)
            await happens()
            return answer

        return then


@dataclass
class Conflicting:
    """A writer whose first write meets a conflict, while the world goes on."""

    inner: ClusterWriter
    meanwhile: Callable[[], Any] | None = None
    tries: int = 0

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        self.tries += 1
        if self.tries == 1 and self.meanwhile is not None:
            await self.meanwhile()
            raise Conflict("its status was written at the same moment")
        return await self.inner.apply(action, intent_id, target, snapshot)


async def test_a_write_that_met_a_conflict_is_repeated_only_on_a_reason(tmp_path: Path) -> None:
    """The alert resolves between two tries of one write: the second is not sent."""
    writers: list[Conflicting] = []

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(Conflicting(world.writer))
        return replace(world, metrics=Metrics(), writer=writers[0])

    async with story(tmp_path, connected=connected, **UNCOUNTED) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        told = alert(starts_at=stage.clock.now())
        await stage.tell(told)

        async def resolved() -> None:
            await stage.tell(replace(told, firing=False))

        writers[0].meanwhile = resolved
        record = await stage.live_until_ended()
        assert writers[0].tries == 1
        outcome = record.intents[0].outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.REFUSED
        assert stage.marker() is None


async def test_an_approval_that_comes_after_the_resolution_is_not_used(tmp_path: Path) -> None:
    """People said yes to a state of affairs that is over."""
    async with innocent(tmp_path, approval_for_risks=frozenset({"high"})) as setting:
        told = await fire(setting)
        asked = await setting.stage.live_until_asked()
        await setting.stage.clock.advance(120)
        await resolve(setting, told)
        await setting.stage.say(asked, yes=True)
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)


async def test_a_late_approval_is_used_while_the_agent_itself_measures_the_breach(tmp_path: Path) -> None:
    """An hour later the own measurement still is above the objective: the reason is fresh."""
    async with innocent(tmp_path, approval_for_risks=frozenset({"high"})) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.4, p95_latency_ms=80.0)
        await fire(setting)
        asked = await setting.stage.live_until_asked()
        await setting.stage.clock.advance(HOURS)
        await setting.stage.say(asked, yes=True)
        record = await setting.stage.live_until(
            lambda r: bool(r.intents) and r.intents[0].outcome is not None
        )
        assert setting.stage.image() == "shop:1", messages(record.timeline)


# ------------------------------------------------------------ an alert is reported firing after its end


async def test_a_late_copy_of_a_resolved_alert_is_no_reason_and_a_repeat_is(tmp_path: Path) -> None:
    """The first firing copy after the resolution may be late; a further one later is the alert again."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        told = alert(starts_at=stage.clock.now())
        assert (await deliver(stage, told)).kind is DispositionKind.OPENED
        await stage.clock.advance(5)
        assert (await deliver(stage, replace(told, firing=False))).kind is DispositionKind.JOINED
        await stage.clock.advance(5)
        for _ in range(3):  # a late copy, and retries of its delivery
            assert (await deliver(stage, told)).kind is DispositionKind.DEDUPLICATED
        record = await stage.live_until(lambda r: r.incident.without_reason_since is not None)
        assert nothing_began(record)
        await stage.clock.advance(30)
        assert (await deliver(stage, told)).kind is DispositionKind.JOINED
        record = await stage.live_until(tried)
        assert record.intents[0].action.name is ActionName.ROLLBACK, messages(record.timeline)
        assert "the alert HighErrorRate" in str([e.data.get("stands_on") for e in record.timeline])


async def test_a_repeat_after_the_resolution_opens_an_incident_and_a_second_end_is_heard(
    tmp_path: Path,
) -> None:
    """The same start as before, with no incident open; its second resolution counts, though a duplicate."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        told = alert(starts_at=stage.clock.now())
        ended = replace(told, firing=False)
        assert (await deliver(stage, ended)).kind is DispositionKind.IGNORED
        assert (await deliver(stage, told)).kind is DispositionKind.IGNORED
        await stage.clock.advance(240)
        assert (await deliver(stage, told)).kind is DispositionKind.OPENED
        assert (await deliver(stage, ended)).kind is DispositionKind.DEDUPLICATED
        record = await stage.live_until_ended()
        assert nothing_began(record), messages(record.timeline)


async def test_a_repeat_keeps_the_reason_fresh(tmp_path: Path) -> None:
    """An approval after ten minutes is used where the alert was repeated a minute before."""
    async with innocent(tmp_path, approval_for_risks=frozenset({"high"})) as setting:
        stage = setting.stage
        told = alert(starts_at=stage.clock.now())
        await deliver(stage, told)
        asked = await stage.live_until_asked()
        await stage.clock.advance(540)
        assert (await deliver(stage, told)).kind is DispositionKind.DEDUPLICATED
        await stage.clock.advance(60)
        await stage.say(asked, yes=True)
        record = await stage.live_until(tried)
        assert stage.image() == "shop:1", messages(record.timeline)


# ------------------------------------------------------------ no all-clear while the alert fires


async def test_an_incident_does_not_recover_while_the_alert_that_opened_it_fires(tmp_path: Path) -> None:
    """After an action the levels are within the objective, and the alert still fires: the verdict is open."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(
            at=at, error_rate=0.001 if stage.image() == "shop:1" else 0.4, p95_latency_ms=80.0
        )
        await fire(setting)
        record = await stage.live_until_ended()
        assert stage.image() == "shop:1"
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert "the alert HighErrorRate is still firing" in messages(record.timeline)


async def test_an_incident_recovers_once_its_alert_has_resolved(tmp_path: Path) -> None:
    """The soak counts from there."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(
            at=at, error_rate=0.001 if stage.image() == "shop:1" else 0.4, p95_latency_ms=80.0
        )
        told = await fire(setting)
        await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
        await stage.live(100)
        await resolve(setting, told)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


# ------------------------------------------------------------ what does not stand in the way


async def test_a_store_that_was_down_for_hours_leaves_no_reason(tmp_path: Path) -> None:
    """The step that could not be taken is taken again, on what is true by then."""
    readers: list[_Silent] = []

    def connected(world: Adapters) -> Adapters:
        readers.append(_Silent(world.reader))
        return replace(world, metrics=Metrics(), reader=readers[0])

    async with story(tmp_path, connected=connected, verify_timeout_seconds=4 * HOURS, **UNCOUNTED) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        await stage.tell(alert(starts_at=stage.clock.now()))
        readers[0].down = True
        await stage.live_until(lambda r: "Retrying" in messages(r.timeline))
        await stage.clock.advance(3 * HOURS)
        readers[0].down = False
        await stage.live(300)
        record = await stage.newest()
        assert record is not None
        assert stage.marker() is None, messages(record.timeline)
        assert nothing_began(record)


@dataclass
class _Silent:
    inner: Any
    down: bool = False

    def __getattr__(self, name: str) -> Any:
        if not (self.down and name == "target"):
            return getattr(self.inner, name)

        async def refuse(*_: Any) -> Any:
            raise TransientError("the API server does not answer")

        return refuse


async def test_a_dry_run_proposes_as_before(tmp_path: Path) -> None:
    """Nothing is written anyway: what would have been done is said."""
    async with innocent(tmp_path, dry_run=True) as setting:
        await setting.stage.tell(Deploy(version="2", status=DeployStatus.FAILED), age_seconds=30 * 86400)
        report = await setting.stage.agent.loop.run_once(SERVICE, NAMESPACE)
        (passed,) = report.passes
        assert passed.record.incident.state in (IncidentState.PROPOSED, IncidentState.ESCALATED)
        assert setting.untouched

"""The agent silences the alerts of a service while it heals it: over the stand-in for Alertmanager."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.models import ActionName, IncidentRecord, IncidentState, Intent, OutcomeKind, SliSample
from app.agent.responders.request import ResponderAct
from app.bootstrap import Adapters
from app.config import Settings
from app.connectors.alerts.own_silences import AlertmanagerSilenceWriter
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.peer_breaker import PeerBreaker, guarded_alerts
from app.connectors.registry import ALERT_FORMATS
from app.connectors.silencing.ports import (
    IncidentSilences,
    SilencingReader,
    SilencingRehearsal,
    SilencingWriter,
)
from app.sandbox.metrics import SandboxMetrics
from app.workers.alerts.own_silences import AgentSilences
from app.workers.alerts.poller import AlertPoller
from tests.contract.alertmanager_standin import AlertmanagerStandIn, alertmanager_standin
from tests.stories import NAMESPACE, SERVICE, Story, messages, story
from tests.test_reasons import UNCOUNTED, Killed, Metrics, tried
from tests.test_undo_on_request import ask

LABELS = {"alertname": "HighErrorRate", "namespace": NAMESPACE, "service": SERVICE, "severity": "page"}
MINUTE = timedelta(minutes=1)
RUNBOOKS = Path(__file__).parent.parent / "runbooks"


@dataclass(kw_only=True)
class Fragile:
    """A writer that dies once, before or after a silence was written."""

    inner: Any
    dies: str = ""

    async def apply(self, action: Any, *rest: Any) -> Any:
        if action.name is not ActionName.SILENCE_ALERTS or not self.dies:
            return await self.inner.apply(action, *rest)
        dies, self.dies = self.dies, ""
        if dies == "after":
            await self.inner.apply(action, *rest)
        raise Killed


@dataclass(kw_only=True)
class Silenced:
    """A service just released, whose alert fires; nothing is measured but what alerts report."""

    stage: Story
    monitoring: AlertmanagerStandIn
    poller: AlertPoller
    writer: Fragile
    polled_at: datetime | None = None

    async def live(self, seconds: float) -> None:
        """Let time pass; the alerts are polled every minute."""
        until = self.stage.clock.now() + timedelta(seconds=seconds)
        while self.stage.clock.now() < until:
            await self.stage.live(5)
            now = self.stage.clock.now()
            if self.polled_at is None or now - self.polled_at >= MINUTE:
                self.polled_at = now
                await self.poller.poll()

    async def live_until(
        self, holds: Callable[[IncidentRecord], bool], limit_seconds: float = 2400
    ) -> IncidentRecord:
        until = self.stage.clock.now() + timedelta(seconds=limit_seconds)
        while self.stage.clock.now() < until:
            await self.live(5)
            record = await self.stage.newest()
            if record is not None and holds(record):
                return record
        record = await self.stage.newest()
        raise AssertionError(messages(record.timeline) if record else "no incident")

    async def until_ended(self) -> IncidentRecord:
        return await self.live_until(lambda record: record.incident.state.closed)

    def fire(self) -> None:
        self.monitoring.post(LABELS, self.stage.clock.now())

    def end_alert(self) -> None:
        """It ends while it is silenced: Alertmanager notifies of neither."""
        self.monitoring.post(LABELS, None, self.stage.clock.now())

    async def deliver(self, *, ended: bool = False) -> None:
        """Alertmanager notifies that the alert fires, or that it has ended."""
        (listed,) = self.monitoring.alerts.values()
        body = {"version": "4", "alerts": [{**listed, "status": "resolved" if ended else "firing"}]}
        batch = (
            ALERT_FORMATS[0]
            .read(body)
            .batch(settings=self.stage.agent.settings, received_at=self.stage.clock.now())
        )
        await self.stage.agent.intake.accept(batch.signals)


def runbooks(folder: Path) -> Path:
    """The shipped runbooks, with a silence before the rollback of a bad release."""
    copied = folder / "runbooks"
    shutil.copytree(RUNBOOKS, copied)
    file = copied / "roll-back-bad-release.yaml"
    text = file.read_text().replace("steps:\n", f"steps:\n{STEP}", 1)
    assert STEP in text
    file.write_text(text)
    return copied


STEP = "  - action: silence_alerts\n    parameters:\n      minutes: 30\n"


@asynccontextmanager
async def silencing(folder: Path, *, enabled: bool = True, **changes: Any) -> AsyncIterator[Silenced]:
    clocks: list[Any] = []
    writers: list[Fragile] = []
    async with alertmanager_standin(
        lambda: clocks[0].now() if clocks else datetime(2026, 1, 1, tzinfo=UTC)
    ) as am:
        given: dict[str, Any] = {
            **UNCOUNTED,
            "runbooks_dir": runbooks(folder),
            "alertmanager_url": am.url,
            "alertmanager_receiver": am.receiver,
            "verify_timeout_seconds": 900,
            "enabled_actions": ENABLED_BY_DEFAULT | ({ActionName.SILENCE_ALERTS} if enabled else set()),
            **changes,
        }
        settings = Settings(_env_file=None, alertmanager_url=am.url, alertmanager_receiver=am.receiver)
        source = AlertmanagerSilences.from_settings(settings)
        api = AlertmanagerSilenceWriter.from_settings(settings)
        breaker = PeerBreaker(name="Alertmanager")

        metrics = Metrics()

        def connected(world: Adapters) -> Adapters:
            assert isinstance(world.metrics, SandboxMetrics)
            clock = world.metrics._world.clock
            clocks.append(clock)
            assert world.reader is not None
            assert world.rehearsal is not None
            reader = SilencingReader(cluster=world.reader, silences=source, clock=clock)
            ending = None
            writer = None
            if world.writer is not None:
                writes = SilencingWriter(cluster=world.writer, silences=source, writer=api, clock=clock)
                writer = Fragile(inner=writes)
                writers.append(writer)
                ending = IncidentSilences(silences=source, writer=api, clock=clock)
            return replace(
                world,
                metrics=metrics,
                reader=reader,
                rehearsal=SilencingRehearsal(cluster=world.rehearsal, silences=source),
                writer=writer,
                silences=source,
                own_silences=source,
                silence_ending=ending,
                alerts=guarded_alerts(source, breaker, MINUTE),
            )

        async with story(folder, connected=connected, **given) as stage:
            agent = stage.agent
            assert agent.world.alerts is not None
            poller = AlertPoller(
                source=agent.world.alerts,
                settings=agent.settings,
                signals=agent.store.signals,
                incidents=agent.store.incidents,
                silences=AgentSilences(
                    source=agent.world.alerts,
                    incidents=agent.store.incidents,
                    ending=agent.world.silence_ending,
                )
                if enabled
                else None,
                intake=agent.intake,
                owners=None,
                clock=agent.clock,
                measures=agent.measures,
            )

            def measured(at: datetime) -> SliSample:
                """The release is not measured; what ran before it is healthy."""
                healthy = stage.image() == "shop:1"
                return (
                    SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0) if healthy else SliSample(at=at)
                )

            found = Silenced(
                stage=stage,
                monitoring=am,
                poller=poller,
                writer=writers[0] if writers else Fragile(inner=None),
            )
            stage.deploy()
            await stage.live(180)
            stage.world.release(NAMESPACE, SERVICE, "shop:2")
            await stage.live(10)
            metrics.says = measured
            found.fire()
            await found.deliver()
            try:
                yield found
            finally:
                await source.aclose()
                await api.aclose()


def silences_of(record: IncidentRecord) -> list[Intent]:
    return [one for one in record.intents if one.action.name is ActionName.SILENCE_ALERTS]


async def test_the_end_of_a_silenced_alert_is_read_and_the_incident_recovers(tmp_path: Path) -> None:
    """Silenced, rolled back, the alert ends unheard: it is read from the list, and the silence is removed."""
    async with silencing(tmp_path) as one:
        record = await one.live_until(tried)
        while one.stage.image() != "shop:1":
            await one.live(5)
        (silence,) = one.monitoring.in_force()
        assert silence["createdBy"] == "self-healing-devops-agent"
        await one.live(60)
        one.end_alert()
        record = await one.until_ended()
        said = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, said
        assert one.monitoring.in_force() == []
        assert "The agent ended its silence: alerts of shop in prod notify again." in said
        assert "Rehearsal (read only): the monitoring accepts silence alerts" in said
        assert "no longer listed by its source" in said
        assert "silenced by" not in said, "its own silence is no silence of people"
        assert [i.action.name for i in record.intents] == [ActionName.SILENCE_ALERTS, ActionName.ROLLBACK]
        assert record.incident.verdict is not None
        assert record.incident.verdict.intent_id == record.intents[1].id
        assert len([w for w in one.monitoring.writes if w.startswith("POST")]) == 1


async def test_an_alert_that_fires_on_is_no_recovery_and_the_silence_ends_with_the_escalation(
    tmp_path: Path,
) -> None:
    async with silencing(tmp_path) as one:
        record = await one.until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert len(silences_of(record)) == 1, "one silence for an incident"
        assert one.monitoring.in_force() == []
        assert "Silence prod/shop" not in record.incident.summary


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_a_killed_process_creates_no_second_silence(tmp_path: Path, dies: str) -> None:
    """After the write it is adopted; before it, it is not sent again, and the rollback goes on."""
    async with silencing(tmp_path) as one:
        one.writer.dies = dies
        with pytest.raises(Killed):
            await one.live_until(tried)
        await one.stage.restart()
        record = await one.live_until(lambda r: len(r.intents) > 1 and r.intents[1].outcome is not None)
        (silence,) = silences_of(record)
        assert silence.outcome is not None
        known = {"after": OutcomeKind.DONE, "before": OutcomeKind.UNKNOWN}
        assert silence.outcome.kind is known[dies], messages(record.timeline)
        assert len(one.monitoring.in_force()) == (1 if dies == "after" else 0)
        assert one.stage.image() == "shop:1"
        one.end_alert()
        if dies == "before":
            await one.deliver(ended=True)
        record = await one.until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert one.monitoring.in_force() == []


async def test_a_silence_that_arrives_after_its_answer_was_lost_is_ended_too(tmp_path: Path) -> None:
    async with silencing(tmp_path) as one:
        one.monitoring.loses = True
        record = await one.live_until(tried)
        (silence,) = silences_of(record)
        assert silence.outcome is not None
        assert silence.outcome.kind is OutcomeKind.DONE, "found by its intent"
        assert len(one.monitoring.in_force()) == 1
        one.end_alert()
        record = await one.until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert one.monitoring.in_force() == []


async def test_a_request_that_was_lost_is_not_sent_again(tmp_path: Path) -> None:
    """It may still arrive: the outcome is unknown, and what heals goes on."""
    async with silencing(tmp_path) as one:
        one.monitoring.drops = True
        record = await one.live_until(lambda r: len(r.intents) > 1 and r.intents[1].outcome is not None)
        (silence,) = silences_of(record)
        assert silence.outcome is not None
        assert silence.outcome.kind is OutcomeKind.UNKNOWN, messages(record.timeline)
        assert one.monitoring.writes == ["POST /api/v2/silences"]
        assert one.stage.image() == "shop:1"


async def test_a_monitoring_out_of_reach_at_the_end_is_asked_again(tmp_path: Path) -> None:
    """The incident ends, the timeline says that the silence stands, and a later poll ends it."""
    async with silencing(tmp_path) as one:
        await one.live_until(lambda r: len(silences_of(r)) == 1 and silences_of(r)[0].outcome is not None)
        assert len(one.monitoring.in_force()) == 1
        record = await one.stage.newest()
        assert record is not None
        ending = one.stage.agent.loop.stages.closer.silences
        assert ending is not None
        one.end_alert()
        await one.live_until(lambda r: "no longer listed" in messages(r.timeline))
        one.monitoring.status = 503
        record = await one.stage.live_until_ended()
        assert "was not ended" in messages(record.timeline)
        assert len(one.monitoring.in_force()) == 1
        one.monitoring.status = 200
        await one.live(61)
        assert one.monitoring.in_force() == []


async def test_a_person_who_takes_over_hears_the_alerts_again(tmp_path: Path) -> None:
    async with silencing(tmp_path) as one:
        record = await one.live_until(
            lambda r: len(silences_of(r)) == 1 and silences_of(r)[0].outcome is not None
        )
        await ask(one.stage, record, ResponderAct.TAKE_OVER)
        await one.live(61)
        assert one.monitoring.in_force() == []


async def test_people_hear_the_alerts_while_an_approval_is_awaited(tmp_path: Path) -> None:
    """The agent does nothing until they answer."""
    async with silencing(tmp_path, approval_for_risks=["high"]) as one:
        await one.live_until(lambda r: r.incident.state is IncidentState.AWAITING_APPROVAL)
        await one.live(61)
        assert one.monitoring.in_force() == []


async def test_silences_that_cannot_be_listed_stop_no_poll(tmp_path: Path) -> None:
    """An alert whose delivery was lost is found all the same."""
    async with silencing(tmp_path, enabled=False) as one:
        one.monitoring.status = 500
        assert await one.poller.poll() == 0


async def test_it_is_off_by_default_and_the_runbook_goes_on_without_it(tmp_path: Path) -> None:
    async with silencing(tmp_path, enabled=False) as one:
        record = await one.live_until(tried)
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK], "it is not even planned"
        assert one.monitoring.writes == []
        assert one.stage.image() == "shop:1"


async def test_a_dry_run_proposes_it_and_writes_nothing(tmp_path: Path) -> None:
    async with silencing(tmp_path, dry_run=True) as one:
        record = await one.live_until(lambda r: len(r.intents) == 2)
        assert record.intents[0].action.name is ActionName.SILENCE_ALERTS
        assert record.intents[0].rehearsal is not None
        assert 'service="shop" would be silenced for 30 minutes' in record.intents[0].rehearsal.message
        await one.live(300)
        assert one.monitoring.writes == []


async def test_a_silence_that_is_refused_leaves_the_rollback(tmp_path: Path) -> None:
    """A silence that would mute another service is refused; what heals does not depend on it."""
    async with silencing(tmp_path) as one:
        one.monitoring.post({**LABELS, "deployment": "cart", "exported_service": "x"}, one.stage.clock.now())
        record = await one.live_until(lambda r: len(r.intents) > 1 and r.intents[1].outcome is not None)
        (silence,) = silences_of(record)
        assert silence.outcome is None or silence.outcome.kind is not OutcomeKind.DONE
        assert one.monitoring.writes == []
        assert one.stage.image() == "shop:1", messages(record.timeline)

"""No action on a silenced service; after the silence only if a reason still holds (promise 13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.freshness.silences import Matcher, Silence, Silencing
from app.agent.ids import ServiceKey
from app.agent.models import (
    Alert,
    IncidentState,
    SliSample,
    Trigger,
)
from app.bootstrap import Adapters
from app.errors import Forbidden, TransientError
from tests.repositories import exchanged
from tests.stories import NAMESPACE, SERVICE, Story, messages, story
from tests.test_reasons import UNCOUNTED, Fragile, Killed, Metrics, Resolving, alert, nothing_began, tried


@dataclass
class Silences:
    """A source of silences that answers as the test says."""

    found: list[Silencing] = field(default_factory=list)
    fault: str = ""

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        if self.fault:
            raise Forbidden(self.fault)
        return tuple(one for one in self.found if one.silence.active(at))

    def add(self, at: datetime, seconds: float, *alerts: str) -> None:
        """From now on for so long: the service, or only its alerts of these names."""
        silence = Silence(
            id=f"s{len(self.found)}",
            matchers=(),
            starts_at=at,
            ends_at=at + timedelta(seconds=seconds),
            by="ann",
            comment="migration",
        )
        names = tuple(Matcher(name="alertname", value=name) for name in alerts)
        self.found.append(Silencing(silence=silence, alerts=names))


@asynccontextmanager
async def alerted(
    directory: Path, *, error_rate: float | None = None, armed: bool = False
) -> AsyncIterator[tuple[Story, Silences, Alert]]:
    """A service just released, whose alert fires; its errors are measured once a person silences it."""
    silences = Silences()
    metrics = Metrics(says=lambda at: SliSample(at=at, error_rate=error_rate if silences.found else None))

    def connected(world: Adapters) -> Adapters:
        reader: Any = Fragile(world.reader, armed=armed)
        return replace(world, metrics=metrics, reader=reader, silences=silences)

    async with story(directory, connected=connected, **UNCOUNTED) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        alert = Alert(
            name="HighErrorRate",
            firing=True,
            fingerprint="f1",
            starts_at=stage.clock.now(),
            trigger=Trigger.HIGH_ERROR_RATE,
        )
        await stage.tell(alert)
        yield stage, silences, alert


async def test_nothing_is_written_while_the_service_is_silenced(tmp_path: Path) -> None:
    """The alert repeats, the timeline says so once; the silence ends, the alert fires: it is acted on."""
    async with alerted(tmp_path) as (stage, silences, alert):
        silences.add(stage.clock.now(), 1800)
        for _ in range(10):
            await stage.live(170)
            await stage.tell(alert)
        record = await stage.newest()
        assert record is not None
        assert record.incident.state is IncidentState.OPEN
        assert not record.intents
        assert messages(record.timeline).count("silenced by ann until") == 1
        assert "(migration)" in messages(record.timeline)
        await stage.live(110)
        await stage.tell(alert)
        record = await stage.live_until(tried)
        assert record.intents[0].started_at is not None
        assert stage.image() == "shop:1"


async def test_a_silence_set_between_decision_and_write_stops_the_write(tmp_path: Path) -> None:
    """Asked again right before the write, here after the process was killed in between."""
    async with alerted(tmp_path, armed=True) as (stage, silences, _):
        with pytest.raises(Killed):
            await stage.live_until(tried)
        record = await stage.newest()
        assert record is not None
        assert record.intents
        silences.add(stage.clock.now(), 7200)
        await stage.restart()
        await stage.live(120)
        record = await stage.newest()
        assert record is not None
        assert nothing_began(record), messages(record.timeline)
        refused = record.intents[0].outcome
        assert refused is not None
        assert "the service was silenced by ann until" in refused.message
        assert stage.image() == "shop:2"


async def test_a_silenced_alert_is_no_reason_and_another_one_is(tmp_path: Path) -> None:
    """The silence of one alert leaves the others."""
    async with alerted(tmp_path) as (stage, silences, alert):
        silences.add(stage.clock.now(), 7200, "HighErrorRate")
        await stage.live(120)
        record = await stage.newest()
        assert record is not None
        assert nothing_began(record)
        other = replace(alert, name="ErrorBudgetBurn", fingerprint="f2", starts_at=stage.clock.now())
        await stage.tell(other)
        record = await stage.live_until(tried)
        assert record.intents[0].started_at is not None, messages(record.timeline)


async def test_nothing_is_done_while_silences_cannot_be_read(tmp_path: Path) -> None:
    """It may be silenced: a person is asked, and the timeline names the source and its answer."""
    async with alerted(tmp_path) as (stage, silences, _):
        silences.fault = "Alertmanager (ALERTMANAGER_URL) answered 403"
        record = await stage.live_until_ended()
        assert nothing_began(record)
        assert record.incident.state is IncidentState.ESCALATED
        assert "silences could not be read (Alertmanager (ALERTMANAGER_URL) answered 403)" in messages(
            record.timeline
        )
        assert stage.image() == "shop:2"


async def test_a_silence_stops_neither_verification_nor_undo(tmp_path: Path) -> None:
    """Set right after the write: the action is judged and, not having helped, undone."""
    async with alerted(tmp_path, error_rate=0.4) as (stage, silences, _):
        await stage.live_until(tried)
        silences.add(stage.clock.now(), 36_000)
        record = await stage.live_until(lambda r: any(i.undoes and i.outcome for i in r.intents), 3600)
        assert stage.image() == "shop:2", messages(record.timeline)


async def test_an_alert_reported_as_suppressed_takes_its_reason_back(tmp_path: Path) -> None:
    """And is one again as soon as it is reported firing."""
    async with alerted(tmp_path) as (stage, _, alert):
        await stage.tell(replace(alert, firing=False, suppressed=True))
        await stage.live(120)
        record = await stage.newest()
        assert record is not None
        assert nothing_began(record)
        assert "reported as suppressed" in messages(record.timeline)
        await stage.tell(alert)
        record = await stage.live_until(tried)
        assert record.intents[0].started_at is not None


def _of_severity(stage: Story, *, elsewhere: bool) -> Silencing:
    """A silence on a label that is not known of the alert."""
    now = stage.clock.now()
    return Silencing(
        silence=Silence(
            id="s1",
            matchers=(Matcher(name="severity", value="page"),),
            starts_at=now,
            ends_at=now + timedelta(days=30),
            by="bob",
            comment="another team",
        ),
        labels_only=True,
        elsewhere=elsewhere,
    )


async def test_a_silence_that_may_mean_the_alert_ends_with_a_person(tmp_path: Path) -> None:
    """Its labels were not kept: nothing is written, and the incident is escalated, not left waiting."""
    async with alerted(tmp_path) as (stage, silences, alert):
        silences.found.append(_of_severity(stage, elsewhere=False))
        for _ in range(6):
            await stage.live(170)
            await stage.tell(alert)
        record = await stage.live_until_ended()
        assert nothing_began(record), messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED
        assert "the alert HighErrorRate may be silenced by bob until" in record.incident.summary
        assert "its labels were not kept, so this could not be checked" in record.incident.summary


async def test_a_silence_of_another_service_is_no_reason_to_wait(tmp_path: Path) -> None:
    """Whether or not the labels of the alert were kept, it is acted on."""
    async with alerted(tmp_path) as (stage, silences, _):
        silences.found.append(_of_severity(stage, elsewhere=True))
        record = await stage.live_until(tried)
        assert record.intents[0].started_at is not None, messages(record.timeline)


@pytest.mark.parametrize("named", [False, True])
async def test_a_silenced_alert_beside_a_healthy_measurement_waits(tmp_path: Path, named: bool) -> None:
    """People muted it: no escalation and no all-clear until it resolves, whatever the silence names."""
    async with alerted(tmp_path, error_rate=0.001) as (stage, silences, alert):
        silences.add(stage.clock.now(), 36_000, *(["HighErrorRate"] if named else []))
        for _ in range(6):
            await stage.live(200)
            await stage.tell(alert)
        record = await stage.newest()
        assert record is not None
        assert record.incident.state is IncidentState.OPEN, messages(record.timeline)
        assert messages(record.timeline).count("silenced by ann until") == 1
        await stage.tell(replace(alert, firing=False))
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)


async def test_two_momentary_failures_far_apart_end_no_waiting_incident(tmp_path: Path) -> None:
    """Each is retried by itself: in between the agent examined the incident and went on waiting."""
    silences, stores = Silences(), list[Resolving]()

    def shaken(store: Any) -> Any:
        stores.append(Resolving(store.claims, "renew"))
        return exchanged(store, claims=stores[0])

    async with story(
        tmp_path,
        connected=lambda world: replace(world, metrics=Metrics(), silences=silences),
        shaken_store=shaken,
        **UNCOUNTED,
    ) as stage:

        async def fails() -> None:
            raise TransientError("the store does not answer")

        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        told = alert(starts_at=stage.clock.now())
        await stage.tell(told)
        silences.add(stage.clock.now(), 86_400)
        for _ in range(2):
            for _ in range(10):
                await stage.live(60)
                await stage.tell(told)
            stores[0].happens = fails
            while stores[0].happens is not None:
                await stage.live(5)
            record = await stage.newest()
            assert record is not None
            assert record.incident.failing_since is not None, messages(record.timeline)
        await stage.live(120)
        record = await stage.newest()
        assert record is not None
        assert record.incident.state is IncidentState.OPEN, messages(record.timeline)
        assert record.incident.failing_since is None
        assert messages(record.timeline).count("failed: the store does not answer. Retrying.") == 1


async def test_a_suppressed_alert_beside_a_healthy_measurement_waits_for_a_day(tmp_path: Path) -> None:
    """Its end may never be reported: after a day without a report the measurement decides."""
    async with alerted(tmp_path, error_rate=0.001) as (stage, silences, alert):
        silences.add(stage.clock.now(), 0.1)
        await stage.tell(replace(alert, firing=False, suppressed=True))
        await stage.live(1200)
        record = await stage.newest()
        assert record is not None
        assert record.incident.state is IncidentState.OPEN, messages(record.timeline)
        assert messages(record.timeline).count("were reported as suppressed") == 1
        assert "still firing" not in messages(record.timeline)
        await stage.clock.advance(86_400)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)


async def test_one_alert_that_is_not_silenced_beside_one_that_is_leads_to_a_person(tmp_path: Path) -> None:
    """The other one fires against the measurement: it is escalated, and each is described as it is."""
    async with alerted(tmp_path, error_rate=0.001) as (stage, silences, alert):
        other = replace(alert, name="ErrorBudgetBurn", fingerprint="f2", starts_at=stage.clock.now())
        await stage.tell(other)
        silences.add(stage.clock.now(), 36_000, "HighErrorRate")
        record = await stage.live_until_ended()
        assert nothing_began(record), messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED
        assert "the alert HighErrorRate is suppressed (silenced by ann until" in record.incident.summary
        assert "the alert ErrorBudgetBurn is still firing" in record.incident.summary


async def test_a_verdict_says_that_an_alert_is_silenced(tmp_path: Path) -> None:
    """Rolled back and healthy, while the alert is muted and not resolved: nothing is called firing."""
    rate = [0.4]
    async with alerted(tmp_path, error_rate=0.4) as (stage, silences, _):
        await stage.live_until(tried)
        metrics = stage.agent.observer.metrics
        assert isinstance(metrics, Metrics)
        rate[0] = 0.001
        metrics.says = lambda at: SliSample(at=at, error_rate=rate[0], p95_latency_ms=80.0)
        silences.add(stage.clock.now(), 36_000, "HighErrorRate")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert "the alert HighErrorRate is suppressed (silenced by ann until" in messages(record.timeline)
        assert "is still firing" not in messages(record.timeline)

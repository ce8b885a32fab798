"""Reasons at the edges: another cluster, very few requests, a sender that repeats an alert.

Scenarios on the virtual clock, beside `test_reasons`, including the check between two
attempts of one write.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from app.agent.freshness.memory import ALERTS_KEPT, MERGED_KEPT, REASONS_KEPT
from app.agent.identity.people import Sender, SenderKind
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Alert,
    Disposition,
    DispositionKind,
    IncidentState,
    KillSwitch,
    MetricSample,
    OutcomeKind,
    Signal,
    SliSample,
    Trigger,
)
from app.bootstrap import Adapters
from tests.stories import KEY, NAMESPACE, SERVICE, Story, messages, story
from tests.test_reasons import (
    UNCOUNTED,
    Conflicting,
    Metrics,
    alert,
    fire,
    innocent,
    nothing_began,
    resolve,
    tried,
)


def _delivered(told: Alert, now: datetime, sender: Sender | None = None) -> Signal:
    status = "firing" if told.firing else "resolved"
    return new_signal(
        key=KEY,
        source="alertmanager",
        observed_at=told.starts_at if told.firing else now,
        received_at=now,
        payload=told,
        stale_after=timedelta.max,
        dedup_key=f"alertmanager:{told.fingerprint}:{told.starts_at.isoformat()}:{status}",
        sender=sender,
    )


async def _deliver(stage: Story, told: Alert, sender: Sender | None = None) -> Disposition:
    signal = _delivered(told, stage.clock.now(), sender)
    (accepted,) = await stage.agent.intake.accept([signal])
    return accepted.disposition


async def test_a_repeated_alert_about_another_cluster_is_no_reason(tmp_path: Path) -> None:
    """Its own alert resolves; the one that goes on is about a service of that name elsewhere."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        here = replace(alert(starts_at=stage.clock.now(), fingerprint="a"), cluster="east")
        elsewhere = replace(alert(starts_at=stage.clock.now(), fingerprint="b"), cluster="west")
        assert (await _deliver(stage, here)).kind is DispositionKind.OPENED
        assert (await _deliver(stage, elsewhere)).kind is DispositionKind.IGNORED
        await stage.clock.advance(1)
        await _deliver(stage, elsewhere)
        await _deliver(stage, replace(here, firing=False))
        record = await stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)


def _storm(stage: Story, count: int) -> list[Alert]:
    """So many alerts of the service that start now."""
    return [alert(starts_at=stage.clock.now(), fingerprint=f"f{number}") for number in range(count)]


async def _all_delivered(stage: Story, alerts: list[Alert], *, firing: bool) -> None:
    for one in alerts:
        await _deliver(stage, replace(one, firing=firing))


async def test_seventy_alerts_that_resolve_leave_nothing_behind(tmp_path: Path) -> None:
    """The timeline notes once that the oldest are merged; the service recovers."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001)
        storm = _storm(stage, ALERTS_KEPT + 6)
        await _all_delivered(stage, storm, firing=True)
        await _all_delivered(stage, storm, firing=False)
        await _all_delivered(stage, storm, firing=True)  # late copies
        record = await stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)
        assert messages(record.timeline).count(f"More than {ALERTS_KEPT} alerts of the service") == 1


async def test_a_merged_alert_that_is_not_resolved_leaves_no_all_clear(tmp_path: Path) -> None:
    """One of seventy, neither new nor the first: the agent asks a person, and says how many there are."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001)
        storm = _storm(stage, ALERTS_KEPT + 6)
        await _all_delivered(stage, storm, firing=True)
        await _all_delivered(stage, [storm[0], *storm[2:]], firing=False)
        record = await stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        words = messages(record.timeline)
        assert "1 further alert was reported firing and not as resolved, last reported at" in words
        assert "is still firing" not in words


async def test_the_alert_that_opened_the_incident_is_never_a_mere_number(tmp_path: Path) -> None:
    """All later ones resolve, more than are remembered: while it fires there is no all-clear."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        storm = _storm(stage, ALERTS_KEPT + MERGED_KEPT + 24)
        await _all_delivered(stage, storm, firing=True)
        await stage.clock.advance(1)
        await _all_delivered(stage, storm[1:], firing=False)
        record = await stage.live_until_ended(7200)
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert "the alert HighErrorRate is still firing" in record.incident.summary


async def test_a_summary_counts_the_alerts_of_one_name(tmp_path: Path) -> None:
    """One clause, and not one for each of them."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        await _all_delivered(stage, _storm(stage, 20), firing=True)
        record = await stage.live_until_ended(7200)
        assert record.incident.summary.count("the alert HighErrorRate is still firing") == 1
        assert "(20 alerts)" in record.incident.summary


async def test_a_storm_of_alerts_does_not_touch_a_later_incident(tmp_path: Path) -> None:
    """An hour later a bad release is rolled back and its alert resolves: the service has recovered."""
    async with innocent(tmp_path, reopen_after_seconds=0) as setting:
        stage, bad = setting.stage, [False]
        setting.metrics.says = lambda at: SliSample(
            at=at, error_rate=0.4 if bad[0] else 0.001, p95_latency_ms=80.0
        )
        storm = _storm(stage, ALERTS_KEPT + 6)
        await _all_delivered(stage, storm, firing=True)
        await _all_delivered(stage, storm, firing=False)
        first = await stage.live_until_ended()
        await stage.live(3600)
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        await stage.live(10)
        bad[0] = True
        news = alert(starts_at=stage.clock.now(), fingerprint="g")
        await _deliver(stage, news)
        await stage.live_until(tried)
        bad[0] = False
        await stage.live(20)
        await _deliver(stage, replace(news, firing=False))
        record = await stage.live_until_ended()
        assert record.incident.id != first.incident.id
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


async def test_alerts_that_are_only_a_number_end_with_the_agents_own_measurement(tmp_path: Path) -> None:
    """The ends of alerts beyond every bound are lost: nothing says that they fire, and it recovers."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, measured=True)
        storm = _storm(stage, ALERTS_KEPT + MERGED_KEPT + 20)
        await stage.agent.intake.accept([_delivered(one, stage.clock.now()) for one in storm])
        ended = [replace(one, firing=False) for one in (storm[0], *storm[20:])]
        await stage.agent.intake.accept([_delivered(one, stage.clock.now()) for one in ended])
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)


async def test_a_ratio_over_a_handful_of_requests_is_no_reason(tmp_path: Path) -> None:
    """All of almost no requests fail, and the alert has resolved: nothing is written."""
    async with innocent(tmp_path, slo_min_request_rate=0.1) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=1.0, request_rate=0.005)
        told = await fire(setting)
        await setting.stage.clock.advance(1)
        await resolve(setting, told)
        record = await setting.stage.live_until_ended()
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)


async def test_an_alert_that_was_quieted_opens_once_the_quiet_time_is_over(tmp_path: Path) -> None:
    """Its repeats are decided again, and are not lost as copies of the delivery that was ignored."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        told = await fire(setting)
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        ended = await stage.live_until_ended()
        assert ended.incident.state.closed
        await resolve(setting, told)
        news = alert(starts_at=stage.clock.now(), fingerprint="new")
        assert (await _deliver(stage, news)).kind is DispositionKind.IGNORED
        await stage.clock.advance(1800)
        assert (await _deliver(stage, news)).kind is DispositionKind.IGNORED
        await stage.clock.advance(2400)
        assert (await _deliver(stage, news)).kind is DispositionKind.OPENED


async def test_a_sender_who_repeats_an_alert_is_among_those_who_reported(tmp_path: Path) -> None:
    """What keeps a reason fresh cannot be approved by the one who sent it."""
    async with innocent(tmp_path) as setting:
        stage, told = setting.stage, alert(starts_at=setting.stage.clock.now())
        await _deliver(stage, told)
        await stage.clock.advance(1)
        await _deliver(stage, told, Sender(kind=SenderKind.TOKEN, name="mallory"))
        (incident,) = await stage.agent.store.incidents.open_of_service(SERVICE, None)
        assert "mallory" in incident.reported_by


async def test_the_kill_switch_stops_a_write_that_is_tried_again(tmp_path: Path) -> None:
    """It is engaged while the API server answers a conflict: there is no second try."""
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
        await stage.tell(alert(starts_at=stage.clock.now()))

        async def engage() -> None:
            switch = KillSwitch(engaged=True, by="ann", reason="database migration", at=stage.clock.now())
            await stage.agent.store.guardrails.set_kill_switch(switch)

        writers[0].meanwhile = engage
        record = await stage.live_until(tried)
        outcome = record.intents[0].outcome
        assert writers[0].tries == 1
        assert outcome is not None
        assert outcome.kind is OutcomeKind.REFUSED
        assert "the kill switch is engaged" in outcome.message


async def test_a_reason_that_left_the_record_is_not_read_from_the_signals_again(tmp_path: Path) -> None:
    """A posted breach is over; so many quieted alerts repeat that the record holds nothing of it any more."""
    async with innocent(tmp_path) as setting:
        stage = setting.stage
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.001, p95_latency_ms=80.0)
        first = alert(starts_at=stage.clock.now(), fingerprint="first")
        await _deliver(stage, first)
        await stage.live_until_ended(7200)
        await _deliver(stage, replace(first, firing=False))
        setting.metrics.says = lambda at: SliSample(at=at)
        storm = _storm(stage, REASONS_KEPT + 8)
        assert {(await _deliver(stage, one)).kind for one in storm} == {DispositionKind.IGNORED}
        for _ in range(4):
            told = await stage.tell(MetricSample(error_rate=0.001, p95_latency_ms=5_000.0))
            await stage.clock.advance(15)
        assert told.disposition.incident_id is not None
        await stage.tell(MetricSample(error_rate=0.001, p95_latency_ms=50.0))
        await _all_delivered(stage, storm, firing=True)
        record = await stage.load(told.disposition.incident_id)
        assert record.incident.triggers == (Trigger.HIGH_LATENCY,)
        levels = await stage.agent.store.signals.levels(KEY)
        assert levels is not None
        assert Trigger.HIGH_LATENCY not in {one.trigger for one in levels.reasons}
        found = (await stage.agent.loop.stages.check.examine(record.incident)).reasons
        assert found.standing() == ()
        assert found.why_none()

"""What becomes of signals that come late, early, twice, out of order or from a wrong clock.

One test for each end that `docs/signals.md` names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake import LONGEST_RHYTHM, IntakeRules
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Alert,
    Deploy,
    DeployStatus,
    DispositionKind,
    Incident,
    IncidentState,
    MetricSample,
    Note,
    Signal,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.incidents import IncidentRepository
from app.agent.ports.store.signals import Accepted, ServiceLevels
from app.agent.slo import SloThresholds
from app.errors import Invalid
from app.wire.events import MetricEvent, Misfit, read_events, to_signal
from tests.repositories import exchanged
from tests.stories import KEY, Story, messages, story

BAD = MetricSample(error_rate=0.5)
WELL = MetricSample(error_rate=0.0)
FAILED = Deploy(version="2", status=DeployStatus.FAILED)
CRASHING = MetricSample(crash_looping=True)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STALE_AFTER = timedelta(minutes=15)

RULES = IntakeRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(seconds=60),
        reopen_after=timedelta(hours=1),
    )
)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Story]:
    """An agent that nothing but posted signals reach. A breach has to last 30 s."""
    async with story(tmp_path) as told:
        yield told


async def told_at(stage: Story, *samples: tuple[MetricSample, float]) -> list[Accepted]:
    """Samples in the order given, each observed so many seconds after a common start, reported just now."""
    await stage.clock.advance(600)
    start = stage.clock.now() - timedelta(seconds=600)
    return [
        await stage.tell(sample, age_seconds=(stage.clock.now() - start).total_seconds() - at)
        for sample, at in samples
    ]


def ends(accepted: Sequence[Accepted]) -> list[DispositionKind]:
    return [one.disposition.kind for one in accepted]


# ------------------------------------------------------------ late and reordered


async def test_samples_of_a_breach_open_in_whatever_order_they_come(stage: Story) -> None:
    """A batch with its newest sample first means what it would have meant in order."""
    accepted = await told_at(stage, (BAD, 60), (BAD, 30), (BAD, 0))
    assert ends(accepted) == [DispositionKind.PENDING, DispositionKind.OPENED, DispositionKind.JOINED]
    record = await stage.newest()
    assert record is not None
    assert record.incident.triggers == (Trigger.HIGH_ERROR_RATE,)


async def test_a_late_sample_of_a_breach_that_is_on_makes_it_longer(stage: Story) -> None:
    """It began earlier than was known."""
    accepted = await told_at(stage, (BAD, 20), (BAD, 0), (BAD, 35))
    assert ends(accepted) == [DispositionKind.PENDING, DispositionKind.PENDING, DispositionKind.OPENED]
    assert accepted[1].disposition.reason == "high error rate for 20 s of 30 s"


async def test_a_breach_reported_after_its_recovery_is_over(stage: Story) -> None:
    """The newest sample says how the service is; the earlier breach is history."""
    early, well, late = await told_at(stage, (BAD, 0), (WELL, 120), (BAD, 60))
    assert early.disposition.kind is DispositionKind.PENDING
    assert well.disposition.reason == "within the SLO"
    assert late.disposition.kind is DispositionKind.IGNORED
    assert late.disposition.reason.startswith("older than the newest sample (")
    assert await stage.newest() is None


async def test_a_late_healthy_sample_shortens_a_breach(stage: Story) -> None:
    """In between it was well, so that the breach has not lasted: promise 8 has it wait for more."""
    accepted = await told_at(stage, (BAD, 0), (BAD, 20), (WELL, 10), (BAD, 35), (BAD, 50))
    assert ends(accepted) == [
        DispositionKind.PENDING,
        DispositionKind.PENDING,
        DispositionKind.IGNORED,
        DispositionKind.PENDING,
        DispositionKind.OPENED,
    ]
    assert accepted[3].disposition.reason == "high error rate for 15 s of 30 s"


async def test_a_late_breach_from_before_the_last_healthy_sample_is_not_tied_to_a_new_one(
    stage: Story,
) -> None:
    """Between the two it was well."""
    accepted = await told_at(stage, (WELL, 50), (BAD, 60), (BAD, 0))
    assert ends(accepted) == [DispositionKind.IGNORED, DispositionKind.PENDING, DispositionKind.IGNORED]


async def test_a_newer_sample_that_says_nothing_of_an_indicator_does_not_outdate_it(stage: Story) -> None:
    """Latency reported at 60 s says nothing about errors at 30 s."""
    accepted = await told_at(stage, (MetricSample(p95_latency_ms=10), 60), (BAD, 0), (BAD, 31))
    assert ends(accepted)[1:] == [DispositionKind.PENDING, DispositionKind.OPENED]


async def test_a_late_crash_loop_counts_unless_something_newer_reported_it(stage: Story) -> None:
    """A sample without the flag does not outdate it; one with the flag does."""
    accepted = await told_at(stage, (MetricSample(crash_looping=False), 30), (CRASHING, 20))
    assert ends(accepted) == [DispositionKind.IGNORED, DispositionKind.IGNORED]
    accepted = await told_at(stage, (WELL, 60), (CRASHING, 50))
    assert ends(accepted) == [DispositionKind.IGNORED, DispositionKind.OPENED]


async def test_a_late_sample_does_not_become_the_newest(stage: Story) -> None:
    """What verification reads stays what was seen last."""
    await told_at(stage, (WELL, 60), (BAD, 30))
    levels = await stage.agent.store.signals.levels(KEY)
    assert levels is not None
    assert levels.last_sample is not None
    assert levels.last_sample.error_rate == 0.0


async def test_an_alert_reported_firing_after_its_resolution_is_over(stage: Story) -> None:
    """Two Alertmanagers may deliver in another order; the same alert firing again opens an incident."""
    started = stage.clock.now()

    def alert(*, firing: bool, starts_at: datetime) -> Alert:
        return Alert(
            name="HighErrorRate",
            firing=firing,
            fingerprint="f1",
            starts_at=starts_at,
            trigger=Trigger.HIGH_ERROR_RATE,
        )

    resolved = await stage.tell(alert(firing=False, starts_at=started))
    late = await stage.tell(alert(firing=True, starts_at=started))
    assert ends([resolved, late]) == [DispositionKind.IGNORED, DispositionKind.IGNORED]
    assert late.disposition.reason == "alert HighErrorRate was reported as resolved before"
    again = await stage.tell(alert(firing=True, starts_at=started + timedelta(minutes=5)))
    assert again.disposition.kind is DispositionKind.OPENED


async def test_a_long_history_of_resolved_alerts_stays_bounded(stage: Story) -> None:
    """One row per service, of bounded size (the newest are remembered)."""
    for number in range(40):
        await stage.tell(
            Alert(
                name="HighErrorRate",
                firing=False,
                fingerprint=f"f{number}",
                starts_at=START,
                trigger=None,
            )
        )
    levels = await stage.agent.store.signals.levels(KEY)
    assert levels is not None
    assert len(levels.resolved_alerts) == 16
    assert levels.resolved_alerts[-1].startswith("f39@")


def _judged_in_turn(samples: Sequence[tuple[MetricSample, int]]) -> list[DispositionKind]:
    """What intake decides on samples in the order given, while no incident is open."""
    levels: ServiceLevels | None = None
    found = []
    for sample, at in samples:
        signal = new_signal(
            key=KEY,
            source="http",
            observed_at=START + timedelta(seconds=at),
            received_at=START + timedelta(hours=1),
            payload=sample,
            stale_after=timedelta(days=1),
        )
        verdict = RULES(signal, levels, None, None)
        levels = verdict.levels or levels
        found.append(verdict.disposition.kind)
    return found


@given(
    distances=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    data=st.data(),
)
def test_a_lasting_breach_opens_in_every_order(distances: list[int], data: st.DataObject) -> None:
    """Samples at most a minute apart that cover a minute open an incident, however they are shuffled."""
    times = [sum(distances[:count]) for count in range(len(distances) + 1)]
    shuffled = data.draw(st.permutations(times))
    opened = DispositionKind.OPENED in _judged_in_turn([(BAD, at) for at in shuffled])
    assert opened == (times[-1] - times[0] >= 60)


@given(data=st.data(), times=st.lists(st.integers(0, 600), unique=True, min_size=2, max_size=10))
def test_no_order_opens_what_was_well_by_then(data: st.DataObject, times: list[int]) -> None:
    """Whatever the order of the rest: once the newest sample is known to be well, nothing opens any more."""
    newest = max(times)
    rest = data.draw(st.permutations([at for at in times if at != newest]))
    assert DispositionKind.OPENED not in _judged_in_turn([(WELL, newest), *((BAD, at) for at in rest)])


# ------------------------------------------------------------ the rhythm of samples


async def test_a_sender_of_a_sample_every_five_minutes_is_understood(stage: Story) -> None:
    """Its samples are one breach, for nothing in between says otherwise: known after the first distance."""
    kinds = []
    for sample in (WELL, WELL, BAD, BAD):
        kinds += ends([await stage.tell(sample)])
        await stage.clock.advance(300)
    assert kinds[2:] == [DispositionKind.PENDING, DispositionKind.OPENED]


async def test_a_sender_that_reports_only_faults_opens_with_the_third_sample(stage: Story) -> None:
    """The first distance gives the interval, the second confirms it."""
    kinds = []
    for _ in range(3):
        kinds += ends([await stage.tell(BAD)])
        await stage.clock.advance(300)
    assert kinds == [DispositionKind.PENDING, DispositionKind.PENDING, DispositionKind.OPENED]


async def test_one_lost_sample_does_not_break_the_rhythm(stage: Story) -> None:
    """Twice the distance still is one breach."""
    kinds = []
    for sample, rest in ((WELL, 300), (WELL, 300), (BAD, 600), (BAD, 300)):
        kinds += ends([await stage.tell(sample)])
        await stage.clock.advance(rest)
    assert kinds[2:] == [DispositionKind.PENDING, DispositionKind.OPENED]


async def test_spikes_far_apart_stay_spikes(stage: Story) -> None:
    """Further apart than the longest rhythm each one stands for itself."""
    for _ in range(4):
        accepted = await stage.tell(BAD)
        assert accepted.disposition.kind is DispositionKind.PENDING
        await stage.clock.advance(LONGEST_RHYTHM.total_seconds() + 1)


async def test_the_pollers_samples_have_no_rhythm(stage: Story) -> None:
    """It withholds healthy samples: two spikes that it reports far apart are not one breach."""
    for _ in range(4):
        now = stage.clock.now()
        signal = new_signal(
            key=KEY,
            source="prometheus",
            observed_at=now,
            received_at=now,
            payload=BAD,
            stale_after=STALE_AFTER,
        )
        [accepted] = await stage.agent.intake.accept([signal])
        assert accepted.disposition.kind is DispositionKind.PENDING
        await stage.clock.advance(300)


async def test_samples_within_the_gap_need_no_rhythm(stage: Story) -> None:
    """Two minutes apart are one breach as ever; a moment more, without a rhythm, is none."""
    accepted = await told_at(stage, (BAD, 0), (BAD, 120))
    assert ends(accepted) == [DispositionKind.PENDING, DispositionKind.OPENED]


# ------------------------------------------------------------ stale, early, skewed


async def test_a_stale_signal_opens_a_stale_incident(stage: Story) -> None:
    """It is reported, and never leads to a real action."""
    accepted = await stage.tell(FAILED, age_seconds=3600)
    assert accepted.disposition.kind is DispositionKind.OPENED
    record = await stage.newest()
    assert record is not None
    assert record.incident.stale


async def test_a_stale_signal_joins_without_adding_a_trigger(stage: Story) -> None:
    """What was so an hour ago is no news about an incident of now."""
    await stage.tell(FAILED)
    late = await stage.tell(CRASHING, age_seconds=3600)
    assert late.disposition.kind is DispositionKind.JOINED
    assert late.disposition.reason.endswith("(stale: adds no trigger)")
    record = await stage.newest()
    assert record is not None
    assert record.incident.triggers == (Trigger.DEPLOY_FAILED,)


def _event(at: datetime) -> dict[str, Any]:
    return {"service": "shop", "environment": "prod", "error_rate": 0.5, "timestamp": at.isoformat()}


def test_a_time_too_far_ahead_is_refused() -> None:
    """Beyond SIGNAL_MAX_FUTURE_SECONDS the event is no event: 422, or the dead letters of a stream."""
    latest = START + timedelta(seconds=300)
    with pytest.raises(Misfit, match="timestamp"):
        read_events([(MetricEvent, _event(START + timedelta(seconds=301)))], latest=latest, listed=False)
    assert read_events([(MetricEvent, _event(latest))], latest=latest, listed=False)


async def test_a_time_a_little_ahead_counts_as_the_time_of_arrival(stage: Story) -> None:
    """So that samples with a right clock, which come after it, do not look late."""
    ahead = await stage.tell(BAD, age_seconds=-200)
    await stage.clock.advance(31)
    right = await stage.tell(BAD)
    assert ends([ahead, right]) == [DispositionKind.PENDING, DispositionKind.OPENED]


async def test_a_sender_whose_clock_is_ahead_is_understood(stage: Story) -> None:
    """Always the same two minutes: its breach lasts as long as it does."""
    kinds = []
    for _ in range(4):
        kinds += ends([await stage.tell(BAD, age_seconds=-120)])
        await stage.clock.advance(15)
    assert kinds == [
        DispositionKind.PENDING,
        DispositionKind.PENDING,
        DispositionKind.OPENED,
        DispositionKind.JOINED,
    ]


async def test_a_sender_whose_clock_is_behind_is_understood(stage: Story) -> None:
    """Its samples are late by the same time, and in order among themselves."""
    kinds = []
    for _ in range(3):
        kinds += ends([await stage.tell(BAD, age_seconds=200)])
        await stage.clock.advance(15)
    assert kinds == [DispositionKind.PENDING, DispositionKind.PENDING, DispositionKind.OPENED]


async def test_beside_a_right_clock_a_slow_one_reports_history(stage: Story) -> None:
    """What the slow one reports was over by what the right one reports."""
    await stage.tell(WELL)
    slow = await stage.tell(BAD, age_seconds=200)
    assert slow.disposition.kind is DispositionKind.IGNORED


async def test_a_clock_behind_by_more_than_staleness_opens_stale_incidents(stage: Story) -> None:
    """A person is notified, nothing is done: a slow clock and old news look alike."""
    for _ in range(3):
        accepted = await stage.tell(BAD, age_seconds=1200)
        await stage.clock.advance(15)
    assert accepted.disposition.kind is DispositionKind.OPENED
    record = await stage.newest()
    assert record is not None
    assert record.incident.stale


# ------------------------------------------------------------ twice


def _posted(
    stage: Story, *, at: datetime, received_at: datetime | None = None, error_rate: float = 0.5
) -> Signal:
    [event] = read_events(
        [(MetricEvent, {**_event(at), "error_rate": error_rate})],
        latest=stage.clock.now() + timedelta(minutes=5),
        listed=False,
    )
    return to_signal(
        event, source="http", received_at=received_at or stage.clock.now(), stale_after=STALE_AFTER
    )


async def test_the_same_content_again_is_a_duplicate(stage: Story) -> None:
    """Without an Idempotency-Key it is recorded, named after the first, and not judged."""
    at = stage.clock.now()
    [first] = await stage.agent.intake.accept([_posted(stage, at=at)])
    await stage.clock.advance(40)
    [again] = await stage.agent.intake.accept([_posted(stage, at=at)])
    assert again.disposition.kind is DispositionKind.DEDUPLICATED
    assert again.disposition.duplicate_of == first.signal_id
    assert again.signal_id != first.signal_id


async def test_the_same_request_again_gets_its_first_answer(stage: Story) -> None:
    """With an Idempotency-Key nothing is recorded again; with other content it is refused."""
    accept = stage.agent.intake.accept
    at = stage.clock.now()
    first = await accept([_posted(stage, at=at)], idempotency_key="k", request_hash="h")
    again = await accept([_posted(stage, at=at)], idempotency_key="k", request_hash="h")
    assert again == first
    with pytest.raises(Invalid, match="Idempotency-Key"):
        await accept([_posted(stage, at=at, error_rate=0.6)], idempotency_key="k", request_hash="other")


async def test_the_same_content_after_the_incident_closed_opens_no_other(stage: Story) -> None:
    """It names the first signal and the incident that it led to."""
    accepted = await stage.tell(FAILED, age_seconds=3600)
    ended = await stage.live_until_ended()
    age = (stage.clock.now() - accepted_at(ended.incident)).total_seconds()
    again = await stage.tell(FAILED, age_seconds=3600 + age)
    assert again.disposition.kind is DispositionKind.DEDUPLICATED
    assert again.disposition.duplicate_of == accepted.signal_id
    assert again.disposition.incident_id == ended.incident.id


def accepted_at(incident: Incident) -> datetime:
    return incident.opened_at


async def test_the_same_content_after_the_first_was_forgotten_is_judged_again(stage: Story) -> None:
    """Duplicates are known for as long as signals are kept (SIGNAL_RETENTION_DAYS)."""
    at = stage.clock.now()
    await stage.agent.intake.accept([_posted(stage, at=at, error_rate=0.0)])
    await stage.clock.advance(3600)
    assert await stage.agent.store.signals.prune(stage.clock.now()) == 1
    [again] = await stage.agent.intake.accept([_posted(stage, at=at, error_rate=0.0)])
    assert again.disposition.kind is DispositionKind.IGNORED


# ------------------------------------------------------------ around the end of an incident


class Interrupting:
    """The incidents, with a signal that arrives at the instant before one is saved as ended."""

    def __init__(self, incidents: IncidentRepository) -> None:
        self._incidents = incidents
        self.stage: Story | None = None
        self.heard: list[Accepted] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._incidents, name)

    async def save(self, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
        if incident.state.closed and self.stage is not None and not self.heard:
            self.heard.append(await self.stage.tell(CRASHING))
        return await self._incidents.save(claim, incident, notes)


async def test_a_signal_that_joins_as_its_incident_recovers_keeps_it_open(tmp_path: Path) -> None:
    """The recovery is not stored over it; the loop looks again, and ends with every report."""
    interrupting: list[Interrupting] = []

    def shaken(store: Store) -> Store:
        interrupting.append(Interrupting(store.incidents))
        return exchanged(store, incidents=interrupting[0])

    async with story(tmp_path, shaken_store=shaken) as stage:
        stage.deploy()
        await stage.live(120)
        interrupting[0].stage = stage
        await stage.tell(FAILED)
        ended = await stage.live_until_ended()
        [heard] = interrupting[0].heard
        assert heard.disposition.kind is DispositionKind.JOINED
        assert heard.disposition.incident_id == ended.incident.id
        assert Trigger.CRASH_LOOP in ended.incident.triggers, messages(ended.timeline)
        told = next(i for i, e in enumerate(ended.timeline) if e.data.get("signal_id") == heard.signal_id)
        assert told < len(ended.timeline) - 1


async def test_a_signal_right_after_a_recovery_opens_another_incident(tmp_path: Path) -> None:
    """It is news: the service was well."""
    async with story(tmp_path) as stage:
        stage.deploy()
        await stage.live(120)
        await stage.tell(FAILED)
        ended = await stage.live_until_ended()
        assert ended.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION
        after = await stage.tell(CRASHING)
        assert after.disposition.kind is DispositionKind.OPENED
        assert after.disposition.incident_id != ended.incident.id


async def test_the_same_symptoms_right_after_an_escalation_are_ignored_with_the_reason(stage: Story) -> None:
    """A person has them already; another symptom, or a failed deploy, opens."""
    await stage.tell(CRASHING)
    ended = await stage.live_until_ended()
    assert ended.incident.state in (IncidentState.ESCALATED, IncidentState.PROPOSED)
    same = await stage.tell(CRASHING)
    assert same.disposition.kind is DispositionKind.IGNORED
    assert f"the same symptoms as incident {ended.incident.id}" in same.disposition.reason
    assert (await stage.tell(FAILED)).disposition.kind is DispositionKind.OPENED


async def test_the_other_services_are_not_concerned(stage: Story) -> None:
    """Everything above is kept per environment and service."""
    await stage.tell(WELL)
    other = ServiceKey(environment="prod", service="other")
    late = await stage.tell(BAD, key=other, age_seconds=60)
    assert late.disposition.kind is DispositionKind.PENDING


# ------------------------------------------------------------ after an incident that ended


def _ended(kind: VerdictKind | None, state: IncidentState) -> Incident:
    """An incident of the error rate that ended a minute ago."""
    verdict = None if kind is None else Verdict(kind=kind, reasons=(), at=START, intent_id=None)
    return Incident(
        id=IncidentId("inc_1"),
        key=KEY,
        state=state,
        opened_at=START,
        closed_at=START,
        triggers=(Trigger.HIGH_ERROR_RATE,),
        stale=False,
        dry_run=False,
        verdict=verdict,
    )


@pytest.mark.parametrize("state", [IncidentState.ESCALATED, IncidentState.PROPOSED])
@pytest.mark.parametrize("kind", [None, *VerdictKind])
def test_only_a_service_that_did_not_recover_is_quieted(
    kind: VerdictKind | None, state: IncidentState
) -> None:
    """By the verdict: a change that stands may have ended the incident as escalated after a recovery."""
    found = RULES(_fires("a", minutes=1), None, None, _ended(kind, state))
    recovered = kind is VerdictKind.RECOVERED
    assert found.disposition.kind is (DispositionKind.OPENED if recovered else DispositionKind.IGNORED)


def test_an_alert_that_opens_by_a_repeat_is_the_one_that_opened() -> None:
    """It is on record already, beside the one that opened the incident before."""
    levels = ServiceLevels(key=KEY)
    for name in ("b", "a"):
        before = RULES(_fires(name), levels, None, None)
        assert before.levels is not None
        levels = before.levels
    first = tuple(replace(one, opened="b@" in one.subject) for one in levels.reasons)
    again = _fires("a", minutes=1)
    repeat = RULES.again(again, structs.replace(levels, reasons=first), None)
    assert repeat is not None
    found = RULES(again, repeat.levels, None, None)
    assert found.disposition.kind is DispositionKind.OPENED
    assert found.levels is not None
    assert [one.subject.partition("@")[0] for one in found.levels.reasons if one.opened] == ["alert a"]


def _fires(fingerprint: str, minutes: float = 0) -> Signal:
    when = START + timedelta(minutes=minutes)
    alert = Alert(
        name="HighErrorRate",
        firing=True,
        fingerprint=fingerprint,
        starts_at=START,
        trigger=Trigger.HIGH_ERROR_RATE,
    )
    return new_signal(
        key=KEY,
        source="alertmanager",
        observed_at=START,
        received_at=when,
        payload=alert,
        stale_after=timedelta.max,
    )

"""After a clock went back: what it left dated in the future neither blocks nor misleads, and is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent.freshness.levels import without_future
from app.agent.guardrails.circuit_breaker import Breaker, Tried, open_reason
from app.agent.guardrails.limits import (
    History,
    Limits,
    Proposed,
    Touch,
    exceeded,
    set_aside,
)
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.intake import IntakeRules
from app.agent.intake.signals import new_signal
from app.agent.models import (
    ActionName,
    DispositionKind,
    Incident,
    IncidentState,
    MetricSample,
    Signal,
    SliSample,
    Trigger,
    Verification,
)
from app.agent.notes import turning_points
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import SloThresholds
from app.agent.verification.assessment import Assessment, Health
from app.agent.verification.rules import VerifyRules
from app.agent.verification.verdict import WAITS_NOTED, advance
from app.agent.workload import ObjectRef
from app.store import open_store
from app.store.signals.openings import not_before
from tests.contract.store_values import NOW as STORED
from tests.contract.store_values import claimed, opened
from tests.sqlite_template import migrated

NOW = datetime(2026, 2, 20, 17, tzinfo=UTC)
LATER = NOW + timedelta(days=400)
KEY = ServiceKey(environment="prod", service="shop")
SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(seconds=60),
    reopen_after=timedelta(hours=1),
)
RULES = IntakeRules(slo=SLO)


def sample(at: datetime, error_rate: float = 0.5) -> Signal:
    return new_signal(
        key=KEY,
        source="http",
        observed_at=at,
        received_at=at,
        payload=MetricSample(error_rate=error_rate),
        stale_after=timedelta(minutes=15),
    )


# ------------------------------------------------------------------ levels


def of_the_future(at: datetime) -> ServiceLevels:
    """What a clock that was ahead left: healthy then."""
    return ServiceLevels(
        key=KEY,
        last_sample_at=at,
        last_sample=SliSample(at=at, error_rate=0.0),
        error_rate_clear_at=at,
        latency_clear_at=at,
        crash_told_at=at,
    )


@pytest.mark.parametrize("jump", [timedelta(minutes=10), timedelta(hours=3), timedelta(days=400)])
def test_a_breach_after_the_clock_went_back_opens_an_incident(jump: timedelta) -> None:
    """Nothing of it is "older than the newest sample", and the reason says what was ignored."""
    levels = of_the_future(NOW + jump)
    first = RULES(sample(NOW), levels, None, None)
    assert first.disposition.kind is DispositionKind.PENDING
    assert "in the future, are ignored: the clock went back" in first.disposition.reason
    assert first.levels is not None
    second = RULES(sample(NOW + timedelta(seconds=61)), first.levels, None, None)
    assert second.disposition.kind is DispositionKind.OPENED
    assert "are ignored" not in second.disposition.reason


def test_a_breach_that_began_in_the_future_is_not_one_that_lasts() -> None:
    """Its length is not known: it begins with the next sample."""
    levels = ServiceLevels(
        key=KEY, error_rate_breach_since=NOW - timedelta(hours=1), error_rate_breach_until=LATER
    )
    known, note = without_future(levels, NOW)
    assert (known.error_rate_breach_since, known.error_rate_breach_until) == (None, None)
    assert note is not None
    assert RULES(sample(NOW), levels, None, None).disposition.kind is DispositionKind.PENDING


def test_clocks_of_a_fleet_may_differ() -> None:
    """A few minutes ahead set nothing aside: a late sample stays late."""
    levels = of_the_future(NOW + timedelta(minutes=4))
    assert without_future(levels, NOW) == (levels, None)
    assert "older than the newest sample" in RULES(sample(NOW, 0.0), levels, None, None).disposition.reason


@pytest.mark.parametrize(
    ("ended", "opens"), [(timedelta(seconds=5), timedelta(seconds=5)), (LATER - NOW, timedelta())]
)
def test_an_end_in_the_future_dates_no_later_incident(ended: timedelta, opens: timedelta) -> None:
    """Only the seconds that a signal may have waited are added."""
    last = Incident(
        id=IncidentId("inc_1"),
        key=KEY,
        state=IncidentState.ESCALATED,
        opened_at=NOW,
        triggers=(Trigger.HIGH_ERROR_RATE,),
        stale=False,
        dry_run=False,
        closed_at=NOW + ended,
    )
    assert not_before(last, NOW) == NOW + opens


def test_an_end_in_the_far_future_quiets_nothing() -> None:
    """How long ago it was cannot be known; up to REOPEN_AFTER_SECONDS ahead it counts as a recent one."""
    last = Incident(
        id=IncidentId("inc_1"),
        key=KEY,
        state=IncidentState.ESCALATED,
        opened_at=LATER,
        closed_at=LATER,
        triggers=(Trigger.CRASH_LOOP,),
        stale=False,
        dry_run=False,
    )
    crashing = new_signal(
        key=KEY,
        source="http",
        observed_at=NOW,
        received_at=NOW,
        payload=MetricSample(crash_looping=True),
        stale_after=timedelta(minutes=15),
    )
    assert RULES(crashing, None, None, last).disposition.kind is DispositionKind.OPENED
    for ended, found in (
        (timedelta(minutes=-1), DispositionKind.IGNORED),
        (timedelta(minutes=30), DispositionKind.IGNORED),
        (timedelta(minutes=61), DispositionKind.OPENED),
    ):
        recent = replace(last, closed_at=NOW + ended)
        assert RULES(crashing, None, None, recent).disposition.kind is found, ended


# ------------------------------------------------------------------ verification


@pytest.mark.parametrize(
    "moved",
    [
        Verification(started_at=LATER, intent_id=None, baseline=None),
        Verification(started_at=NOW, intent_id=None, baseline=None, healthy_since=LATER),
        Verification(started_at=NOW, intent_id=None, baseline=None, last_observed_at=LATER),
    ],
)
def test_a_verification_begun_in_the_future_begins_again(moved: Verification) -> None:
    """It would wait for the clock to arrive there: no soak and no time-out would end."""
    rules = VerifyRules(
        slo=SLO,
        soak=timedelta(minutes=1),
        timeout=timedelta(minutes=10),
        interval=timedelta(seconds=5),
        max_sample_age=timedelta(minutes=1),
    )
    health = Assessment(health=Health.HEALTHY, reasons=())
    after = advance(moved, health, NOW, rules)
    assert (after.started_at, after.healthy_since, after.last_observed_at) == (NOW, NOW, NOW)
    assert "the clock went back" in turning_points(moved, after, health, NOW)[0].message
    later = NOW + timedelta(seconds=5)
    assert turning_points(after, advance(after, health, later, rules), health, later) == []


def test_the_timeline_says_what_a_verification_waits_for_when_that_changes() -> None:
    """Not with each figure, not while it is healthy, and not for ever where two reasons alternate."""
    rules = VerifyRules(
        slo=SLO,
        soak=timedelta(minutes=1),
        timeout=timedelta(minutes=10),
        interval=timedelta(seconds=5),
        max_sample_age=timedelta(minutes=1),
    )
    seen, notes, at = Verification(started_at=NOW, intent_id=None, baseline=None), list[str](), NOW

    def look(said: str, health: Health = Health.UNKNOWN) -> None:
        nonlocal seen, at
        at += timedelta(seconds=5)
        before, now = seen, Assessment(health=health, reasons=(said,))
        seen = advance(before, now, at, rules)
        notes.extend(note.message for note in turning_points(before, seen, now, at))

    for said in (
        "no fresh error rate",
        "no fresh error rate",
        "last reported at 17:00",
        "last reported at 17:05",
    ):
        look(said)
    expected = ["Service unknown: no fresh error rate.", "Service unknown: last reported at 17:00."]
    assert notes == expected
    look("well", Health.HEALTHY)
    look("no fresh error rate")
    assert notes[2:] == ["Service healthy: well.", "Service unknown: no fresh error rate."]
    for number in range(40):
        look("a" if number % 2 else "b")
    assert len(notes) == 4 + WAITS_NOTED - 1


# ------------------------------------------------------------------ limits


def acted(at: datetime, number: int = 1) -> Touch:
    return Touch(intent_id=IntentId(f"int_{number}"), key=KEY, namespace="prod", began_at=at)


PROPOSED = Proposed(
    incident_id=IncidentId("inc_9"),
    key=KEY,
    namespace="prod",
    action=ActionName.RESTART,
    target=ObjectRef(kind="Deployment", namespace="prod", name="shop"),
    parameters=(),
    plan_hash="p",
    cause=None,
    evidence=None,
)


def test_actions_dated_years_ahead_spend_no_budget_and_are_named() -> None:
    """A clock that was wrong for a moment does not stop the agent for years."""
    limits, history = Limits(per_service=1), History(window=(acted(LATER),))
    assert exceeded(PROPOSED, history, limits, None, NOW) == ()
    assert set_aside(history, limits, NOW) == (
        "1 action dated up to 2027-03-27 17:00:00 UTC, in the future, ignored: the clock went back"
    )


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(hours=3), timedelta(hours=23)])
def test_a_clock_that_goes_back_by_less_than_a_day_makes_no_room(ahead: timedelta) -> None:
    """The budget that was spent stays spent."""
    limits, history = Limits(per_service=1), History(window=(acted(NOW + ahead),))
    assert exceeded(PROPOSED, history, limits, None, NOW)
    assert set_aside(history, limits, NOW) is None


def test_failures_dated_years_ahead_keep_no_breaker_open() -> None:
    """And those of before the jump still count."""
    breaker = Breaker(failures=2, open_for=timedelta(hours=1))

    def failed(at: datetime, number: int) -> Tried:
        return Tried(
            intent_id=f"int_{number}", incident_id=IncidentId(f"inc_{number}"), began_at=at, helped=False
        )

    far = [failed(LATER, 1), failed(LATER, 2)]
    assert open_reason(far, breaker, IncidentId("inc_9"), NOW) is None
    near = [failed(NOW - timedelta(minutes=2), 3), failed(NOW - timedelta(minutes=1), 4)]
    assert open_reason([*far, *near], breaker, IncidentId("inc_9"), NOW) is not None


# ------------------------------------------------------------------ claims


async def test_a_claim_dated_days_ahead_is_taken_over(tmp_path: Path) -> None:
    """Its holder's clock has gone back since; the fencing token keeps the old holder out."""
    store = await open_store(migrated(tmp_path / "heal.db"))
    try:
        incident = await opened(store)
        lease = timedelta(seconds=30)
        first = await claimed(store, incident)
        await store.claims.renew(first, lease, STORED + timedelta(days=400))
        assert await store.claims.take(incident.id, "other", lease, STORED) is not None
        second = await store.claims.take(incident.id, "other", lease, STORED)
        assert second is not None
        assert second.token > first.token
        await store.claims.renew(second, lease, STORED + timedelta(hours=3))
        assert await store.claims.take(incident.id, "third", lease, STORED) is None
    finally:
        await store.close()

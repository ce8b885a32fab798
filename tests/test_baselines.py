"""What is usual for a service, and what follows from a level that is not."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.baselines.comparison import usual_breaches
from app.agent.evidence.baselines.learned import LEAST_SAMPLES, Baselines
from app.agent.evidence.symptoms import breached
from app.agent.ids import ServiceKey
from app.agent.models import (
    Alert,
    Cause,
    DependencyLevels,
    Evidence,
    Objectives,
    SliSample,
    Trigger,
    UsualLevel,
)
from app.agent.services.terms import FixedServices, ServiceTerms
from app.workers.alerts.own import UNUSUAL_FOR, ServiceAlerts
from tests.unit.scenes import DATABASE, KEY, NEW, OPENED, curves, evidence, pods, released, step

NOW = datetime(2026, 2, 20, 17, tzinfo=UTC)
SHOP = ServiceKey(environment="prod", service="shop")
STEP = timedelta(seconds=15)
GOALS = Objectives(max_error_rate=0.05, max_p95_latency_ms=1000.0, min_request_rate=0.0)


def sample(at: datetime, p95: float | None, errors: float | None = 0.001) -> SliSample:
    return SliSample(at=at, error_rate=errors, p95_latency_ms=p95, request_rate=40.0, measured=True)


def learned(count: int, every: timedelta = STEP) -> Baselines:
    """After so many samples of about 80 ms, one of fifty a stray value, the last one now."""
    found = Baselines()
    for number in range(count):
        p95 = 5000.0 if number % 100 == 7 else 76.0 + number % 9
        found.learn(SHOP, sample(NOW - (count - number) * every, p95))
    return found


@pytest.mark.parametrize(
    ("count", "every", "known"),
    [(LEAST_SAMPLES - 1, timedelta(minutes=2), False), (200, STEP, False), (300, STEP, True)],
)
def test_nothing_is_usual_before_the_warm_up(count: int, every: timedelta, *, known: bool) -> None:
    """It takes enough samples over enough time."""
    assert bool(learned(count, every).usual([SHOP])) is known


def test_a_baseline_is_robust_and_bounded() -> None:
    """Stray values do not move it; another level becomes usual in time; memory stays as it is."""
    found = learned(3000)
    errors, latency, traffic = found.usual([SHOP])
    assert latency.median == pytest.approx(80, rel=0.08)
    assert latency.high == pytest.approx(84, rel=0.15)
    assert errors.median == pytest.approx(0.001, rel=0.08)
    assert traffic.median == pytest.approx(40, rel=0.08)
    series = found._known[SHOP]["p95 latency"]
    for number in range(20000):
        found.learn(SHOP, sample(NOW + number * STEP, 200.0))
    for odd in (float("inf"), 1e308):
        found.learn(SHOP, sample(NOW, odd, errors=None))
    assert found.usual([SHOP])[1].median == pytest.approx(200, rel=0.08)
    assert sys.getsizeof(series.counts) < 1024
    found.keep([])
    assert found.usual([SHOP]) == ()


@pytest.mark.parametrize("configured", [True, False])
def test_a_level_above_its_baseline_opens_an_incident_only_where_that_is_set(*, configured: bool) -> None:
    """It has to last, it is said with what is usual, and its end is reported."""
    terms = ServiceTerms(key=SHOP, on_baseline=configured)
    alerts = ServiceAlerts(services=FixedServices(terms={SHOP: terms}), baselines=learned(400), every=STEP)
    told: list[Alert] = []
    levels = [(400.0, 22), (80.0, 2)]
    at = NOW
    for p95, times in levels:
        for _ in range(times):
            for alert in alerts.changed(SHOP, sample(at, p95)):
                alerts.delivered(SHOP, alert, at)
                told.append(alert)
            assert alerts.changed(SHOP, sample(at, None, errors=None)) == []  # no data is no end
            at += STEP
    if not configured:
        assert told == []
        return
    assert [alert.firing for alert in told] == [True, False]
    assert told[0].trigger is Trigger.HIGH_LATENCY
    assert "p95 latency 400 ms, usually 76 ms" in told[0].summary
    assert timedelta(minutes=3) < UNUSUAL_FOR < 22 * STEP


USUAL = UsualLevel(
    key=KEY,
    indicator="p95 latency",
    median=1300.0,
    often=1500.0,
    high=1700.0,
    observed_for=timedelta(hours=9),
)


def slow(**changes: object) -> Evidence:
    """A release whose pods serve since minute -2.9, and answers above the objective since then."""
    samples = curves(p95=step(-2.75, 900.0, 1400.0))
    return evidence(
        Trigger.HIGH_LATENCY,
        workload=released(pods(NEW)),
        sli=tuple(replace(one, measured=True) for one in samples),
        objectives=GOALS,
        **changes,
    )


def confidence(cause: Cause, seen: Evidence) -> float:
    return next((h.confidence for h in diagnose(seen).hypotheses if h.cause is cause), 0.0)


def test_what_is_usual_is_evidence_against_a_release() -> None:
    """A threshold that is exceeded every day is no reason to change the service."""
    assert confidence(Cause.BAD_RELEASE, slow()) >= 0.6
    assert confidence(Cause.BAD_RELEASE, slow(usual=(USUAL,))) < 0.5
    assert confidence(Cause.BAD_RELEASE, slow(usual=(replace(USUAL, often=400.0),))) >= 0.6
    assert (
        confidence(Cause.BAD_RELEASE, slow(usual=(replace(USUAL, observed_for=timedelta(hours=2)),))) >= 0.6
    )


@pytest.mark.parametrize("hours", [2, 5, 9, 16])
def test_a_slow_rise_does_not_become_usual(hours: int) -> None:
    """A leak that takes hours to reach the objective is not what the service always did."""
    found, count = Baselines(), hours * 240
    for number in range(count):
        p95 = 100.0 + 930.0 * number / count
        found.learn(KEY, sample(OPENED - (count - number) * STEP, p95))
    samples = tuple(sample(OPENED - timedelta(minutes=9 - one), 1000.0 + 3 * one) for one in range(10))
    seen = replace(slow(usual=found.usual([KEY])), sli=samples)
    assert breached(seen)
    assert usual_breaches(seen) == ()


@pytest.mark.parametrize(("median", "found"), [(80.0, True), (700.0, False)])
def test_a_dependency_that_is_not_as_usual_is_evidence(median: float, *, found: bool) -> None:
    """Although it is within its objective."""
    level = replace(USUAL, key=DATABASE, median=median, often=median * 1.1, high=median * 1.2)
    calls = DependencyLevels(key=DATABASE, sli=(sample(OPENED, 900.0),), calls=())
    seen = slow(usual=(level,), dependency_levels=(calls,), dependencies=(DATABASE,))
    assert any("usually 80" in one for h in diagnose(seen).hypotheses for one in h.evidence_for) is found

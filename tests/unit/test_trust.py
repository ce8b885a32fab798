"""What a revision must have shown before it is one to go back to: time, requests, and nothing wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.agent.evidence.trust import (
    TrustRules,
    objection,
    period_of,
    traffic_in,
)
from app.agent.slo import SloThresholds
from app.connectors.prometheus.promql import duration
from tests.unit.scenes import OPENED, Curve, at, curves, flat, step

SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(minutes=1),
    reopen_after=timedelta(hours=1),
)
RULES = TrustRules(after=timedelta(minutes=5), min_requests=100)
STEP = timedelta(seconds=15)


def test_a_release_without_requests_has_shown_nothing() -> None:
    """No requests, or a handful, are no proof, however long it ran."""
    for rate in (None, 0.0, 0.01):
        quiet = traffic_in(curves(requests=flat(rate)), SLO, STEP)
        assert "requests, 100 required" in str(objection(quiet, RULES, SLO))
    busy = traffic_in(curves(requests=flat(1.0)), SLO, STEP)
    assert objection(busy, RULES, SLO) is None


@pytest.mark.parametrize(
    ("errors", "p95", "why"),
    [
        (step(-10, 0.5, 0.001), flat(200.0), "failed"),
        (flat(0.06), flat(200.0), "failed"),
        (flat(0.001), step(-10, 5000.0, 200.0), "slow"),
    ],
)
def test_the_whole_period_counts_and_not_its_last_moment(errors: Curve, p95: Curve, why: str) -> None:
    """What went wrong half-way and is well now has not served well in that time."""
    found = objection(traffic_in(curves(errors=errors, p95=p95), SLO, STEP), RULES, SLO)
    assert why in str(found)


def test_errors_are_weighed_by_requests() -> None:
    """The failing minutes of a night count for what was asked in them."""
    samples = curves(errors=step(-10, 1.0, 0.0), requests=step(-10, 0.01, 50.0))
    assert objection(traffic_in(samples, SLO, STEP), RULES, SLO) is None


def test_without_a_minimum_no_requests_are_needed() -> None:
    """The setting for workloads without requests; the requests there were must have succeeded."""
    rules = TrustRules(after=RULES.after, min_requests=0)
    assert objection(traffic_in((), SLO, STEP), rules, SLO) is None
    assert objection(traffic_in(curves(errors=flat(0.5)), SLO, STEP), rules, SLO) is not None


def test_the_period_begins_with_the_revision_and_is_an_hour_at_most() -> None:
    """A service of few requests is given longer to show them."""
    assert period_of(RULES, at(-20), OPENED) == (at(-20), OPENED)
    assert period_of(RULES, at(-600), OPENED) == (at(-60), OPENED)


def test_requests_of_whatever_ran_before_do_not_count() -> None:
    """A rate looks back over a window: until that is over, it holds the requests of the revision before."""
    rules = TrustRules(after=RULES.after, min_requests=100, window=timedelta(minutes=1))
    assert period_of(rules, at(-20), OPENED) == (at(-19), OPENED)
    start, end = period_of(rules, at(-0.5), OPENED)
    assert end < start


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("5s", 5), ("1h30m", 5400), ("soon", 0), ("", 0)])
def test_a_window_of_promql_is_read(text: str, seconds: float) -> None:
    """What is no duration looks back not at all; the settings refuse it elsewhere."""
    assert duration(text) == timedelta(seconds=seconds)

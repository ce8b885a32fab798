"""A rise of the load: a surge where it is more than the service had served, by a little or by much."""

from __future__ import annotations

import pytest

from app.agent.diagnosis import diagnose
from app.agent.models import Cause, Evidence, Trigger
from tests.unit.scenes import Curve, curves, evidence, step

SLOW = step(-3, 200.0, 2400.0)


def confidence(seen: Evidence) -> float:
    return max(
        (h.confidence for h in diagnose(seen).hypotheses if h.cause is Cause.TRAFFIC_SURGE), default=0.0
    )


def growing(since: float, until: float, low: float, high: float) -> Curve:
    """`low` until `since` (minutes), `high` from `until` on, a straight line in between."""

    def curve(minute: float) -> float:
        share = min(1.0, max(0.0, (minute - since) / (until - since)))
        return low + share * (high - low)

    return curve


def test_a_moderate_rise_is_a_surge_where_answers_became_slow() -> None:
    """A service with little room left fails at half more load; errors alone have other causes."""
    load = growing(-4, -2, 50.0, 75.0)
    slow = evidence(Trigger.HIGH_LATENCY, sli=curves(requests=load, p95=SLOW))
    assert diagnose(slow).best.cause is Cause.TRAFFIC_SURGE
    assert confidence(slow) >= 0.6
    failing = evidence(Trigger.HIGH_ERROR_RATE, sli=curves(requests=load, errors=step(-3, 0.001, 0.1)))
    assert confidence(failing) < 0.6


@pytest.mark.parametrize("high", [70.0, 180.0])
def test_a_load_that_was_served_well_is_no_surge(high: float) -> None:
    """The load rose minutes before, and the service bore it at its usual level: something else is slow."""
    borne = evidence(Trigger.HIGH_LATENCY, sli=curves(requests=growing(-9, -6, 50.0, high), p95=SLOW))
    assert confidence(borne) < 0.5
    found = next(h for h in diagnose(borne).hypotheses if h.cause is Cause.TRAFFIC_SURGE)
    assert any("had been served at the usual level for" in line for line in found.evidence_against)


def test_a_load_that_still_grows_is_a_surge_however_slowly() -> None:
    """Each minute of it is more than the one before."""
    slowly = evidence(Trigger.HIGH_LATENCY, sli=curves(requests=growing(-12, 0, 50.0, 150.0), p95=SLOW))
    found = next(h for h in diagnose(slowly).hypotheses if h.cause is Cause.TRAFFIC_SURGE)
    assert not any("had been served" in line for line in found.evidence_against)

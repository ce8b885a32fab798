"""Replicas that someone took away: a cause only where the others have more to serve, and fail for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.actions import scale
from app.agent.actions.spec import PlanLimits, Resolved, Unmet
from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.reduction import reduction_of
from app.agent.evidence.cluster.scaling import scale_change
from app.agent.models import ActionName, Cause, Change, ChangeKind, Evidence, Hypothesis, Trigger
from app.agent.workload import AutoscalerView, ScaleChange
from tests.unit.scenes import (
    CALLER,
    DATABASE,
    OLD,
    change,
    crashing,
    curves,
    evidence,
    pods,
    released,
    step,
    workload,
)

RESTORE = {"restore": "count_before_reduction"}


def taken_away(minutes: float = -3, before: int = 9, after: int = 3) -> Change:
    return change(ChangeKind.SCALE, minutes, summary=f"ann scaled it from {before} to {after} replicas")


SEEN = evidence(
    Trigger.HIGH_ERROR_RATE,
    Trigger.HIGH_LATENCY,
    workload=workload([OLD], pods(OLD)),
    changes=(taken_away(),),
    sli=curves(errors=step(-2.5, 0.001, 0.13), p95=step(-2.7, 200.0, 2400.0)),
)
"""Nine replicas became three, and half a minute later the others answer late and fail."""


def found_in(seen: Evidence) -> Hypothesis | None:
    return next((h for h in diagnose(seen).hypotheses if h.cause is Cause.SCALED_TOO_LOW), None)


def test_replicas_that_are_missed_are_the_cause() -> None:
    """With the author, the numbers, and the load of each replica before and after."""
    best = diagnose(SEEN).best
    assert best.cause is Cause.SCALED_TOO_LOW
    assert best.confidence >= 0.8
    assert any("ann scaled it from 9 to 3 replicas" in line for line in best.evidence_for)
    assert "each replica gets 16.7 requests/s instead of 5.6 requests/s" in best.evidence_for
    assert best.evidence_against == ()


WEAKER: dict[str, dict[str, object]] = {
    "those that are left served well for minutes": {"changes": (taken_away(-8),)},
    "answers are as fast as before": {"sli": curves(errors=step(-2.5, 0.001, 0.13))},
    "the load fell with the replicas": {
        "sli": curves(
            errors=step(-2.5, 0.001, 0.13), p95=step(-2.7, 200.0, 2400.0), requests=step(-3.5, 50.0, 15.0)
        )
    },
    "the incident came first": {"changes": (taken_away(-1),)},
    "a dependency fails": {"other_open_incidents": (DATABASE,)},
    "its pods crash": {"workload": workload([OLD], crashing(OLD))},
    "a release was beside it": {"workload": released(created=-2.8)},
    "restoring was tried": {"failed_actions": (ActionName.SCALE,)},
}


@pytest.mark.parametrize("changes", WEAKER.values(), ids=WEAKER)
def test_other_explanations_keep_it_from_acting(changes: dict[str, object]) -> None:
    """Below the confidence that the runbook needs."""
    found = found_in(replace(SEEN, **changes))  # type: ignore[arg-type]  # a row names real fields
    assert found is None or found.confidence < 0.6


NO_REDUCTION: dict[str, dict[str, object]] = {
    "more replicas": {"changes": (taken_away(before=1, after=3),)},
    "another number runs now": {"changes": (taken_away(before=9, after=5),)},
    "another service": {"changes": (replace(taken_away(), key=CALLER),)},
    "scaled again since": {"changes": (taken_away(), taken_away(-1, before=3, after=3))},
    "scaled to zero": {
        "workload": workload([OLD], (), desired_replicas=0),
        "changes": (taken_away(after=0),),
    },
    "text of another kind": {"changes": (change(ChangeKind.SCALE, -3, summary="ann changed the replicas"),)},
    "no cluster": {"workload": None},
}


@pytest.mark.parametrize("changes", NO_REDUCTION.values(), ids=NO_REDUCTION)
def test_there_is_no_reduction_in_force(changes: dict[str, object]) -> None:
    """Then there is nothing to restore, and no cause."""
    seen = replace(SEEN, **changes)  # type: ignore[arg-type]  # a row names real fields
    assert reduction_of(seen) is None
    assert found_in(seen) is None
    if seen.workload is not None:
        assert isinstance(scale.resolve(RESTORE, seen, PlanLimits(scale_min=1, scale_max=20)), Unmet)


def test_an_autoscaler_restores_replicas_by_itself() -> None:
    """The agent never works against it."""
    scaler = AutoscalerView(kind="HorizontalPodAutoscaler", name="checkout", minimum=2, maximum=9)
    seen = replace(SEEN, workload=workload([OLD], pods(OLD), autoscalers=(scaler,)))
    assert reduction_of(seen) is None


def test_the_writer_and_the_reader_of_a_change_agree() -> None:
    """The counts of the watch are those of the diagnosis."""
    view = replace(workload([OLD], pods(OLD)), scaled=ScaleChange(by="kubectl-scale", at=None))
    written = scale_change(9, view, "agent")
    assert written is not None
    seen = replace(SEEN, changes=(change(ChangeKind.SCALE, -3, summary=written.summary),))
    found = reduction_of(seen)
    assert found is not None
    assert (found.before, found.after) == (9, 3)


@pytest.mark.parametrize(("most", "replicas"), [(20, 9), (6, 6)])
def test_the_earlier_number_is_restored_within_the_bounds(most: int, replicas: int) -> None:
    """Exactly as many as before, or as many as the settings allow."""
    resolved = scale.resolve(RESTORE, SEEN, PlanLimits(scale_min=1, scale_max=most))
    assert isinstance(resolved, Resolved)
    assert resolved.parameters == {"replicas": replicas}


def test_the_bounds_may_forbid_it() -> None:
    """The reason names them."""
    refused = scale.resolve(RESTORE, SEEN, PlanLimits(scale_min=1, scale_max=3))
    assert isinstance(refused, Unmet)
    assert "the most that the bounds 1..3 allow" in refused.reason

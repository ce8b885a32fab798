"""An undo restored the service when as much of it runs as before: pure judgement on figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.agent.actions.target_parts import asks_as_before
from app.agent.evidence.restoration import Restoration, judge_restoration
from app.agent.execution.undo import ends_outage
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Decision,
    DecisionKind,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    Outcome,
    OutcomeKind,
    Risk,
    Snapshot,
    Verification,
)
from app.agent.soak import _seen_so_far
from app.agent.workload import WorkloadView
from tests.unit.scenes import NEW, OLD, REF, at, pods, workload
from tests.unit.test_verifier import RULES

SOAK, TIMEOUT = timedelta(minutes=1), timedelta(minutes=10)
UNDO = IntentId("undo")
INCIDENT = Incident(
    id=IncidentId("inc"),
    key=ServiceKey(environment="prod", service="shop"),
    state=IncidentState.EXECUTING,
    opened_at=at(0),
    triggers=(),
    stale=False,
    dry_run=False,
)


def undone(available: int | None) -> Intent:
    """A rollback before which so many replicas were available."""
    act = Action(
        name=ActionName.ROLLBACK, risk=Risk.HIGH, target=REF, parameters={}, expected_effect="", undo="back"
    )
    return Intent(
        id=IntentId("done"),
        incident_id=IncidentId("inc"),
        sequence=0,
        action=act,
        dry_run=False,
        decision=Decision(kind=DecisionKind.ALLOW, reasons=(), plan_hash="p", target_token="u/1", at=at(0)),
        rehearsal=None,
        state=IntentState.FINISHED,
        snapshot=Snapshot(ref=REF, token="u/1", body={"spec": 1}, available=available),
    )


def running(available: int, *, complete: bool, failure: str | None = None) -> WorkloadView:
    """A Deployment of three."""
    return workload(
        [NEW, OLD],
        pods(NEW, available),
        available_replicas=available,
        rollout_complete=complete,
        replica_failure=failure,
    )


def judged(
    before: int | None, view: WorkloadView | None, now: datetime, seen: Verification | None = None
) -> Restoration:
    start = seen or Verification(intent_id=UNDO, started_at=at(0))
    return judge_restoration(undone(before), view, start, now=now, steady_for=SOAK, timeout=TIMEOUT)


def test_all_that_is_wanted_over_a_completed_rollout_is_restored_at_once() -> None:
    """The controller has seen the specification, and only its pods run."""
    assert judged(3, running(3, complete=True), at(0)).restored is True


@pytest.mark.parametrize(("before", "available"), [(2, 2), (2, 3), (0, 0)])
def test_as_many_as_before_must_last(before: int, available: int) -> None:
    """A rollout that was broken before need not be whole now; one look proves nothing."""
    view = running(available, complete=False)
    first = judged(before, view, at(0.1))
    assert first.restored is None
    assert judged(before, view, at(1.2), first.seen).restored is True
    gone = judged(before, replace(view, replica_failure="FailedCreate: no"), at(0.5), first.seen)
    assert gone.seen.healthy_since is None


@pytest.mark.parametrize(
    "view", [None, running(1, complete=False), running(3, complete=False, failure="FailedCreate: quota")]
)
def test_less_than_before_is_not_restored_once_the_time_is_over(view: WorkloadView | None) -> None:
    """Until then pods may still come; what cannot be seen is no proof either."""
    assert judged(2, view, at(9)).restored is None
    last = judged(2, view, at(10))
    assert last.restored is False
    assert "2 before" in last.serving or view is None


def test_an_undo_begun_in_the_future_is_timed_from_now() -> None:
    """The clock went back: it would wait for the time-out until the clock arrives there again."""
    now, later = at(0), at(0) + timedelta(days=30)
    undo = replace(undone(3), id=UNDO)
    outcome = Outcome(kind=OutcomeKind.DONE, message="", at=later)
    seen = Verification(intent_id=UNDO, started_at=later, healthy_since=later)
    for one in (INCIDENT, replace(INCIDENT, verification=seen)):
        begun = _seen_so_far(one, undo, outcome, now, RULES)
        assert (begun.started_at, begun.healthy_since) == (now, None)


def test_a_pause_of_the_agent_uses_up_no_time_of_an_undo() -> None:
    """Pods are judged by a complete attempt after the pause; attempts are bounded."""
    undo = replace(undone(3), id=UNDO)
    outcome = Outcome(kind=OutcomeKind.DONE, message="", at=at(0))
    seen = Verification(intent_id=UNDO, started_at=at(0), healthy_since=at(1), last_observed_at=at(1))
    paused = _seen_so_far(replace(INCIDENT, verification=seen), undo, outcome, at(300), RULES)
    assert (paused.started_at, paused.healthy_since) == (at(300), None)
    assert judged(3, running(2, complete=False), at(300), seen=paused).restored is None
    spent = replace(seen, lost_seconds=RULES.longest.total_seconds())
    assert _seen_so_far(replace(INCIDENT, verification=spent), undo, outcome, at(300), RULES) == spent


def test_without_an_earlier_count_all_that_is_wanted_must_be_there() -> None:
    """Records of a version that did not count."""
    found = judged(None, running(2, complete=False), at(10))
    assert (found.restored, found.serving) == (False, "2 of 3 replicas are available")


def test_the_specification_is_compared_in_what_was_changed() -> None:
    """The whole body, or the parts that its token names."""
    done = undone(3)
    assert asks_as_before(done, Snapshot(ref=REF, token="u/9", body={"spec": 1}))
    assert not asks_as_before(done, Snapshot(ref=REF, token="u/9", body={"spec": 2}))
    assert not asks_as_before(done, None)


@pytest.mark.parametrize(
    ("name", "before", "available", "holds"),
    [
        (ActionName.ROLLBACK, 0, 3, True),
        (ActionName.REVERT_CONFIG, 0, 1, True),
        (ActionName.ROLLBACK, 0, 0, False),
        (ActionName.ROLLBACK, 0, None, False),
        (ActionName.ROLLBACK, 1, 3, False),
        (ActionName.ROLLBACK, None, 3, False),
        (ActionName.RESUME, 0, 3, False),
    ],
)
def test_an_undo_does_not_bring_an_outage_back(
    name: ActionName, before: int | None, available: int | None, *, holds: bool
) -> None:
    """Nothing served before the action: an error rate that stays is less than an outage."""
    done = undone(before)
    why = ends_outage(replace(done, action=replace(done.action, name=name)), available)
    assert (why is not None) is holds
    if available == 3 and why is not None:
        assert why == (
            "no replica was available before rollback, and 3 are now: undoing it would bring the outage back"
        )

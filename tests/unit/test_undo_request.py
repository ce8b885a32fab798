"""What an answered request to undo keeps of the incident, and when an earlier recovery no longer holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Incident, IncidentState, OutcomeKind, Trigger, UndoRequest
from app.agent.responders.undo_request import not_undone, undone

NOW = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ESCALATED_AT, RECOVERED_AT, ASKED_AT = NOW + 5 * MINUTE, NOW + 20 * MINUTE, NOW + 30 * MINUTE


def asked(joined: int = 0) -> Incident:
    """It was escalated, its service recovered, and a person then asked to undo what the agent had done."""
    request = UndoRequest(
        by="ann",
        at=ASKED_AT,
        text="needed after all",
        undoes=(),
        state=IncidentState.RECOVERED,
        closed_at=ESCALATED_AT,
        plan=None,
        next_action=1,
        verification=None,
        wake_at=None,
        joined=0,
    )
    return Incident(
        id=IncidentId("inc_0"),
        key=ServiceKey(environment="prod", service="shop"),
        state=IncidentState.OPEN,
        opened_at=NOW,
        triggers=(Trigger.HIGH_ERROR_RATE,),
        stale=False,
        dry_run=False,
        joined=joined,
        recovered_at=RECOVERED_AT,
        undo=request,
    )


def test_an_undo_ends_the_recovery_before_it() -> None:
    """The recovery is of a state that is gone: its time is not the end of what comes after."""
    after = undone(asked(), "undone", ASKED_AT, OutcomeKind.DONE)
    assert after.recovered_at is None
    later = replace(after, state=IncidentState.RECOVERED, closed_at=ASKED_AT + MINUTE)
    assert later.over_at == ASKED_AT + MINUTE


def test_an_undo_that_was_refused_leaves_the_recovery() -> None:
    after = not_undone(asked(), "denied by policy", ASKED_AT, OutcomeKind.REFUSED)
    assert (after.state, after.closed_at, after.over_at) == (
        IncidentState.RECOVERED,
        ESCALATED_AT,
        RECOVERED_AT,
    )


@pytest.mark.parametrize("joined", [1, 3])
def test_a_signal_that_joined_meanwhile_ends_it_too(joined: int) -> None:
    """The incident stays open: its end is a new one."""
    after = not_undone(asked(joined), "denied by policy", ASKED_AT, OutcomeKind.REFUSED)
    assert (after.state, after.closed_at, after.recovered_at) == (IncidentState.OPEN, None, None)
    later = replace(after, state=IncidentState.RECOVERED, closed_at=ASKED_AT + MINUTE)
    assert later.over_at == ASKED_AT + MINUTE

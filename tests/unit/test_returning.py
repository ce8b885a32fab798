"""Symptoms that end by themselves and come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import Incident, IncidentState, Trigger
from app.agent.notes import why_returning
from app.agent.soak import RETURNS_WITHIN, ended_alike

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
INCIDENT = Incident(
    id=IncidentId("inc-1"),
    key=ServiceKey(environment="prod", service="shop"),
    state=IncidentState.RECOVERED_WITHOUT_ACTION,
    triggers=(Trigger.CRASH_LOOP, Trigger.HIGH_LATENCY),
    opened_at=AT,
    stale=False,
    dry_run=False,
)


@pytest.mark.parametrize(
    ("state", "triggers", "alike"),
    [
        (IncidentState.RECOVERED_WITHOUT_ACTION, (Trigger.CRASH_LOOP,), True),
        (IncidentState.RECOVERED_WITHOUT_ACTION, (Trigger.DEPLOY_FAILED,), False),
        (IncidentState.RECOVERED, (Trigger.CRASH_LOOP,), False),
        (IncidentState.ESCALATED, (Trigger.CRASH_LOOP,), False),
    ],
)
def test_what_counts_as_the_same_end(
    state: IncidentState, triggers: tuple[Trigger, ...], *, alike: bool
) -> None:
    """A symptom in common, which ended without an action."""
    assert ended_alike(replace(INCIDENT, state=state, triggers=triggers), INCIDENT) is alike


def test_the_escalation_says_how_often_it_returned() -> None:
    """With the time in which it did."""
    said = why_returning(3, RETURNS_WITHIN)
    assert said.startswith("The symptoms ended without an action 3 times within 1 h")
    assert timedelta(hours=1) == RETURNS_WITHIN

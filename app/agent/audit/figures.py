"""Counts and ages of the agent's own work, read from the store for `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.models import DecisionKind, IncidentState, OutcomeKind

FIGURES_WINDOW = timedelta(days=1)
"""Ended incidents and started actions are counted over this time; it bounds what one read costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFigures:
    """The work of all processes on one database, as of one instant. A time is None where nothing waits."""

    at: datetime
    accepted_signals: int
    """Signals accepted since the database was created."""
    pending_signals: int
    oldest_pending_signal_at: datetime | None
    """When the oldest signal without a disposition was received."""
    open_incidents: Mapping[IncidentState, int]
    ended_incidents: Mapping[IncidentState, int]
    """Incidents that ended within `FIGURES_WINDOW`."""
    due_incidents: int
    """Incidents that are due and that no worker has claimed."""
    oldest_due_incident_at: datetime | None
    """The time since which the longest-waiting incident has been due; for a new incident its opening."""
    executing_actions: int
    """Actions under way now."""
    finished_actions: Mapping[OutcomeKind, int]
    """Actions that began within `FIGURES_WINDOW` and ended, undos not counted."""
    decisions: Mapping[DecisionKind, int]
    """Decisions on actions within `FIGURES_WINDOW`, undos not counted."""
    budgeted_actions: int
    """Actions that count in the budgets now: those that began within the window of the budgets."""
    pending_approvals: int
    oldest_pending_approval_at: datetime | None
    failing_postings: int
    """Messages to channels whose last attempt failed."""
    kill_switch_engaged: bool
    live_workers: int
    """Processes registered in the database."""

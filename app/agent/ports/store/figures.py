"""The figures of the agent's own work."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from app.agent.audit.figures import FIGURES_WINDOW, AgentFigures


class FiguresRepository(Protocol):
    """Reads what `/metrics` exposes of all processes on one database."""

    async def figures(self, now: datetime, budget_window: timedelta = FIGURES_WINDOW) -> AgentFigures:
        """Counts and ages in one snapshot, read by one statement. Signals, incidents and actions are
        counted over indexes, failing messages over one short row for each incident and channel.

        `budget_window`: how long a started action counts in the budgets.
        """
        ...

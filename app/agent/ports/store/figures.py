"""The figures of the agent's own work."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.audit.figures import AgentFigures


class FiguresRepository(Protocol):
    """Reads what `/metrics` exposes of all processes on one database."""

    async def figures(self, now: datetime) -> AgentFigures:
        """Counts and ages in one snapshot; every part is counted over an index."""
        ...

"""Statistics over many incidents, counted by the database."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.analytics.report import Counted, StatsFilter


class StatisticsRepository(Protocol):
    """Counts what a report of a period needs, and judges the proposals of dry runs."""

    async def counted(self, where: StatsFilter) -> Counted:
        """Counts and sums in one snapshot; every part is counted over an index."""
        ...

    async def judge(self, now: datetime, known_since: datetime) -> int:
        """Judge the proposals of dry runs that ended `JUDGED_AFTER` ago or earlier; how many.

        Changes of services are on record since `known_since`.
        """
        ...

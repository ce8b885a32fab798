"""Statistics over many incidents, counted by the database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from app.agent.analytics.report import Counted, StatsFilter, StatsPart


class StatisticsRepository(Protocol):
    """Computes the counts for a report of a period, and evaluates the proposals of dry runs."""

    async def counted(self, where: StatsFilter, parts: Collection[StatsPart] = tuple(StatsPart)) -> Counted:
        """Counts and sums in one snapshot; the parts that are not asked for are empty."""
        ...

    async def roll_up(self, now: datetime) -> int:
        """Count days that are over once and for all; how many days.

        What changes afterwards in such a day makes it counted from the records again, until the next call.
        """
        ...

    async def judge(self, now: datetime, known_since: datetime) -> int:
        """Judge the proposals of dry runs that ended `JUDGED_AFTER` ago or earlier; how many.

        Changes of services are on record since `known_since`.
        """
        ...

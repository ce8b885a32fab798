"""The monitoring: service level indicators, and silences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from app.agent.freshness.silences import Silencing
from app.agent.ids import (
    ServiceKey,
)
from app.agent.models import (
    SliSample,
    TelemetryHealth,
)


class MetricSource(Protocol):
    """Service level indicators from a monitoring system."""

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        """The indicators as of `at`; each one without data is None.

        A reachable source without a series answers None values; an unreachable
        one raises `TransientError`.
        """
        ...

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        """Samples from `start` to `end`, oldest first; instants without any data are left out."""
        ...

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        """How many of `keys` had data in the look-back before `at` and have none now.

        An unusable answer of the source is a result here (`source_reachable=False` with its `fault`), not
        an error.
        """
        ...


class SilenceSource(Protocol):
    """Reads the silences of people in the monitoring; never changes anything."""

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        """The silences in force at that moment that concern the service, or may concern its alerts."""
        ...

"""Freeze windows: configured times in which no action begins. Pure.

`app.agent.guardrails.limits` checks them when policy decides and in the transaction that
begins an action, with the time that is recorded as its beginning: no recorded action
lies within a window. They do not apply to undos (promise 11).

A window starts at every moment of a cron expression, read in its time zone as
Debian's cron reads it when clocks change, or once, at a given instant; and lasts
for a length of true time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from app.agent.ids import ServiceKey

_FIELDS = 5
_EXPECTED = "write minute, hour, day of month, month, day of week, such as '0 18 * * FRI'"
_CLOCK_CHANGE = timedelta(hours=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindow:
    """One window, once or recurring."""

    name: str
    length: timedelta
    cron: str | None = None
    """When it starts: minute, hour, day of month, month, day of week."""
    starts_at: datetime | None = None
    """When it starts, once; used without `cron`."""
    time_zone: str = "UTC"
    environments: tuple[str, ...] = ()
    """The environments it applies to; none: all."""
    services: tuple[str, ...] = ()
    """The services it applies to; none: all."""

    def concerns(self, key: ServiceKey) -> bool:
        """Whether it applies to that service."""
        here = not self.environments or key.environment in self.environments
        return here and (not self.services or key.service in self.services)

    def holds_until(self, at: datetime) -> datetime | None:
        """The end (exclusive) of the window that contains `at`; None outside of a window."""
        start = self._last_start(at)
        return start + self.length if start is not None and at < start + self.length else None

    def next_start(self, at: datetime) -> datetime | None:
        """The first start after that time; None if there is none."""
        if self.cron is None:
            return self.starts_at if self.starts_at is not None and self.starts_at > at else None
        return _instant(CronSim(self.cron, at.astimezone(ZoneInfo(self.time_zone))))

    def _last_start(self, at: datetime) -> datetime | None:
        if self.cron is None:
            return self.starts_at if self.starts_at is not None and self.starts_at <= at else None
        # Backwards from later than any change of clocks: within the hour that comes twice, going
        # backwards by the wall clock would miss a start that the hour's first run had.
        local = (at + _CLOCK_CHANGE).astimezone(ZoneInfo(self.time_zone))
        starts = (start.astimezone(UTC) for start in CronSim(self.cron, local, reverse=True))
        return next((start for start in starts if start <= at), None)


def _instant(ticks: CronSim) -> datetime | None:
    found = next(ticks, None)
    return None if found is None else found.astimezone(UTC)


def check_cron(expression: str) -> None:
    """Raises `ValueError` with the fault for anything but a cron expression of five fields."""
    if len(expression.split()) != _FIELDS:
        raise ValueError(f"{expression!r} is not a cron expression: {_EXPECTED}")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(
            f"{expression!r} is not a cron expression ({str(error).lower()}): {_EXPECTED}"
        ) from error
    except StopIteration:
        raise ValueError(f"{expression!r} never occurs: {_EXPECTED}") from None


def frozen(windows: Iterable[FreezeWindow], key: ServiceKey, at: datetime) -> str | None:
    """Why no action may begin on that service at that time; None outside of freeze windows."""
    ends = [
        (until, window.name)
        for window in windows
        if window.concerns(key) and (until := window.holds_until(at)) is not None
    ]
    if not ends:
        return None
    until, name = max(ends)
    return f"freeze window {name} is active until {until:%Y-%m-%d %H:%M:%S} UTC"

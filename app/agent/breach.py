"""Since when an indicator has been above its threshold, from samples that come in any order.

Pure, called by intake. Samples that arrive late or reordered lead to what they
would have led to in order, as far as what is remembered can tell; where it
cannot, the breach counts as shorter, never as longer (promise 8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When one indicator is in breach, and which samples belong to one breach."""

    threshold: float
    """Above it is a breach."""
    clear_below: float
    """A breach ends only at or below it: hysteresis against flapping."""
    gap: timedelta
    """Samples further apart do not belong to one breach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """What is known about one indicator of one service; times are event times."""

    since: datetime | None = None
    """The first sample of the breach that is on; None when none is."""
    until: datetime | None = None
    """The newest sample that keeps it on."""
    clear_at: datetime | None = None
    """The newest sample at which the indicator was well."""

    def told(self, value: float | None, at: datetime, limits: Limits) -> Breach:
        """What is known after a sample of `at`; no data changes nothing."""
        if value is None:
            return self
        if value > limits.threshold:
            return self._above(at, limits.gap)
        if value > limits.clear_below and self._goes_on(at, limits.gap):
            return replace(self, until=self.until if self.until is None else max(self.until, at))
        return self._well(at)

    def includes(self, at: datetime) -> bool:
        """Whether a sample of `at` above the threshold is part of the breach that is on."""
        return self.since is not None and self.until is not None and self.since <= at <= self.until

    @property
    def lasted(self) -> timedelta:
        """How long it has been seen to last."""
        if self.since is None or self.until is None:
            return timedelta(0)
        return self.until - self.since

    def _above(self, at: datetime, gap: timedelta) -> Breach:
        if self.clear_at is not None and at < self.clear_at:
            return self  # over by then
        if self.since is None or self.until is None or at - self.until > gap:
            return replace(self, since=at, until=at)
        if at > self.until:
            return replace(self, until=at)
        return replace(self, since=at) if at < self.since and self.since - at <= gap else self

    def _goes_on(self, at: datetime, gap: timedelta) -> bool:
        """Whether a sample between the clearing level and the threshold finds a breach on."""
        return self.since is not None and self.until is not None and self.since <= at <= self.until + gap

    def _well(self, at: datetime) -> Breach:
        well = replace(self, clear_at=at if self.clear_at is None else max(self.clear_at, at))
        if self.since is None or self.until is None or at < self.since:
            return well
        if at >= self.until:
            return replace(well, since=None, until=None)
        # In between it was well: when it broke again is not known, only that it had by then.
        return replace(well, since=self.until)

"""Service level objectives: the definition of unhealthy shared by intake, verification and memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
from msgspec import structs

from app.agent.ids import ServiceKey
from app.agent.models import Objectives, SliSample
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue, objectives_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SloThresholds:
    """The thresholds of an unhealthy service, and how long a breach must last."""

    max_error_rate: float
    """0..1; a rate above it is a breach."""
    max_p95_latency_ms: float
    clear_ratio: float
    """A breach ends only below threshold x ratio: hysteresis against flapping."""
    breach_for: timedelta
    """How long a breach must last, in event time, before it opens an incident."""
    reopen_after: timedelta
    """How long an unhealed incident keeps the same symptoms from opening another."""
    min_request_rate: float = 0.0
    """Requests per second below which a measured error rate or latency says nothing."""
    services: ServiceCatalogue = NO_SERVICES
    """Services with their own thresholds: see `of`."""

    def of(self, key: ServiceKey) -> SloThresholds:
        """The thresholds of one service: its own, and these where it has none."""
        if self.services.usual is None and self.services.of(key) is None:
            return self
        own = objectives_of(self.services, key, self.objectives)
        return replace(
            self,
            max_error_rate=own.max_error_rate,
            max_p95_latency_ms=own.max_p95_latency_ms,
            min_request_rate=own.min_request_rate,
            services=NO_SERVICES,
        )

    @property
    def objectives(self) -> Objectives:
        return Objectives(
            max_error_rate=self.max_error_rate,
            max_p95_latency_ms=self.max_p95_latency_ms,
            min_request_rate=self.min_request_rate,
        )

    def too_few(self, request_rate: float | None) -> bool:
        """Whether the traffic is known and too little to judge by."""
        return request_rate is not None and request_rate < self.min_request_rate

    def judged(self, sample: SliSample) -> SliSample:
        """The sample without the indicators that rest on too few requests."""
        if not self.too_few(sample.request_rate):
            return sample
        return replace(sample, error_rate=None, p95_latency_ms=None)

    @property
    def longest_gap(self) -> timedelta:
        """Samples further apart than this do not belong to one breach."""
        return max(2 * self.breach_for, timedelta(minutes=2))

    def breaches(self, sample: SliSample) -> tuple[str, ...]:
        """Which objectives a sample breaks, in words with figures; no data, or too little, breaks none."""
        sample = self.judged(sample)
        found = []
        if sample.error_rate is not None and sample.error_rate > self.max_error_rate:
            found.append(f"error rate {sample.error_rate:.1%} is above {self.max_error_rate:.1%}")
        if sample.p95_latency_ms is not None and sample.p95_latency_ms > self.max_p95_latency_ms:
            found.append(
                f"p95 latency {sample.p95_latency_ms:.0f} ms is above {self.max_p95_latency_ms:.0f} ms"
            )
        return tuple(found)


class BreachLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When one indicator is in breach, and which samples belong to one breach."""

    threshold: float
    """Above it is a breach."""
    clear_below: float
    """A breach ends only at or below it: hysteresis against flapping."""
    gap: timedelta
    """Samples further apart do not belong to one breach."""


class Breach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of one indicator of one service; times are event times."""

    since: datetime | None = None
    """The first sample of the current breach; None without one."""
    until: datetime | None = None
    """The newest sample that keeps it on."""
    clear_at: datetime | None = None
    """The newest sample at which the indicator was healthy."""

    def with_value(self, value: float | None, at: datetime, limits: BreachLimits) -> Breach:
        """The state after a sample of `at`; missing data changes nothing."""
        if value is None:
            return self
        if value > limits.threshold:
            return self._above(at, limits.gap)
        if value > limits.clear_below and self._goes_on(at, limits.gap):
            return structs.replace(self, until=self.until if self.until is None else max(self.until, at))
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
            return self  # already over
        if self.since is None or self.until is None or at - self.until > gap:
            return structs.replace(self, since=at, until=at)
        if at > self.until:
            return structs.replace(self, until=at)
        return structs.replace(self, since=at) if at < self.since and self.since - at <= gap else self

    def _goes_on(self, at: datetime, gap: timedelta) -> bool:
        """Whether a sample between the clearing level and the threshold finds a breach on."""
        return self.since is not None and self.until is not None and self.since <= at <= self.until + gap

    def _well(self, at: datetime) -> Breach:
        clear_at = at if self.clear_at is None else max(self.clear_at, at)
        well = Breach(since=self.since, until=self.until, clear_at=clear_at)
        if self.since is None or self.until is None or at < self.since:
            return well
        if at >= self.until:
            return structs.replace(well, since=None, until=None)
        # In between it was healthy: when it breached again is unknown, only that it had by then.
        return structs.replace(well, since=self.until)

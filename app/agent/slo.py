"""Service level objectives: the one definition of unwell that intake, verification and memory share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from app.agent.models import Objectives, SliSample


@dataclass(frozen=True, slots=True, kw_only=True)
class SloThresholds:
    """Above which level a service is unwell, and for how long before that counts."""

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

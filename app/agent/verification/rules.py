"""The requirements of a verification: duration, interval and freshness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from app.agent.slo import SloThresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRules:
    """The requirements for a verdict: duration and freshness of observations."""

    slo: SloThresholds
    soak: timedelta
    """How long the service must stay healthy without interruption."""
    timeout: timedelta
    """Measured from the action; at its end the verdict is given."""
    interval: timedelta
    max_sample_age: timedelta
    batch_timeout: timedelta = timedelta(hours=1)
    """In place of `timeout` for a batch, whose run may take long."""

    def for_batch(self) -> VerifyRules:
        """The rules for a batch: a run that completed needs no soak."""
        return replace(self, soak=timedelta(0), timeout=self.batch_timeout)

    @property
    def longest_gap(self) -> timedelta:
        """The longest time between two observations; after a longer gap the verification restarts."""
        return max(3 * self.interval, self.max_sample_age)

    @property
    def longest(self) -> timedelta:
        """How long attempts may last in total that gaps between observations end; then no other begins."""
        return 3 * (self.timeout + self.soak + self.longest_gap)

"""Posted samples that are healthy and in order: evaluated by a few comparisons, without a `Signal` each.

`IntakeRules` decides every signal. It ignores a healthy sample of a healthy service, regardless of open
incidents, and records its time: a `HealthyRun` does the same for many samples of one service, and takes no
others. `tests/property/test_healthy_run.py` checks that both agree. Pure.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import structs

from app.agent.freshness.clock_jumps import SKEW
from app.agent.freshness.levels import newest_time
from app.agent.intake.samples import WITHIN, has_been_well, later, rhythm
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Disposition,
    DispositionKind,
    MetricSample,
    PostedSample,
    PostedSamples,
    Signal,
    SliSample,
)
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import SloThresholds

HTTP = "http"
"""The source of posted samples."""
HEALTHY = Disposition(kind=DispositionKind.IGNORED, reason=WITHIN)
"""What becomes of every sample that a run takes."""


def signals_of(posted: PostedSamples) -> tuple[Signal, ...]:
    """The same samples as signals, for the rules."""
    return tuple(
        new_signal(
            key=one.key,
            source=HTTP,
            observed_at=one.observed_at,
            received_at=posted.received_at,
            payload=MetricSample(
                error_rate=one.error_rate,
                p95_latency_ms=one.p95_latency_ms,
                crash_looping=one.crash_looping,
            ),
            stale_after=posted.stale_after,
            sender=posted.sender,
        )
        for one in posted.samples
    )


class HealthyRun(msgspec.Struct, gc=False):
    """Healthy samples of one service, each newer than all before, on the levels that it had."""

    levels: ServiceLevels
    newest: datetime
    """The newest observation on record: a later one repeats none."""
    latest: datetime
    """The newest time in the levels: in the future after the clock went back."""
    last_at: datetime | None
    before_at: datetime | None = None
    """Of the sample before the last one."""
    last: PostedSample | None = None
    """The last sample that is not in the levels yet."""
    errors_at: datetime | None = None
    latency_at: datetime | None = None
    crash_at: datetime | None = None
    max_error_rate: float = 0.0
    max_p95_latency_ms: float = 0.0

    def judge_by(self, thresholds: SloThresholds) -> None:
        """Use the objectives that the service has now."""
        slo = thresholds.of(self.levels.key)
        self.max_error_rate, self.max_p95_latency_ms = slo.max_error_rate, slo.max_p95_latency_ms

    def takes(self, sample: PostedSample, received_at: datetime) -> bool:
        """Whether the rules would ignore it as healthy, and no signal on record can be the same."""
        observed_at = sample.observed_at
        if observed_at <= self.newest or sample.crash_looping:
            return False
        at = observed_at if observed_at < received_at else received_at
        errors, latency = sample.error_rate, sample.p95_latency_ms
        return (
            (errors is None or errors <= self.max_error_rate)
            and (latency is None or latency <= self.max_p95_latency_ms)
            and (self.last_at is None or at >= self.last_at)
            and self.latest - received_at <= SKEW
        )

    def take(self, sample: PostedSample, received_at: datetime) -> None:
        """Remember a sample that it `takes`."""
        observed_at = self.newest = sample.observed_at
        at = observed_at if observed_at < received_at else received_at
        self.before_at, self.last_at, self.last = self.last_at, at, sample
        if at > self.latest:
            self.latest = at
        if sample.error_rate is not None:
            self.errors_at = at
        if sample.p95_latency_ms is not None:
            self.latency_at = at
        if sample.crash_looping is not None:
            self.crash_at = at

    def after(self) -> ServiceLevels:
        """The levels including the taken samples: the levels of the service from now on."""
        sample, at, before = self.last, self.last_at, self.levels
        if sample is None or at is None:
            return before
        self.levels = structs.replace(
            before,
            last_sample_at=at,
            last_sample=SliSample(at=at, error_rate=sample.error_rate, p95_latency_ms=sample.p95_latency_ms),
            rhythm_seconds=rhythm(self.before_at, at),
            error_rate_clear_at=_latest(before.error_rate_clear_at, self.errors_at),
            latency_clear_at=_latest(before.latency_clear_at, self.latency_at),
            crash_told_at=_latest(before.crash_told_at, self.crash_at),
        )
        self.last = self.errors_at = self.latency_at = self.crash_at = None
        return self.levels


def run_of(levels: ServiceLevels, newest: datetime) -> HealthyRun | None:
    """A run on these levels; None where more than a healthy level is on record of the service."""
    if not has_been_well(levels):
        return None
    return HealthyRun(
        levels=levels,
        newest=newest,
        latest=newest_time(levels) or newest,
        last_at=levels.last_sample_at,
    )


def _latest(before: datetime | None, at: datetime | None) -> datetime | None:
    return before if at is None else later(before, at)

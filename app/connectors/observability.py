"""Vendor-neutral metrics: indicators, their age, and detection of telemetry outages.

Vendor-neutral and free of HTTP. Called by the metric connectors, which know how
to ask, and by the poller. Keeps promise 8: a value without fresh data behind it
is no data, and many series vanishing together is a fault of the telemetry.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias, runtime_checkable

from app.agent.ids import ServiceKey
from app.agent.models import SliSample, TelemetryHealth
from app.agent.ports.metrics import MetricSource
from app.errors import AgentError, Invalid

_POLL_CONCURRENCY = 8
SERVICES_AT_ONCE = 50
"""Services in one question, for a source that can answer for many."""
_ROUNDING = 1e-6

Polled: TypeAlias = tuple[ServiceKey, SliSample | AgentError]


class Indicator(StrEnum):
    """What a monitoring system is asked for."""

    ERROR_RATE = "error_rate"
    P95_LATENCY_MS = "p95_latency_ms"
    REQUEST_RATE = "request_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One answer for one indicator, with the evidence that it rests on data."""

    value: float | None
    newest: datetime | None
    """Time of the newest raw sample behind the value; None when there is none."""
    oldest_useful: datetime
    """A newest sample at or before this makes the value no data."""

    def usable(self) -> float | None:
        """The value, or None where it is not finite or nothing recent stands behind it."""
        if self.value is None or not math.isfinite(self.value):
            return None
        if self.newest is None or self.newest <= self.oldest_useful:
            return None
        return self.value


def assemble(readings: Mapping[Indicator, Reading], at: datetime) -> SliSample | None:
    """One sample from its readings, as old as the oldest data it rests on; None without any data.

    Raises `Invalid` for a number that cannot be what the query is there for: it
    is not bent into shape, because the likely cause (a percentage for a share,
    a difference that went negative) would make it wrong by much.
    """
    values: dict[Indicator, float] = {}
    newest: list[datetime] = []
    for indicator, reading in readings.items():
        value = reading.usable()
        if value is not None and reading.newest is not None:
            values[indicator] = _sane(indicator, value)
            newest.append(reading.newest)
    if not values:
        return None
    return SliSample(
        at=min(at, *newest),
        error_rate=values.get(Indicator.ERROR_RATE),
        p95_latency_ms=values.get(Indicator.P95_LATENCY_MS),
        request_rate=values.get(Indicator.REQUEST_RATE),
    )


def _sane(indicator: Indicator, value: float) -> float:
    if value < -_ROUNDING:
        raise Invalid(f"the {indicator} query answered {value:g}; it must not be negative")
    if indicator is Indicator.ERROR_RATE:
        if value > 1 + _ROUNDING:
            raise Invalid(f"the error_rate query answered {value:g}; it must answer a share, 0 to 1")
        return min(max(value, 0.0), 1.0)
    return max(value, 0.0)


def judge_telemetry(before: Collection[ServiceKey], now: Collection[ServiceKey]) -> TelemetryHealth:
    """Health of the measuring from who had data before and who has data now.

    Services that never had data do not count as known, or a cluster full of
    unmeasured services would hide an outage of the measured ones.
    """
    seen_before, seen_now = set(before), set(now)
    return TelemetryHealth(
        known_services=len(seen_before | seen_now),
        silent_services=len(seen_before - seen_now),
        source_reachable=True,
    )


@runtime_checkable
class SampleBatches(Protocol):
    """A metric source that answers for many services with one question."""

    async def slis(self, keys: Sequence[ServiceKey], at: datetime) -> tuple[Polled, ...]:
        """The sample, or the error, of each service; one service's error is no other's."""
        ...


async def polled(
    source: MetricSource,
    keys: Sequence[ServiceKey],
    at: datetime,
    *,
    concurrency: int = _POLL_CONCURRENCY,
) -> AsyncGenerator[Polled, None]:
    """The sample, or the error, of every service as soon as it is there; one's error stops no other's.

    At most `concurrency` questions are open at a time, each about one service, or about
    `SERVICES_AT_ONCE` where the source can answer for many.
    """
    gate = asyncio.Semaphore(concurrency)
    size = SERVICES_AT_ONCE if isinstance(source, SampleBatches) else 1

    async def ask(some: Sequence[ServiceKey]) -> tuple[Polled, ...]:
        async with gate:
            if isinstance(source, SampleBatches):
                return await source.slis(some, at)
            try:
                return ((some[0], await source.sli(some[0], at)),)
            except AgentError as error:
                return ((some[0], error),)

    asking = [asyncio.ensure_future(ask(keys[i : i + size])) for i in range(0, len(keys), size)]
    try:
        for answered in asyncio.as_completed(asking):
            for one in await answered:
                yield one
    finally:
        for task in asking:
            task.cancel()


async def poll_once(
    source: MetricSource,
    keys: Sequence[ServiceKey],
    at: datetime,
    *,
    concurrency: int = _POLL_CONCURRENCY,
) -> tuple[Polled, ...]:
    """As `polled`, all of it, in the order of the services."""
    found = {key: answer async for key, answer in polled(source, keys, at, concurrency=concurrency)}
    return tuple((key, found[key]) for key in keys)

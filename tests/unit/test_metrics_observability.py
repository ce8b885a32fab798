"""What counts as data, when measuring itself is at fault, and how a poll goes on past errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.models import SliSample, TelemetryHealth
from app.connectors.observability import Indicator, Reading, assemble, judge_telemetry, poll_once
from app.errors import Invalid, TransientError

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
WINDOW = timedelta(minutes=1)
KEYS = tuple(ServiceKey(environment="prod", service=f"s{n}") for n in range(20))


def reading(value: float | None, age_seconds: float | None = 0) -> Reading:
    newest = None if age_seconds is None else AT - timedelta(seconds=age_seconds)
    return Reading(value=value, newest=newest, oldest_useful=AT - WINDOW)


def test_a_sample_is_as_old_as_its_oldest_part() -> None:
    """A fresh rate does not lend its youth to an old latency."""
    sample = assemble(
        {
            Indicator.ERROR_RATE: reading(0.1, 5),
            Indicator.P95_LATENCY_MS: reading(800.0, 40),
            Indicator.REQUEST_RATE: reading(3.0, 1),
        },
        AT,
    )
    assert sample == SliSample(
        at=AT - timedelta(seconds=40), error_rate=0.1, p95_latency_ms=800.0, request_rate=3.0
    )


def test_parts_without_data_neither_count_nor_age_the_rest() -> None:
    """What is missing is missing, and only that."""
    sample = assemble(
        {Indicator.ERROR_RATE: reading(0.1, 5), Indicator.P95_LATENCY_MS: reading(800.0, 60)}, AT
    )
    assert sample == SliSample(at=AT - timedelta(seconds=5), error_rate=0.1)


@given(
    value=st.none() | st.floats(),
    age=st.none() | st.floats(min_value=60, max_value=1e6),
    indicator=st.sampled_from(Indicator),
)
def test_no_number_counts_without_recent_data(
    value: float | None, age: float | None, indicator: Indicator
) -> None:
    """Promise 8 for every number there is."""
    assert assemble({indicator: reading(value, age)}, AT) is None


@given(value=st.floats(), indicator=st.sampled_from(Indicator))
def test_what_is_assembled_is_finite_and_in_range(value: float, indicator: Indicator) -> None:
    """A share is in 0..1, nothing is negative, and infinities are no data; else the query is called wrong."""
    try:
        sample = assemble({indicator: reading(value)}, AT)
    except Invalid:
        assert value < 0 or (indicator is Indicator.ERROR_RATE and value > 1)
        return
    if sample is None:
        assert value != value or value in (float("inf"), float("-inf"))
        return
    got = getattr(sample, indicator)
    assert 0 <= got <= (1 if indicator is Indicator.ERROR_RATE else float("inf"))
    assert got == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize(
    ("before", "now", "known", "silent", "outage"),
    [
        (4, 4, 4, 0, False),
        (4, 1, 4, 3, True),
        (4, 2, 4, 2, False),
        (6, 3, 6, 3, False),
        (7, 3, 7, 4, True),
        (2, 0, 2, 2, False),
        (0, 0, 0, 0, False),
        (0, 5, 5, 0, False),
    ],
)
def test_many_falling_silent_is_the_telemetrys_fault(
    before: int, now: int, known: int, silent: int, outage: bool
) -> None:
    """At least three and more than half of those that were heard of; newcomers only make more known."""
    health = judge_telemetry(KEYS[:before], KEYS[:now])
    assert (health.known_services, health.silent_services, health.outage) == (known, silent, outage)


class Flaky:
    """A source in which every third service fails; it remembers how many asked at once."""

    def __init__(self) -> None:
        self.asking = self.most = 0

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        self.asking += 1
        self.most = max(self.most, self.asking)
        await asyncio.sleep(0)
        self.asking -= 1
        if int(key.service[1:]) % 3 == 0:
            raise TransientError(f"{key} is in trouble")
        return SliSample(at=at, error_rate=0.0)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        return (await self.sli(key, end),)

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        return judge_telemetry(keys, keys)


async def test_one_failing_service_stops_no_other() -> None:
    """Every service gets its sample or its own error, in the order asked, a few at a time."""
    source = Flaky()
    polled = await poll_once(source, KEYS, AT, concurrency=4)
    assert [key for key, _ in polled] == list(KEYS)
    for number, (key, answer) in enumerate(polled):
        if number % 3 == 0:
            assert isinstance(answer, TransientError)
            assert str(key) in str(answer)
        else:
            assert answer == SliSample(at=AT, error_rate=0.0)
    assert source.most == 4


async def test_polling_no_service_is_nothing() -> None:
    """No services, no answers."""
    assert await poll_once(Flaky(), [], AT) == ()

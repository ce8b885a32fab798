"""Freeze windows: compared with a walk through every day, clocks changing or not."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.guardrails.freeze import FreezeWindow, check_cron, frozen
from app.agent.ids import ServiceKey

KEY = ServiceKey(environment="prod", service="shop")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")
MOMENTS = st.datetimes(
    min_value=datetime(2026, 1, 10),  # noqa: DTZ001 - bounds are naive here
    max_value=datetime(2026, 12, 20),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@given(
    st.sampled_from(ZONES),
    st.sampled_from([h for h in range(24) if h not in (0, 1, 2, 3)]),
    st.integers(0, 59),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(1, 80),
    MOMENTS,
)
def test_a_weekly_window_holds_exactly_when_a_calendar_says_so(
    zone: str, hour: int, minute: int, days: set[int], hours: int, at: datetime
) -> None:
    """Starts by the wall clock, lasts in true time. Hours that clocks skip or repeat are tested below."""
    names = ",".join(WEEKDAYS[day] for day in sorted(days))
    window = FreezeWindow(
        name="w", cron=f"{minute} {hour} * * {names}", length=timedelta(hours=hours), time_zone=zone
    )
    starts = [
        datetime.combine(day, time(hour, minute), tzinfo=ZoneInfo(zone)).astimezone(UTC)
        for day in (date(2025, 12, 20) + timedelta(days=n) for n in range(400))
        if day.weekday() in days
    ]
    holding = [start for start in starts if start <= at < start + timedelta(hours=hours)]
    wanted = max(holding) + timedelta(hours=hours) if holding else None
    assert window.holds_until(at) == wanted
    assert window.next_start(at) == min(start for start in starts if start > at)


def test_its_first_moment_is_inside_and_its_end_is_not() -> None:
    """To the microsecond."""
    window = FreezeWindow(name="w", cron="30 9 * * *", length=timedelta(hours=1))
    start = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
    instant = timedelta(microseconds=1)
    assert window.holds_until(start - instant) is None
    assert window.holds_until(start) == start + timedelta(hours=1)
    assert window.holds_until(start + timedelta(hours=1) - instant) is not None
    assert window.holds_until(start + timedelta(hours=1)) is None


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        # 29 March 2026: clocks in Berlin go from 02:00 to 03:00, which is 01:00 UTC.
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), False),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), True),
        (datetime(2026, 3, 29, 1, 59, tzinfo=UTC), True),
        (datetime(2026, 3, 29, 2, 0, tzinfo=UTC), False),
        # 25 October 2026: 02:30 comes twice, at 00:30 and 01:30 UTC; the first one starts it.
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), True),
        (datetime(2026, 10, 25, 1, 29, tzinfo=UTC), True),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), False),
    ],
)
def test_an_hour_that_is_skipped_or_comes_twice_starts_it_once(at: datetime, inside: bool) -> None:
    """As Debian's cron has it: right after the gap, and at the first of the two."""
    window = FreezeWindow(name="w", cron="30 2 * * *", length=timedelta(hours=1), time_zone="Europe/Berlin")
    assert (window.holds_until(at) is not None) is inside


def test_a_window_that_happens_once() -> None:
    """From its instant on, for its length, and never again."""
    start = datetime(2026, 12, 24, 12, tzinfo=UTC)
    window = FreezeWindow(name="holidays", starts_at=start, length=timedelta(days=10))
    assert window.holds_until(start - timedelta(seconds=1)) is None
    assert window.next_start(start - timedelta(seconds=1)) == start
    assert window.holds_until(start + timedelta(days=9)) == start + timedelta(days=10)
    assert window.next_start(start) is None
    assert window.holds_until(start + timedelta(days=10)) is None


@pytest.mark.parametrize(
    ("environments", "services", "holds"),
    [
        ((), (), True),
        (("prod",), (), True),
        (("dev",), (), False),
        ((), ("cart",), False),
        (("prod",), ("shop",), True),
    ],
)
def test_it_holds_for_whom_it_names(
    environments: tuple[str, ...], services: tuple[str, ...], holds: bool
) -> None:
    """Every service where none is named; the reason names the longest window."""
    at = datetime(2026, 5, 4, 12, tzinfo=UTC)
    short = FreezeWindow(
        name="short",
        cron="0 * * * *",
        length=timedelta(hours=1),
        environments=environments,
        services=services,
    )
    assert (frozen([short], KEY, at) is not None) is holds
    long = FreezeWindow(name="long", starts_at=at, length=timedelta(days=2))
    assert frozen([short, long], KEY, at) == "freeze window long is active until 2026-05-06 12:00:00 UTC"


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 31 2 *", "0 18 * * FRIDAY", "@daily", "x" * 999],
)
def test_what_is_no_cron_expression_is_refused(expression: str) -> None:
    """With five fields, within their ranges, and a day that comes at all."""
    with pytest.raises(ValueError, match=r"cron expression|five fields|never occurs"):
        check_cron(expression)

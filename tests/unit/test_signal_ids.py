"""The identifiers of signals: never two alike, whatever the state of Python's random generator."""

from __future__ import annotations

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import MetricSample

NOW = datetime(2026, 2, 20, 17, 5, tzinfo=UTC)


def _identifier(arrival: datetime = NOW) -> str:
    return new_signal(
        key=ServiceKey(environment="prod", service="shop"),
        source="http",
        observed_at=NOW,
        received_at=arrival,
        payload=MetricSample(error_rate=0.01),
        stale_after=timedelta(minutes=10),
    ).id


def test_processes_with_the_same_random_state_give_different_identifiers() -> None:
    """Two workers forked from one process, or seeded alike, receive signals in the same microsecond."""
    found = set()
    for _ in range(100):
        random.seed(0)
        found.add(_identifier())
    assert len(found) == 100


def test_identifiers_grow_with_the_time_of_arrival() -> None:
    """An index over them is written at its end."""
    later = [_identifier(NOW + timedelta(microseconds=step)) for step in range(50)]
    assert later == sorted(later)


_times = st.datetimes(timezones=st.just(UTC))
_figures = st.none() | st.floats(min_value=0, max_value=1e9) | st.integers(0, 10**9)


@given(
    names=st.tuples(st.text(), st.text(), st.text()),
    at=_times,
    figures=st.tuples(_figures, _figures, _figures),
    crash_looping=st.none() | st.booleans(),
)
def test_a_sample_is_recognised_by_the_same_key_as_ever(
    names: tuple[str, str, str],
    at: datetime,
    figures: tuple[float | None, float | None, float | None],
    crash_looping: bool | None,
) -> None:
    """The key is a hash over JSON with sorted keys; a program before this one has stored such keys."""
    error_rate, latency, request_rate = figures
    content = {"error_rate": error_rate, "p95_latency_ms": latency, "crash_looping": crash_looping}
    if request_rate is not None:
        content["request_rate"] = request_rate
    source, environment, service = names
    told = [source, "metric", environment, service, at.isoformat(), content]
    signal = new_signal(
        key=ServiceKey(environment=environment, service=service),
        source=source,
        observed_at=at,
        received_at=NOW,
        payload=MetricSample(
            error_rate=error_rate,
            p95_latency_ms=latency,
            crash_looping=crash_looping,
            request_rate=request_rate,
        ),
        stale_after=timedelta(minutes=10),
    )
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    assert signal.dedup_key == f"content:{digest}"

"""The identifiers of signals: never two alike, whatever the state of Python's random generator."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import MetricSample
from app.agent.observer import new_signal

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

"""An alert that ends and fires again: the later firing ends the earlier one, in any order of arrival."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from app.agent.freshness.all_clear import all_withdrawn, firing_alerts
from app.agent.freshness.memory import ALERTS_KEPT
from app.agent.freshness.reasons import Reason
from app.agent.freshness.reports import from_signals, remember_signal, repeated
from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import Alert, DispositionKind, Signal, Trigger
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.ports.store.signals import Accepted
from app.agent.slo import SloThresholds
from app.bootstrap import Adapters, Container, assemble
from app.config import Settings
from app.connectors.registry import ALERT_FORMATS
from app.store import open_store
from app.store.database.codec import dumps, loads, read
from app.testing import VirtualClock
from tests.sqlite_template import migrated

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="shop")
ALL = tuple(Trigger)
FIRST = Alert(
    name="HighErrorRate", firing=True, fingerprint="f1", starts_at=START, trigger=Trigger.HIGH_ERROR_RATE
)
SECOND = replace(FIRST, starts_at=START + timedelta(seconds=20))
THIRD = replace(FIRST, starts_at=START + timedelta(seconds=40))


def reported(
    alert: Alert, seconds: float, *, source: str = "alertmanager", ended: float | None = None
) -> Signal:
    """A delivery that arrives so many seconds after the start; a resolution says when the alert ended."""
    received = START + timedelta(seconds=seconds)
    observed = alert.starts_at if alert.firing else received
    return new_signal(
        key=KEY,
        source=source,
        observed_at=observed if ended is None else START + timedelta(seconds=ended),
        received_at=received,
        payload=alert,
        stale_after=timedelta.max,
    )


def remembered(*signals: Signal) -> tuple[Reason, ...]:
    known: tuple[Reason, ...] = ()
    for signal in signals:
        known = remember_signal(known, signal)
    return known


def fires(known: tuple[Reason, ...], seconds: float = 300) -> list[str]:
    """The starts of the alerts that may fire, as their subjects have them."""
    found = firing_alerts(known, ALL, START + timedelta(seconds=seconds))
    return [one.subject.rpartition("@")[2] for one in found]


def test_a_later_start_ends_the_earlier_firing() -> None:
    """Alertmanager delivers the end of the later firing only."""
    known = remembered(reported(FIRST, 10), reported(SECOND, 30))
    assert fires(known) == [SECOND.starts_at.isoformat()]
    (first,) = [one for one in known if one.withdrawn is not None]
    assert first.withdrawn is not None
    assert first.withdrawn.said == "the alert HighErrorRate ended and fired again"
    known = remember_signal(known, reported(replace(SECOND, firing=False), 60, ended=50))
    assert fires(known) == []
    assert all_withdrawn(known, (Trigger.HIGH_ERROR_RATE,))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_firing_stands_in_whatever_order_they_arrive(order: tuple[int, ...]) -> None:
    """Each is delivered twice, as a sender does that had no answer."""
    firings = (FIRST, SECOND, THIRD)
    known: tuple[Reason, ...] = ()
    for place, number in enumerate(order):
        known = remember_signal(known, reported(firings[number], 60 + place))
        known, _ = repeated(known, reported(firings[number], 90 + place))
    assert fires(known) == [THIRD.starts_at.isoformat()]
    for seconds in (200, 220, 240):  # an earlier firing that is repeated stays over
        known, again = repeated(known, reported(FIRST, seconds))
        assert not again
    assert fires(known) == [THIRD.starts_at.isoformat()]


def test_the_end_of_a_later_firing_ends_one_that_was_delivered_before() -> None:
    known = remembered(reported(FIRST, 10), reported(replace(SECOND, firing=False), 60, ended=50))
    assert fires(known) == []
    late = remember_signal(known, reported(THIRD, 70))
    assert fires(late) == [THIRD.starts_at.isoformat()]


def test_an_earlier_firing_that_is_repeated_after_the_later_one_ended_fires_again() -> None:
    """The first repeat may be a late copy; a second one, apart, is a sender that holds it as firing."""
    known = remembered(reported(SECOND, 30), reported(replace(SECOND, firing=False), 60, ended=50))
    known = remember_signal(known, reported(FIRST, 70))
    assert fires(known) == []
    found = []
    for seconds in (80, 100, 120):
        known, again = repeated(known, reported(FIRST, seconds))
        found.append(again)
    assert found == [False, True, False]
    assert fires(known) == [FIRST.starts_at.isoformat()]


def test_an_earlier_start_long_after_the_later_end_is_a_new_firing() -> None:
    """The clock of its sender went back: no delivery is late by so much."""
    ended = remembered(reported(SECOND, 30), reported(replace(SECOND, firing=False), 60, ended=50))
    for seconds, expected in ((60 + 15 * 60, []), (61 + 15 * 60, [FIRST.starts_at.isoformat()])):
        assert fires(remember_signal(ended, reported(FIRST, seconds)), 2000) == expected


def test_one_firing_with_two_starts_ends_with_the_earlier() -> None:
    """Two replicas of Prometheus: Alertmanager merges their starts, and reports the end with the earliest."""
    known = remembered(reported(SECOND, 30), reported(FIRST, 40))
    assert fires(known) == [SECOND.starts_at.isoformat()]
    before = remember_signal(known, reported(replace(FIRST, firing=False), 60, ended=15))
    assert fires(before) == [SECOND.starts_at.isoformat()], "it ended before the second began"
    unknown = remember_signal(known, reported(replace(FIRST, firing=False), 60))
    assert fires(unknown) == [SECOND.starts_at.isoformat()], "when it ended was not delivered"
    assert fires(remember_signal(known, reported(replace(FIRST, firing=False), 60, ended=50))) == []


def test_other_alerts_and_other_sources_keep_firing() -> None:
    other = replace(SECOND, fingerprint="f2")
    known = remembered(reported(FIRST, 10), reported(other, 30), reported(SECOND, 31, source="datadog"))
    assert len(fires(known)) == 3


def test_an_alert_without_data_ends_nothing() -> None:
    """A rule that could not be evaluated says nothing of the alert."""
    nodata = replace(SECOND, trigger=None, telemetry=True)
    assert fires(remembered(reported(FIRST, 10), reported(nodata, 30))) == [FIRST.starts_at.isoformat()]


def test_a_later_firing_that_is_suppressed_takes_the_place_of_the_earlier() -> None:
    """Nothing has recovered, and it is no reason for an action."""
    muted = replace(SECOND, suppressed=True)
    known = remembered(reported(FIRST, 10), reported(muted, 30))
    (found,) = firing_alerts(known, ALL, START + timedelta(minutes=5))
    assert found.subject.endswith(SECOND.starts_at.isoformat())
    assert found.withdrawn is not None
    assert found.withdrawn.muted
    assert remembered(reported(muted, 30)) == ()


def test_cycles_follow_each_other_by_the_times_of_their_messages() -> None:
    """Datadog links a start to its end by a key that says nothing of the order."""
    first, second = replace(FIRST, cycle="17"), replace(SECOND, cycle="9")
    for order in ((first, second), (second, first)):
        known = remembered(*(reported(one, 60 + place) for place, one in enumerate(order)))
        assert [one.subject for one in firing_alerts(known, ALL, START + timedelta(minutes=5))] == [
            "alert f1@9"
        ]
    older = tuple(replace(one, starts_at=None) for one in remembered(reported(first, 10)))
    assert len(fires(remember_signal(older, reported(second, 30)))) == 2, "an order that is not known"


def test_a_merged_firing_is_ended_too() -> None:
    """Of alerts beyond the bound only digests are kept."""
    known = remembered(reported(FIRST, 10))
    for number in range(ALERTS_KEPT):
        other = replace(FIRST, fingerprint=f"a{number}")
        known = remember_signal(known, reported(other, 100 + number))
    assert firing_alerts(known, ALL, START + timedelta(minutes=5))[-1].said == "1 further alert"
    later = replace(FIRST, starts_at=START + timedelta(seconds=200))
    known = remember_signal(known, reported(later, 210))
    known = remember_signal(known, reported(replace(later, firing=False), 260, ended=250))
    found = [one.said for one in firing_alerts(known, ALL, START + timedelta(minutes=5))]
    assert len(found) == ALERTS_KEPT
    assert found.count("1 further alert") == 1, "the oldest of the others, which made place"


def test_what_is_remembered_survives_a_restart_and_an_older_version() -> None:
    """The order is found again from what was stored."""
    stored = read(tuple[Reason, ...], loads(dumps(remembered(reported(replace(FIRST, cycle="17"), 10)))))
    known = remember_signal(stored, reported(replace(SECOND, cycle="9"), 30))
    assert [one.subject for one in firing_alerts(known, ALL, START + timedelta(minutes=5))] == ["alert f1@9"]
    slo = SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(minutes=1),
        reopen_after=timedelta(hours=1),
    )
    signals = (reported(FIRST, 10), reported(SECOND, 30))
    assert fires(from_signals(signals, slo)) == [SECOND.starts_at.isoformat()]


# ------------------------------------------------------------------ through the doors


@asynccontextmanager
async def agent(folder: Path) -> AsyncIterator[Container]:
    """An agent on a virtual clock that is connected to nothing."""
    store = await open_store(migrated(folder / "heal.db"))
    container = assemble(Settings(_env_file=None), clock=VirtualClock(START), store=store, world=Adapters())
    try:
        yield container
    finally:
        await container.close()


def alertmanagers(start: int, end: int | None = None, **labels: str) -> dict[str, Any]:
    """A delivery of Alertmanager about one alert that began, and ended, so many seconds after the start."""
    return {
        "version": "4",
        "alerts": [
            {
                "status": "firing" if end is None else "resolved",
                "labels": {"alertname": "HighErrorRate", "namespace": "prod", "service": "shop", **labels},
                "startsAt": (START + timedelta(seconds=start)).isoformat(),
                **({} if end is None else {"endsAt": (START + timedelta(seconds=end)).isoformat()}),
                "fingerprint": "c0ffee",
            }
        ],
    }


def datadogs(cycle: str, start: int, end: int | None = None) -> dict[str, Any]:
    """A message of a Datadog monitor; the time is that of the message."""
    sent = START + timedelta(seconds=start if end is None else end)
    return {
        "alert_transition": "Triggered" if end is None else "Recovered",
        "alert_id": "1",
        "alert_cycle_key": cycle,
        "title": "High error rate",
        "tags": "service:shop,env:prod,heal_trigger:high_error_rate",
        "date": str(int(sent.timestamp() * 1000)),
    }


FORMATS: list[tuple[str, list[dict[str, Any]]]] = [
    ("alertmanager", [alertmanagers(0), alertmanagers(20), alertmanagers(20, 50)]),
    (
        "alertmanager",  # Grafana sends the same body
        [
            {**alertmanagers(*times, grafana_folder="shop"), "version": "1"}
            for times in ((0,), (20,), (20, 50))
        ],
    ),
    ("datadog", [datadogs("17", 0), datadogs("9", 20), datadogs("9", 20, 50)]),
]


async def deliver(container: Container, name: str, body: dict[str, Any]) -> Accepted:
    (form,) = [one for one in ALERT_FORMATS if one.name == name]
    batch = form.read(body).batch(settings=container.settings, received_at=container.clock.now())
    (accepted,) = await container.intake.accept(batch.signals)
    return accepted


@pytest.mark.parametrize(("name", "bodies"), FORMATS)
@pytest.mark.parametrize("late", [False, True])
async def test_every_format_ends_the_earlier_firing(
    tmp_path: Path, name: str, bodies: list[dict[str, Any]], *, late: bool
) -> None:
    """One incident, whose alerts are all over; the earlier firing, delivered late, opens no other."""
    first, second, ended = bodies
    async with agent(tmp_path) as one:
        assert isinstance(one.clock, VirtualClock)
        for body in (second, ended, first) if late else (first, second, first, ended):
            await one.clock.advance(70)
            last = await deliver(one, name, body)
        levels = await one.store.signals.levels(KEY)
        assert levels is not None
        assert firing_alerts(levels.reasons, ALL, one.clock.now()) == ()
        assert all_withdrawn(levels.reasons, (Trigger.HIGH_ERROR_RATE,))
        opened = (await one.store.incidents.find(IncidentFilter(), limit=9, cursor=None)).items
        assert len(opened) == 1
        if late:
            assert last.disposition.kind is DispositionKind.IGNORED
            assert "fired again since" in last.disposition.reason

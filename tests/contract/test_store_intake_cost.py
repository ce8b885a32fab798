"""What a delivery costs: each transaction reads and writes a service once, however many its signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, event

from app.agent.ids import ServiceKey
from app.agent.intake import IntakeRules
from app.agent.models import (
    Alert,
    DispositionKind,
    Signal,
    Trigger,
)
from app.agent.ports.store import Store
from app.agent.slo import SloThresholds
from app.agent.timeline import verify_chain
from app.store import store_over
from app.store.database.port import Work
from app.store.signals import sqlite_driver
from app.store.signals.deliveries import PART
from tests.contract.store_values import NOW, Deciding, pending, signal
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

T = TypeVar("T")
RULES = IntakeRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(minutes=1),
        reopen_after=timedelta(hours=1),
    )
)


class _CountingDriver:
    """SQLite's driver, whose statements do not pass SQLAlchemy; one for many rows counts once."""

    def __init__(self, driver: Any, executed: Callable[[], None]) -> None:
        self._driver = driver
        self._executed = executed

    def execute(self, *given: Any) -> Any:
        self._executed()
        return self._driver.execute(*given)

    def executemany(self, *given: Any) -> Any:
        self._executed()
        return self._driver.executemany(*given)


class Counting:
    """A `Database` that counts the statements of each unit of work that writes."""

    def __init__(self, store: Store) -> None:
        self._database = database_of(store)
        self.units: list[int] = []

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        def counted(connection: Connection) -> T:
            count = 0

            def executed(*_: object) -> None:
                nonlocal count
                count += 1

            driver = sqlite_driver._driver
            sqlite_driver._driver = lambda used: _CountingDriver(driver(used), executed)  # type: ignore[assignment]  # as used
            event.listen(connection, "before_cursor_execute", executed)
            try:
                return work(connection)
            finally:
                event.remove(connection, "before_cursor_execute", executed)
                sqlite_driver._driver = driver
                self.units.append(count)

        return await self._database.write(counted, urgent=urgent)

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._database.read(work, urgent=urgent)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self._database.close()


def _service(number: int) -> ServiceKey:
    return ServiceKey(environment="prod", service=f"service-{number:03d}")


def _alert(number: int, key: ServiceKey) -> Signal:
    alert = Alert(
        fingerprint=f"{number:016x}",
        name="HighErrorRate",
        firing=True,
        starts_at=NOW,
        trigger=Trigger.HIGH_ERROR_RATE,
        summary="the error rate is high",
    )
    return replace(signal(alert, key=key), dedup_key=f"alert {number}")


async def _cost(store: Store, signals: list[Signal]) -> list[int]:
    counting = Counting(store)
    await store_over(counting).signals.accept(signals, RULES, again=RULES.again, dry_run=True)
    return counting.units


async def test_more_signals_of_one_service_take_no_more_statements(store: Store) -> None:
    """Its levels, its incident and its timeline are read and written once for each transaction."""
    two = await _cost(store, [_alert(number, _service(0)) for number in range(2)])
    many = await _cost(store, [_alert(100 + number, _service(1)) for number in range(PART)])
    assert len(two) == 1
    assert many == two


async def test_many_services_take_no_more_statements_than_two(store: Store) -> None:
    """Opening and joining incidents of a hundred services reads and writes them together."""
    two = await _cost(store, [_alert(number, _service(number)) for number in range(2)])
    many = await _cost(store, [_alert(100 + number, _service(100 + number)) for number in range(PART)])
    joined = await _cost(store, [_alert(500 + number, _service(100 + number)) for number in range(PART)])
    assert len(two) == 1
    assert many == two
    assert len(joined) == 1
    assert joined[0] <= two[0]


async def test_signals_of_one_service_are_recorded_side_by_side(store: Store) -> None:
    """Alternating services cost what sorted ones do, and no transaction concerns more than its share."""
    services = 2 * PART // 5
    signals = [_alert(number, _service(number % services)) for number in range(services * 5)]
    counting = Counting(store)
    answers = await store_over(counting).signals.accept(signals, RULES, again=RULES.again, dry_run=True)
    assert [answer.signal_id for answer in answers] == [one.id for one in signals]
    kinds = [answer.disposition.kind for answer in answers]
    assert kinds == [DispositionKind.OPENED] * services + [DispositionKind.JOINED] * (4 * services)
    parts = [count for count in counting.units if count > 5]
    assert len(parts) == 2
    for incident in await store.incidents.all_open():
        timeline = await store.incidents.timeline(incident.id)
        assert len(timeline) == 5
        assert incident.joined == 4
        verify_chain(incident.id, timeline)


async def test_what_waits_and_what_opens_in_one_transaction_end_in_one_incident(store: Store) -> None:
    """A signal that was recorded as pending a moment before joins, once."""
    decides = {True: pending(), False: Deciding(release_pending=True)}
    first, second, third = (signal(dedup_key=f"one {number}") for number in range(3))
    waits = {first.id, second.id}
    decide: Callable[..., object] = lambda one, *rest: decides[one.id in waits](one, *rest)  # noqa: E731 - a decider
    await store.signals.accept([first, second, third], decide, dry_run=True)  # type: ignore[arg-type]  # as typed above
    [incident] = await store.incidents.all_open()
    timeline = await store.incidents.timeline(incident.id)
    assert [entry.message.split()[0] for entry in timeline] == ["Opened", "Joined"]
    assert timeline[1].data["signals"] == 2
    assert await store.signals.of_incident(incident.id, 10) == (first, second, third)

"""A delivery of many signals is answered and recorded as if each had been delivered alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

import pytest
from msgspec import structs

from app.agent.ids import ServiceKey, SignalId
from app.agent.intake import IntakeRules
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Alert,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    MetricSample,
    Payload,
    Signal,
    Trigger,
)
from app.agent.ports.store import Store
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import SloThresholds
from app.store.signals import intake
from app.store.signals.deliveries import Delivery
from tests.contract.store_values import NOW
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

RULES = IntakeRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(seconds=30),
        reopen_after=timedelta(hours=1),
    )
)
SERVICES = 6
SAME = ServiceKey(environment="prod", service="same")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is delivered about one of the services."""

    number: int
    payload: Payload
    late: float
    name: str
    """Of the observation: a duplicate has the same."""


def _some(random_source: random.Random, place: int) -> Told:
    number, kind = random_source.randrange(SERVICES), random_source.randrange(7)
    fingerprint, late = random_source.choice("ab"), random_source.choice([0.0, 0.0, 5.0, 40.0])
    alert = Alert(
        name="HighErrorRate",
        firing=kind == 0,
        fingerprint=fingerprint,
        starts_at=NOW,
        trigger=Trigger.HIGH_ERROR_RATE,
    )
    status = random_source.choice([DeployStatus.FAILED, DeployStatus.SUCCEEDED])
    condition = ClusterCondition(
        condition=Condition.CRASH_LOOP_BACK_OFF, present=kind == 4, message="", revision=1
    )
    payload: Payload = (
        alert,
        alert,
        MetricSample(error_rate=random_source.choice([0.001, 0.4, 0.4])),
        Deploy(version=str(place), status=status),
        condition,
        condition,
        MetricSample(error_rate=0.4),
    )[kind]
    name = f"{fingerprint} {alert.firing}" if kind < 2 else str(place)
    return Told(number=number, payload=payload, late=late, name=name)


def _signal(told: Told, prefix: str, at: datetime) -> Signal:
    key = ServiceKey(environment="prod", service=f"{prefix}{told.number}")
    return new_signal(
        key=key,
        source="http",
        observed_at=at - timedelta(seconds=told.late),
        received_at=at,
        payload=told.payload,
        stale_after=timedelta(hours=1),
        dedup_key=f"{key} {told.name}",
    )


class How(StrEnum):
    """How signals are delivered."""

    ALONE = "alone"
    ONE_DELIVERY = "one delivery"
    ONE_SET = "one set"
    """As many deliveries in one transaction."""


async def _delivered(store: Store, signals: Sequence[Signal], how: How) -> tuple[list[object], list[object]]:
    """Their answers and what is on record of them, with places and services instead of identifiers."""
    answers: list[Disposition] = []
    if how is How.ONE_SET:
        given = [Delivery(signals=(one,), decide=RULES, again=RULES.again, dry_run=True) for one in signals]
        for answer in await database_of(store).write(partial(intake.accept, given=given)):
            assert isinstance(answer, tuple)
            answers += [one.disposition for one in answer]
    for group in {How.ALONE: [[one] for one in signals], How.ONE_DELIVERY: [list(signals)]}.get(how, []):
        accepted = await store.signals.accept(group, RULES, again=RULES.again, dry_run=True)
        answers += [one.disposition for one in accepted]
    places = {signal.id: place for place, signal in enumerate(signals)}
    records = [await store.signals.get(one.id) for one in signals]
    kept = [one.disposition for one in records if one is not None]
    return [_shape(one, places) for one in answers], [_shape(one, places) for one in kept]


def _shape(one: Disposition, places: dict[SignalId, int]) -> object:
    repeats = None if one.duplicate_of is None else places[one.duplicate_of]
    reason = "a duplicate" if one.duplicate_of is not None else one.reason
    return one.kind, reason, one.incident_id is not None, repeats


@pytest.mark.parametrize("seed", range(12))
async def test_a_set_of_signals_is_answered_like_as_many_deliveries(store: Store, seed: int) -> None:
    """Dispositions, incidents and levels of every service, duplicates of pending signals included."""
    random_source = random.Random(seed)  # noqa: S311 - a seed for a test
    told = [_some(random_source, place) for place in range(40)]
    for _ in range(20):
        told.insert(random_source.randrange(20, len(told)), random_source.choice(told[:20]))
    shapes = [
        await _delivered(store, [_signal(one, prefix, NOW) for one in told], how)
        for prefix, how in zip("abc", How, strict=True)
    ]
    assert shapes[1] == shapes[0]
    assert shapes[2] == shapes[0]
    for number in range(SERVICES):
        levels: list[ServiceLevels | None] = []
        for prefix in "abc":
            key = ServiceKey(environment="prod", service=f"{prefix}{number}")
            found = await store.signals.levels(key)
            levels.append(
                None
                if found is None
                else structs.replace(found, key=ServiceKey(environment="prod", service="same"))
            )
        assert levels[0] == levels[1] == levels[2]


async def test_a_duplicate_of_a_signal_that_was_pending_names_its_incident(store: Store) -> None:
    """The first one joined the incident that a later signal of the same delivery opened."""
    waits = Told(number=1, payload=MetricSample(error_rate=0.4), late=0.0, name="waits")
    opens = Told(number=1, payload=Deploy(version="2", status=DeployStatus.FAILED), late=0.0, name="opens")
    given = [_signal(one, "c", NOW) for one in (waits, opens, waits)]
    first, second, third = await store.signals.accept(given, RULES, again=RULES.again, dry_run=True)
    assert first.disposition.kind is DispositionKind.PENDING
    assert second.disposition.kind is DispositionKind.OPENED
    assert third.disposition.kind is DispositionKind.DEDUPLICATED
    assert third.disposition.incident_id == second.disposition.incident_id

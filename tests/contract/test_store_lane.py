"""The healthy lane: posted samples in narrow rows are answered, judged and shown like signals."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from msgspec import structs
from sqlalchemy import func, select, text

from app.agent.audit.accounting import AuditQuestion
from app.agent.identity.people import Sender, SenderKind
from app.agent.ids import ServiceKey, SignalId
from app.agent.intake import IntakeRules
from app.agent.intake.posted import signals_of
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    PostedSample,
    PostedSamples,
)
from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted, HealthySamples, ServiceLevels
from app.agent.slo import SloThresholds
from app.store.database.migrate import migration_config
from app.store.database.tables import samples
from app.store.maintenance import back_up, restore
from app.store.signals import intake
from app.store.signals.deliveries import Delivery
from app.store.signals.narrow.lane import PostedDelivery
from tests.contract.store_values import NOW
from tests.contract.test_store_backup import another
from tests.contract.test_store_database import engine_of
from tests.repositories import database_of, open_narrow

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
SENDER = Sender(kind=SenderKind.ADDRESS, name="127.0.0.1", address="127.0.0.1")
SECOND = timedelta(seconds=1)
SERVICES = 6


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """With narrow rows, over each database."""
    opened = await open_narrow(database_url)
    yield opened
    await opened.close()


@dataclass(frozen=True, kw_only=True)
class Told:
    """One sample of a delivery."""

    number: int
    observed: int
    """Seconds after the start."""
    error_rate: float | None
    latency: float | None
    crash_looping: bool | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """Deliveries that wait together, and whether a failed deploy of a service comes among them."""

    at: int
    deliveries: tuple[tuple[Told, ...], ...]
    deploy: int | None


def _steps(dice: random.Random) -> list[Step]:
    """Mostly healthy samples in order; some are repeated, late, early, breaching or crash looping."""
    steps: list[Step] = []
    before: list[Told] = []
    for turn in range(30):
        at, deliveries = 10 * turn + 10, []
        for _ in range(dice.randrange(1, 4)):
            told = []
            for _ in range(dice.randrange(1, 5)):
                if before and dice.random() < 0.15:
                    told.append(dice.choice(before))
                    continue
                number = dice.randrange(SERVICES)
                sick = number < 2 and dice.random() < 0.2
                one = Told(
                    number=number,
                    observed=at + dice.choice([0, 0, -1, -2, -3, -4, -25, -1000, 4, 40]),
                    error_rate=dice.choice([None, 0.01, 0.02, 0.05]) if not sick else 0.4,
                    latency=dice.choice([100.0, 900.5, 1000.0]),
                    crash_looping=dice.choice([None, None, False, sick or None]),
                )
                told.append(one)
                before.append(one)
            deliveries.append(tuple(told))
        deploy = dice.randrange(3) if dice.random() < 0.05 else None
        steps.append(Step(at=at, deliveries=tuple(deliveries), deploy=deploy))
    return steps


def _key(prefix: str, number: int) -> ServiceKey:
    return ServiceKey(environment="prod", service=f"{prefix}{number}")


def _posted(told: Sequence[Told], prefix: str, at: int) -> PostedSamples:
    return PostedSamples(
        samples=[
            PostedSample(
                key=_key(prefix, one.number),
                observed_at=NOW + one.observed * SECOND,
                error_rate=one.error_rate,
                p95_latency_ms=one.latency,
                crash_looping=one.crash_looping,
            )
            for one in told
        ],
        received_at=NOW + at * SECOND,
        stale_after=timedelta(minutes=15),
        sender=SENDER,
    )


def _failed_deploy(number: int, prefix: str, at: int) -> Delivery:
    signal = new_signal(
        key=_key(prefix, number),
        source="http",
        observed_at=NOW + at * SECOND,
        received_at=NOW + at * SECOND,
        payload=Deploy(version=f"v{at}", status=DeployStatus.FAILED),
        stale_after=timedelta(minutes=15),
    )
    return _delivery((signal,))


def _delivery(signals: tuple[Any, ...]) -> Delivery:
    return Delivery(signals=signals, decide=RULES, again=RULES.again, dry_run=True)


async def _in_sets(store: Store, steps: Sequence[Step], prefix: str) -> tuple[list[Accepted], int]:
    """What posted samples were answered, and how many took the lane."""
    answers: list[Accepted] = []
    healthy = 0
    for step in steps:
        given: list[Delivery | PostedDelivery] = [
            PostedDelivery(_posted(told, prefix, step.at), RULES, dry_run=True, narrow=True)
            for told in step.deliveries
        ]
        if step.deploy is not None:
            given.insert(1, _failed_deploy(step.deploy, prefix, step.at))
        for answer in await database_of(store).write(partial(intake.accept, given=given)):
            assert isinstance(answer, tuple | HealthySamples)
            healthy += len(answer.signal_ids) if isinstance(answer, HealthySamples) else 0
            answers += answer.accepted() if isinstance(answer, HealthySamples) else answer
    return answers, healthy


async def _one_by_one(store: Store, steps: Sequence[Step], prefix: str) -> list[Accepted]:
    """The same as signals, each delivered alone."""
    answers: list[Accepted] = []
    for step in steps:
        given = [_delivery(signals_of(_posted(told, prefix, step.at))) for told in step.deliveries]
        if step.deploy is not None:
            given.insert(1, _failed_deploy(step.deploy, prefix, step.at))
        for delivery in given:
            for signal in delivery.signals:
                answers += await store.signals.accept([signal], RULES, again=RULES.again, dry_run=True)
    return answers


def _shape(one: Disposition, places: dict[SignalId, int]) -> object:
    repeats = None if one.duplicate_of is None else places[one.duplicate_of]
    reason = "a duplicate" if one.duplicate_of is not None else one.reason
    return one.kind, reason, one.incident_id is not None, repeats


async def _seen(store: Store, answers: Sequence[Accepted]) -> list[object]:
    """Answers and records, with places instead of identifiers."""
    places = {one.signal_id: place for place, one in enumerate(answers)}
    found: list[object] = []
    for one in answers:
        record = await store.signals.get(one.signal_id)
        assert record is not None
        signal = record.signal
        found.append(
            (
                _shape(one.disposition, places),
                _shape(record.disposition, places),
                signal.id == one.signal_id,
                (signal.kind, signal.key.service[1:], signal.source, signal.sender),
                (signal.observed_at, signal.received_at, signal.stale, signal.payload),
            )
        )
    return found


async def _levels(store: Store, prefix: str) -> list[ServiceLevels | None]:
    found = []
    for number in range(SERVICES):
        levels = await store.signals.levels(_key(prefix, number))
        found.append(None if levels is None else structs.replace(levels, key=_key("", number)))
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_the_lane_and_the_ordinary_way_agree(store: Store, seed: int) -> None:
    """Answers, records, levels, samples of each service and the accounting, whatever comes in which order."""
    steps = _steps(random.Random(seed))  # noqa: S311 - a seed for a test
    answers, healthy = await _in_sets(store, steps, "a")
    assert healthy > 5, "samples took the lane"
    assert await _seen(store, answers) == await _seen(store, await _one_by_one(store, steps, "b"))
    assert await _levels(store, "a") == await _levels(store, "b")
    for number in range(SERVICES):
        for start in (NOW - timedelta(days=1), NOW + 100 * SECOND):
            ours = await store.signals.samples(_key("a", number), start)
            theirs = await store.signals.samples(_key("b", number), start)
            assert sorted(ours, key=repr) == sorted(theirs, key=repr)
            assert [one.at for one in ours] == sorted(one.at for one in ours)
    audit = await store.accounting.audit(AuditQuestion(now=NOW, pending_for=timedelta(days=9), deep=True))
    assert audit.accepted == audit.accounted == 2 * len(answers)
    assert audit.uneven_days == ()
    assert not [one for one in audit.strays.found if one.kind.value == "repeats_nothing"]


def _one(at: int, number: int = 0, observed: int | None = None, error_rate: float = 0.01) -> PostedSamples:
    told = Told(
        number=number,
        observed=at if observed is None else observed,
        error_rate=error_rate,
        latency=100.0,
        crash_looping=None,
    )
    return _posted([told], "s", at)


async def _post(store: Store, posted: PostedSamples) -> Accepted:
    answer = await store.signals.accept_samples(posted, RULES, dry_run=True)
    [one] = answer.accepted() if isinstance(answer, HealthySamples) else answer
    return one


async def _rows(store: Store) -> int:
    return await database_of(store).read(
        lambda connection: connection.execute(select(func.count()).select_from(samples)).scalar_one()
    )


async def test_what_is_forgotten_is_counted_and_numbers_are_not_given_again(store: Store) -> None:
    """A sample that a signal repeats stays, and so does the newest row."""
    answers = [await _post(store, _one(at)) for at in range(6)]
    again = await _post(store, _one(9, observed=2))
    assert again.disposition.duplicate_of == answers[2].signal_id
    assert await _rows(store) == 5
    later = NOW + timedelta(days=1)
    assert await store.signals.prune(NOW + 8 * SECOND) == 4  # a wide one, three rows
    assert await _rows(store) == 2
    assert await store.signals.get(answers[2].signal_id) is not None
    assert await store.signals.get(answers[3].signal_id) is None
    await store.signals.prune(later)
    assert await _rows(store) == 1
    fresh = await _post(store, _one(60))
    assert fresh.signal_id not in {one.signal_id for one in answers}
    audit = await store.accounting.audit(AuditQuestion(now=later, pending_for=timedelta(days=9), deep=True))
    assert audit.accepted == audit.accounted == 8
    assert audit.forgotten[DispositionKind.IGNORED] == 5


async def test_after_a_restore_the_numbers_of_samples_continue(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """After those of the backup, each given once; every restored sample is found, and the records add up."""
    before = await open_narrow(database_url)
    kept = [await _post(before, _one(at)) for at in range(5)]
    await before.signals.prune(NOW + 3 * SECOND)
    await back_up(database_url, file := tmp_path / "backup")
    for at in (10, 11):
        await _post(before, _one(at))
    await before.close()
    with another(database_url, request, tmp_path) as target:
        await restore(target, file, replace=False)
        after = await open_narrow(target)
        fresh = [await _post(after, _one(at)) for at in range(20, 26)]
        given = {one.signal_id for one in kept}
        assert len({one.signal_id for one in fresh} | given) == len(fresh) + len(kept)
        assert min(one.signal_id for one in fresh) > max(given)
        assert await after.signals.get(kept[-1].signal_id) is not None
        for one in fresh:
            record = await after.signals.get(one.signal_id)
            assert record is not None
            assert record.signal.received_at >= NOW + 20 * SECOND
        again = await _post(after, _one(30, observed=4))
        assert again.disposition.duplicate_of == kept[-1].signal_id
        audit = await after.accounting.audit(
            AuditQuestion(now=NOW + timedelta(days=1), pending_for=timedelta(days=9), deep=True)
        )
        assert audit.accepted == audit.accounted == len(kept) + len(fresh) + 1
        await after.close()


async def test_a_missing_row_is_a_discrepancy(store: Store) -> None:
    """Both of the sum and of the signal that repeats it."""
    for at in range(3):
        await _post(store, _one(at))
    await _post(store, _one(9, observed=1))

    def lose(connection: Any) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT set_config('heal.forgetting', 'accounted', true)"))
        connection.execute(text("DELETE FROM samples"))

    await database_of(store).write(lose)
    audit = await store.accounting.audit(AuditQuestion(now=NOW, pending_for=timedelta(days=9), deep=True))
    assert (audit.accepted, audit.accounted) == (4, 2)
    assert [one.kind.value for one in audit.strays.found] == ["repeats_nothing"]


async def test_a_sample_from_the_future_is_recognised_when_it_comes_again(store: Store) -> None:
    """Its service's levels know the time of its arrival only."""
    await _post(store, _one(0))
    ahead = await _post(store, _one(5, observed=100))
    again = await _post(store, _one(200, observed=100))
    assert again.disposition.duplicate_of == ahead.signal_id


async def test_a_sample_recorded_as_a_signal_is_recognised_when_it_comes_again(store: Store) -> None:
    """The lane takes nothing that is not newer than every signal of the service, in its levels or not."""
    first = await _post(store, _one(5))  # the service is new: not for the lane
    sick = await _post(store, _one(7, observed=20, error_rate=0.4))
    assert await _rows(store) == 0
    assert (await _post(store, _one(30, observed=5))).disposition.duplicate_of == first.signal_id
    assert (
        await _post(store, _one(30, observed=20, error_rate=0.4))
    ).disposition.duplicate_of == sick.signal_id


async def test_a_failed_transaction_leaves_no_trace_in_memory(store: Store) -> None:
    """The same sample is new once more, and the next one has the same levels before it."""
    await _post(store, _one(0))

    def fails(connection: Any) -> None:
        intake.accept(connection, [PostedDelivery(_one(10), RULES, dry_run=True, narrow=True)])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database_of(store).write(fails)
    answer = await _post(store, _one(10))
    assert answer.disposition.kind is DispositionKind.IGNORED
    levels = await store.signals.levels(_key("s", 0))
    assert levels is not None
    assert levels.rhythm_seconds == 10.0
    assert await _rows(store) == 1


async def test_going_back_to_the_schema_before_turns_samples_into_signals(database_url: str) -> None:
    """Nothing is lost, everything is accounted for, and the way forward again is open."""
    store = await open_narrow(database_url)
    answers = [await _post(store, _one(at)) for at in range(4)]
    before = [await store.signals.get(one.signal_id) for one in answers]
    await store.close()
    with engine_of(database_url).begin() as connection:
        command.downgrade(migration_config(connection), "0009")
    with engine_of(database_url).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM signals")).scalar_one() == 4
        assert connection.execute(text("SELECT sum(accepted) FROM intake_ledger")).scalar_one() == 4
    store = await open_narrow(database_url)
    for was, one in zip(before, answers, strict=True):
        now = await store.signals.get(one.signal_id)
        assert now is not None
        assert was is not None
        assert now.disposition == was.disposition
        assert replace(now.signal, dedup_key="") == replace(was.signal, dedup_key="")
    audit = await store.accounting.audit(AuditQuestion(now=NOW, pending_for=timedelta(days=9), deep=True))
    assert audit.accepted == audit.accounted == 4
    await store.close()

"""The healthy lane when something goes wrong: other writers, failed commits, clocks, long histories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection

from app.agent.audit.accounting import AuditQuestion
from app.agent.intake.posted import signals_of
from app.agent.models import DispositionKind, PostedSample, PostedSamples
from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted, HealthySamples, SamplesAnswer
from app.errors import Invalid
from app.store.database.migrate import migration_config
from app.store.database.port import Brief, Work
from app.store.signals import intake
from app.store.signals.narrow import lane, sample_records, samples
from app.store.signals.narrow.lane import PostedDelivery
from tests.contract.store_values import NOW
from tests.contract.test_store_database import engine_of
from tests.contract.test_store_lane import RULES, SECOND, SENDER, _key
from tests.repositories import database_of, open_narrow

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

WHOLE = AuditQuestion(now=NOW, pending_for=timedelta(days=9), deep=True)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """With narrow rows, over each database."""
    opened = await open_narrow(database_url)
    yield opened
    await opened.close()


def _one(at: int, number: int = 0, observed: int | None = None) -> PostedSamples:
    return _several(at, [(number, at if observed is None else observed)])


def _several(at: int, told: Sequence[tuple[int, int]]) -> PostedSamples:
    """Healthy samples that arrive then, each of a service and observed at a second."""
    return PostedSamples(
        samples=[
            PostedSample(
                key=_key("s", number),
                observed_at=NOW + observed * SECOND,
                error_rate=0.01,
                p95_latency_ms=100.0,
                crash_looping=None,
            )
            for number, observed in told
        ],
        received_at=NOW + at * SECOND,
        stale_after=timedelta(minutes=15),
        sender=SENDER,
    )


def _each(answer: SamplesAnswer) -> tuple[Accepted, ...]:
    return answer.accepted() if isinstance(answer, HealthySamples) else answer


async def _post(store: Store, posted: PostedSamples, rules: object = RULES) -> Accepted:
    [one] = _each(await store.signals.accept_samples(posted, rules, dry_run=True))  # type: ignore[arg-type]
    return one


async def _observed(store: Store, number: int = 0) -> list[int]:
    """When the samples of a service were observed that are on record."""
    found = await store.signals.samples(_key("s", number), NOW - timedelta(days=1))
    return [round((one.at - NOW) / SECOND) for one in found]


async def test_two_processes_record_samples_of_one_service_in_turn(database_url: str) -> None:
    """Neither goes on with levels, numbers or a chain that the other has changed."""
    ours, theirs = await open_narrow(database_url), await open_narrow(database_url)
    answers = [await _post(store, _one(at)) for at in range(5) for store in (ours,)]
    answers += [await _post(store, _one(10 + at)) for at, store in enumerate([theirs, ours, theirs, theirs])]
    answers.append(await _post(ours, _one(20)))
    assert len({one.signal_id for one in answers}) == len(answers)
    assert {one.disposition.kind for one in answers} == {DispositionKind.IGNORED}
    again = await _post(ours, _one(30, observed=12))
    assert again.disposition.duplicate_of == answers[7].signal_id
    for store in (ours, theirs):
        assert await _observed(store) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 20]
        levels = await store.signals.levels(_key("s", 0))
        assert levels is not None
        assert (levels.last_sample_at, levels.rhythm_seconds) == (NOW + 20 * SECOND, 7.0)
    audit = await ours.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 11
    await ours.close()
    await theirs.close()


def _fails_at_commit(posted: PostedSamples, connection: Connection) -> None:
    intake.accept(connection, [PostedDelivery(posted, RULES, dry_run=True, narrow=True)])
    for statement in (
        "CREATE TABLE one (n INTEGER PRIMARY KEY)",
        "CREATE TABLE other (n INTEGER REFERENCES one (n) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO other VALUES (1)",
    ):
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("kind", [Brief, lambda work: work], ids=["brief", "on the writer's thread"])
async def test_samples_of_a_failed_commit_are_forgotten(
    store: Store, kind: Callable[[Work[None]], Work[None]]
) -> None:
    """Levels, chain and numbers are those on record; the same samples are new once more."""
    for at in range(3):
        await _post(store, _one(at))
    with pytest.raises(Invalid):
        await database_of(store).write(kind(partial(_fails_at_commit, _one(10))))
    assert await _observed(store) == [0, 1, 2]
    first = await _post(store, _one(12))
    levels = await store.signals.levels(_key("s", 0))
    assert levels is not None
    assert levels.rhythm_seconds == 10.0
    late = await _post(store, _one(13, observed=10))
    assert late.disposition.duplicate_of is None
    assert await _observed(store) == [0, 1, 2, 10, 12]
    assert (await _post(store, _one(14, observed=12))).disposition.duplicate_of == first.signal_id


async def test_numbers_are_not_given_again_after_the_way_back_and_forward(database_url: str) -> None:
    """A sample that became a signal keeps its id, so that no other one may have it."""
    answers: list[Accepted] = []
    for turn in range(3):
        store = await open_narrow(database_url)
        answers += [await _post(store, _one(10 * turn + at)) for at in range(4)]
        assert len({one.signal_id for one in answers}) == len(answers)
        for at, one in enumerate(answers):
            record = await store.signals.get(one.signal_id)
            assert record is not None
            assert record.signal.observed_at == NOW + (10 * (at // 4) + at % 4) * SECOND
        audit = await store.accounting.audit(WHOLE)
        assert audit.accepted == audit.accounted == len(answers)
        await store.close()
        with engine_of(database_url).begin() as connection:
            command.downgrade(migration_config(connection), "0009")


async def test_many_samples_that_signals_repeat_do_not_keep_what_follows_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention looks beyond those that stay, and ends where no older row follows."""
    monkeypatch.setattr(sample_records, "LOOKED_AT", 3)
    answers = [await _post(store, _one(at)) for at in range(13)]
    for at in range(1, 8):
        again = await _post(store, _one(50, observed=at))
        assert again.disposition.duplicate_of == answers[at].signal_id
    await _post(store, _one(60))
    await store.signals.prune(NOW + 11 * SECOND)
    found = [await store.signals.get(one.signal_id) is not None for one in answers]
    assert found == [False, *[True] * 7, *[False] * 3, True, True]
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 21


@pytest.mark.parametrize("near", [1, 2, 7])
async def test_repetitions_are_recognised_throughout_a_long_history(
    store: Store, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """Wherever the search for them starts: arrivals late, early, and out of their order."""
    monkeypatch.setattr(samples, "NEAR", near)
    monkeypatch.setattr(samples, "_LOOKED_AT", (2, 5))
    first: dict[tuple[int, int], Accepted] = {}
    for turn in range(24):
        observed = 10 * turn
        told = [(0, observed), (1, observed + 3)] if turn % 6 else [(0, observed), (2, observed - 2)]
        # Now and then the clock of this machine is behind, or a sender kept its samples for a while.
        at = observed + (0, 5, -60, 400)[turn % 4]
        answer = _each(await store.signals.accept_samples(_several(at, told), RULES, dry_run=True))
        first |= dict(zip(told, answer, strict=True))
    for number, observed in first:
        again = await _post(store, _one(900, number, observed))
        assert again.disposition.duplicate_of == first[number, observed].signal_id
    every = sorted(first)
    together = _each(await store.signals.accept_samples(_several(950, every), RULES, dry_run=True))
    assert [one.disposition.duplicate_of for one in together] == [first[one].signal_id for one in every]
    assert (await _post(store, _one(960, observed=55))).disposition.kind is DispositionKind.IGNORED


async def test_a_sample_that_leaves_the_levels_as_they_were_is_recognised_when_it_comes_again(
    store: Store,
) -> None:
    """It was recorded as a signal, from ahead of time, after samples took the lane."""
    await _post(store, _one(0))
    for at, observed, keyed in ((5, 5, False), (5, 50, True), (5, 51, False), (5, 100, True)):
        posted = _one(at, observed=observed)
        if keyed:
            [ahead] = await store.signals.accept(
                signals_of(posted), RULES, dry_run=True, idempotency_key=f"k{observed}", request_hash="h"
            )
        else:
            await _post(store, posted)
    again = await _post(store, _one(120, observed=100))
    assert again.disposition.duplicate_of == ahead.signal_id


async def test_beyond_the_limit_of_services_no_sample_takes_the_lane(store: Store) -> None:
    """A service that was not let in is not on record, however often it is reported."""
    rules = replace(RULES, max_services=1)
    for at in range(3):
        known = await _post(store, _one(at), rules)
        assert known.disposition.reason == "within the SLO"
        unknown = await _post(store, _one(at, number=1), rules)
        assert unknown.disposition.reason.startswith("not evaluated: 1 services are on record")
    assert await store.signals.levels(_key("s", 1)) is None


@pytest.mark.parametrize("turns", range(8))
async def test_a_sender_that_goes_away_takes_no_posted_samples_with_it(store: Store, turns: int) -> None:
    """Whether it waits, or records the set of others: each of those is answered once, and on record."""
    await _post(store, _several(0, [(number, 0) for number in range(1)]))
    for number in range(1, 6):
        await _post(store, _one(0, number))
    answered: list[list[SamplesAnswer | Exception]] = [[] for _ in range(6)]
    leaves = asyncio.create_task(store.signals.accept_samples(_one(10, 0), RULES, dry_run=True))
    await asyncio.sleep(0)
    for number in range(1, 6):
        posted = _one(10, number)
        store.signals.post_samples(posted, RULES, dry_run=True, done=answered[number].append)
    for _ in range(turns):
        await asyncio.sleep(0)
    leaves.cancel()
    async with asyncio.timeout(60):
        await asyncio.wait([leaves])
        while not all(answered[1:]):  # noqa: ASYNC110 - answers come by callbacks
            await asyncio.sleep(0)
        last = await _post(store, _one(20))
    assert last.disposition.kind is DispositionKind.IGNORED
    for number in range(1, 6):
        [answer] = answered[number]
        assert not isinstance(answer, Exception)
        [one] = _each(answer)
        assert await store.signals.get(one.signal_id) is not None
        assert await _observed(store, number) == [0, 10]
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted


async def test_what_cannot_be_recorded_takes_no_posted_samples_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is taken apart; the others are answered with what is on record."""
    for number in range(4):
        await _post(store, _one(0, number))
    row = lane._row

    def refuse(number: int, previous: int | None, sample: PostedSample, *rest: Any) -> list[object]:
        if sample.key.service == "s2":
            raise ZeroDivisionError
        return row(number, previous, sample, *rest)

    monkeypatch.setattr(lane, "_row", refuse)
    answered: list[list[SamplesAnswer | Exception]] = [[] for _ in range(4)]
    for number in range(4):
        posted = _one(10, number)
        store.signals.post_samples(posted, RULES, dry_run=True, done=answered[number].append)
    async with asyncio.timeout(60):
        while not all(answered):  # noqa: ASYNC110 - answers come by callbacks
            await asyncio.sleep(0)
    for number, [answer] in enumerate(answered):
        if number == 2:
            assert isinstance(answer, Exception)
        else:
            assert isinstance(answer, HealthySamples)
        assert await _observed(store, number) == ([0] if number == 2 else [0, 10])

"""Deliveries that wait together share a transaction, and no sender depends on another one."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from app.agent.models import DispositionKind, Signal
from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted
from app.errors import TransientError
from app.store import open_in_memory, store_over
from app.store.database.port import Work
from app.store.signals import gathering
from tests.contract.store_values import Deciding, signal
from tests.repositories import database_of

T = TypeVar("T")


class Slow:
    """A `Database` whose units of work wait for a gate; it counts them."""

    def __init__(self) -> None:
        self.store = open_in_memory()
        self.gate = asyncio.Event()
        self.units = 0
        self.fails: Exception | None = None

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        self.units += 1
        gate = self.gate
        try:
            await gate.wait()
        except asyncio.CancelledError:  # as in the product: what was handed over is recorded all the same
            await database_of(self.store).write(work)
            raise
        if self.fails is not None:
            raise self.fails
        return await database_of(self.store).write(work, urgent=urgent)

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return await database_of(self.store).read(work, urgent=urgent)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self.store.close()


def _deliver(store: Store, one: Signal, **options: str) -> asyncio.Task[tuple[Accepted, ...]]:
    decide = Deciding(kind=DispositionKind.IGNORED, triggers=())
    return asyncio.create_task(store.signals.accept([one], decide, dry_run=True, **options))  # type: ignore[arg-type]  # keys are texts


async def _turn() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_deliveries_that_wait_share_the_next_transaction() -> None:
    """Those that come together are one set, those that come while it is recorded the next, in their order."""
    slow = Slow()
    store, signals = store_over(slow), [signal() for _ in range(30)]
    tasks = [_deliver(store, one) for one in signals[:10]]
    await _turn()
    tasks += [_deliver(store, one) for one in signals[10:]]
    await _turn()
    assert slow.units == 1
    slow.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [answer[0].signal_id for answer in answers] == [one.id for one in signals]
    assert slow.units == 2


async def test_deliveries_that_keep_coming_hold_up_no_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of the loop brings another one: the set is recorded once it has so many."""
    monkeypatch.setattr(gathering, "MOST_TOGETHER", 5)
    slow = Slow()
    slow.gate.set()
    store = store_over(slow)
    tasks = []
    for _ in range(20):
        tasks += [_deliver(store, signal()) for _ in range(2)]
        await asyncio.sleep(0)
    assert slow.units > 1  # some are recorded, and more came in every turn
    await asyncio.gather(*tasks)


async def test_a_set_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More signals than one set may have take several."""
    monkeypatch.setattr(gathering, "MOST_SIGNALS", 10)
    slow = Slow()
    store = store_over(slow)
    tasks = [_deliver(store, signal()) for _ in range(31)]
    await _turn()
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert slow.units == 4


@pytest.mark.parametrize("gone", [0, 1, 5], ids=["recording", "in its set", "waiting"])
async def test_a_sender_that_goes_away_takes_no_other_with_it(gone: int) -> None:
    """Whether it records the set, is part of it, or waits: every other one is answered, and on record."""
    slow = Slow()
    store, signals = store_over(slow), [signal() for _ in range(8)]
    tasks = [_deliver(store, one) for one in signals[:3]]
    await _turn()
    tasks += [_deliver(store, one) for one in signals[3:]]
    await _turn()
    tasks[gone].cancel()
    await _turn()
    slow.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for place, (one, answer) in enumerate(zip(signals, answers, strict=True)):
        if place != gone:
            assert not isinstance(answer, BaseException)
            assert answer[0].signal_id == one.id
            assert await store.signals.get(one.id) is not None
    later = _deliver(store, signal())
    assert (await later)[0].disposition.kind is DispositionKind.IGNORED


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_sender_that_goes_away_before_its_set_is_recorded_leaves_it_to_the_next(turns: int) -> None:
    """It waits for others, or was asked to record the next set: another sender does."""
    slow = Slow()
    slow.gate.set()
    store, signals = store_over(slow), [signal() for _ in range(4)]
    tasks = [_deliver(store, one) for one in signals]
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks[1:])
    assert [answer[0].signal_id for answer in answers] == [one.id for one in signals[1:]]


async def test_a_sender_that_goes_away_while_a_set_is_recorded_leaves_the_set_recorded_once() -> None:
    """The others repeat the set, and each gets the answer that is on record."""
    slow = Slow()
    store, signals = store_over(slow), [signal() for _ in range(4)]
    first = _deliver(store, signals[0])
    await _turn()
    rest = [_deliver(store, one) for one in signals[1:]]
    await _turn()
    opened, slow.gate = slow.gate, asyncio.Event()
    opened.set()
    await first
    await _turn()
    assert slow.units == 2  # the set of the others is under way
    rest[0].cancel()
    await _turn()
    slow.gate.set()
    await _turn()
    assert all(one.done() for one in rest[1:])
    answers = [one.result() for one in rest[1:]]
    assert [answer[0].signal_id for answer in answers] == [one.id for one in signals[2:]]
    kinds = {answer[0].disposition.kind for answer in answers}
    assert kinds == {DispositionKind.IGNORED}


async def test_a_store_that_does_not_answer_is_asked_once_for_each_set() -> None:
    """Every sender of the set is refused, and none of them asks again on its own."""
    slow = Slow()
    slow.fails = TransientError("the database does not answer")
    store = store_over(slow)
    tasks = [_deliver(store, signal()) for _ in range(10)]
    await _turn()
    slow.gate.set()
    refused = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, TransientError) for one in refused)
    assert slow.units == 1


async def test_two_deliveries_with_one_key_are_not_part_of_one_set() -> None:
    """The second is answered with what the first one recorded."""
    slow = Slow()
    store = store_over(slow)
    first = _deliver(store, signal())
    same = [_deliver(store, signal(), idempotency_key="k", request_hash="h") for _ in range(3)]
    await _turn()
    slow.gate.set()
    await first
    answers = await asyncio.gather(*same)
    assert answers[0] == answers[1] == answers[2]
    assert slow.units == 3

"""Deliveries that wait at the same time are recorded as one set: one transaction, one commit.

The first waiting delivery records itself together with the others, and hands over to the next one when its
set is durable. If a set fails, each of its deliveries is retried alone, so that a delivery that cannot be
recorded affects no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from app.agent.ports.store.signals import SamplesAnswer
from app.errors import TransientError
from app.store.database.port import Brief
from app.store.database.repository import Repository
from app.store.signals import intake
from app.store.signals.deliveries import Delivery
from app.store.signals.narrow.lane import PostedDelivery

MOST_SIGNALS = 200
"""Maximum signals of a set, for which an operator may have to wait; a larger delivery is a separate set."""
MOST_TOGETHER = 100
"""Deliveries after which a set is recorded although more come."""
SETS_AT_ONCE = 1
"""Running transactions: the longer one takes, the more deliveries share the next."""


Taken: TypeAlias = Delivery | PostedDelivery
Result: TypeAlias = SamplesAnswer | Exception
"""The answer to a delivery, or the error for its sender."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A delivery whose sender waits."""

    delivery: Taken
    result: asyncio.Future[Result | None] | None = None
    """None as a result makes the waiting delivery record the next set."""
    done: Callable[[Result], None] | None = None
    """Called with the result of a delivery that no task waits for."""
    settled: bool = False
    """Answered, or recording a set."""

    @property
    def is_settled(self) -> bool:
        """It neither waits for an answer nor can be asked to record a set."""
        return self.settled if self.result is None else self.result.done()

    @property
    def is_gone(self) -> bool:
        """Its sender does not wait any more."""
        return self.result is not None and self.result.cancelled()

    def answer(self, result: Result) -> None:
        """Give its sender the result, if it still waits."""
        if self.result is not None:
            if not self.result.done():
                self.result.set_result(result)
        elif self.done is not None:
            self.settled = True
            try:
                self.done(result)
            except Exception as error:  # noqa: BLE001 - boundary: the others of the set get their answers
                found = {"message": "an answer of intake could not be given", "exception": error}
                asyncio.get_running_loop().call_exception_handler(found)


class Gathering:
    """The deliveries of one event loop that wait for a database."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0
        self._recording: set[asyncio.Task[None]] = set()
        """Of deliveries that no task waits for: a set that begins with one has a task of its own."""

    async def accept(self, delivery: Taken) -> SamplesAnswer:
        """The answer, once the delivery is durable."""
        future: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
        mine = _Waiting(delivery, future)
        self._waiting.append(mine)
        result: Result | None = None
        if self._under_way < SETS_AT_ONCE:
            self._under_way += 1
            await self._let_others_come(mine)
        else:
            result = await self._wait(mine, future)
        if result is None:
            result = await self._record_with_others(mine)
        if isinstance(result, Exception):
            raise result
        return result

    def post(self, delivery: Taken, done: Callable[[Result], None]) -> None:
        """Record a delivery that no task waits for; `done` is called when it is durable, or failed."""
        mine = _Waiting(delivery, done=done)
        self._waiting.append(mine)
        if self._under_way < SETS_AT_ONCE:
            self._under_way += 1
            self._begin(mine)

    def _begin(self, mine: _Waiting) -> None:
        mine.settled = True
        task = asyncio.get_running_loop().create_task(self._record(mine))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, mine: _Waiting) -> None:
        await self._let_others_come(mine)
        mine.answer(await self._record_with_others(mine))

    async def _let_others_come(self, mine: _Waiting) -> None:
        """Wait for arriving deliveries, as long as each turn of the loop brings one."""
        try:
            waiting = 0
            while waiting < len(self._waiting) < MOST_TOGETHER:
                waiting = len(self._waiting)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._waiting.remove(mine)
            self._hand_over()
            raise

    async def _wait(self, mine: _Waiting, future: asyncio.Future[Result | None]) -> Result | None:
        try:
            return await future
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if not future.cancelled() and future.result() is None:
                self._hand_over()  # it was asked to record the next set, and cannot
            raise

    async def _record_with_others(self, mine: _Waiting) -> Result:
        """Record the set with `mine`, and answer its other deliveries."""
        others = self._taken_with(mine)
        try:
            results = await self._recorded([mine.delivery, *(one.delivery for one in others)])
        except BaseException:
            # Interrupted: whether the set was recorded is unknown, and recording it again is harmless.
            self._waiting.extendleft(one for one in reversed(others) if not one.is_settled)
            raise
        finally:
            self._hand_over()
        for one, result in zip(others, results[1:], strict=True):
            one.answer(result)
        return results[0]

    def _taken_with(self, mine: _Waiting) -> list[_Waiting]:
        """The waiting deliveries, in order, up to `MOST_SIGNALS`; another with the same key keeps waiting."""
        self._waiting.remove(mine)
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        keys, signals = {_key_of(mine.delivery)}, mine.delivery.size
        while self._waiting:
            one = self._waiting.popleft()
            if one.is_gone:
                continue
            key = _key_of(one.delivery)
            if one.is_settled or (key is not None and key in keys):
                left.append(one)
                continue
            signals += one.delivery.size
            if signals > MOST_SIGNALS:
                left.append(one)
                break
            keys.add(key)
            taken.append(one)
        self._waiting.extendleft(reversed(left))
        return taken

    def _hand_over(self) -> None:
        """Let the next waiting delivery record a set; without one, a place becomes free."""
        for one in self._waiting:
            if one.is_settled:
                continue
            if one.result is None:
                self._begin(one)
            else:
                one.result.set_result(None)
            return
        self._under_way -= 1

    async def _recorded(self, given: Sequence[Taken]) -> list[Result]:
        """The result of each delivery."""
        try:
            return list(await self._repository.database.write(Brief(partial(intake.accept, given=given))))
        except Exception as error:  # noqa: BLE001 - boundary: the sender of each delivery gets its own error
            if len(given) == 1 or isinstance(error, TransientError):
                return [error] * len(given)
        return [(await self._recorded([one]))[0] for one in given]


def _key_of(delivery: Taken) -> str | None:
    return delivery.idempotency_key if isinstance(delivery, Delivery) else None

"""Deliveries that wait at the same time are recorded as one set: one transaction, one commit.

The first one that waits records itself together with the others, and hands over to the
next when its set is durable. A set that fails is taken apart, and each delivery is
tried alone, so that one that cannot be recorded takes no other with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from app.agent.ports.store.signals import Accepted
from app.errors import TransientError
from app.store.database.port import Brief
from app.store.database.repository import Repository
from app.store.signals import intake
from app.store.signals.deliveries import Delivery

MOST_SIGNALS = 200
"""Signals of one set, which an operator may have to wait for; a larger delivery is a set of its own."""
MOST_TOGETHER = 100
"""Deliveries after which a set is recorded although more come."""
SETS_AT_ONCE = 1
"""Transactions under way: the longer one takes, the more deliveries share the next."""


Result: TypeAlias = tuple[Accepted, ...] | Exception
"""What a delivery is answered, or what its sender gets raised."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A delivery whose sender waits."""

    delivery: Delivery
    result: asyncio.Future[Result | None]
    """None asks the one that waits to record the next set."""


class Gathering:
    """The deliveries of one event loop on their way to a database."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._waiting: deque[_Waiting] = deque()
        self._under_way = 0

    async def accept(self, delivery: Delivery) -> tuple[Accepted, ...]:
        """The answer, once the delivery is durable."""
        mine = _Waiting(delivery, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        result: Result | None = None
        if self._under_way < SETS_AT_ONCE:
            self._under_way += 1
            await self._let_others_come(mine)
        else:
            result = await self._wait(mine)
        if result is None:
            result = await self._record_with_others(mine)
        if isinstance(result, Exception):
            raise result
        return result

    async def _let_others_come(self, mine: _Waiting) -> None:
        """Let those come that are on their way: for as long as each turn of the loop brings one."""
        try:
            waiting = 0
            while waiting < len(self._waiting) < MOST_TOGETHER:
                waiting = len(self._waiting)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._waiting.remove(mine)
            self._hand_over()
            raise

    async def _wait(self, mine: _Waiting) -> Result | None:
        try:
            return await mine.result
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if not mine.result.cancelled() and mine.result.result() is None:
                self._hand_over()  # it was asked to record the next set, and cannot
            raise

    async def _record_with_others(self, mine: _Waiting) -> Result:
        """Record the set that `mine` is part of, and answer the others of it."""
        others = self._taken_with(mine)
        try:
            results = await self._recorded([mine.delivery, *(one.delivery for one in others)])
        except BaseException:
            # Interrupted: whether the set was recorded is unknown, and recording it again is harmless.
            self._waiting.extendleft(one for one in reversed(others) if not one.result.done())
            raise
        finally:
            self._hand_over()
        for one, result in zip(others, results[1:], strict=True):
            if not one.result.done():  # its sender may have gone
                one.result.set_result(result)
        return results[0]

    def _taken_with(self, mine: _Waiting) -> list[_Waiting]:
        """Those that wait, in their order, up to `MOST_SIGNALS`; a second one with the same key waits on."""
        self._waiting.remove(mine)
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        keys, signals = {mine.delivery.idempotency_key}, len(mine.delivery.signals)
        while self._waiting:
            one = self._waiting.popleft()
            if one.result.cancelled():
                continue
            key = one.delivery.idempotency_key
            if one.result.done() or (key is not None and key in keys):
                left.append(one)
                continue
            signals += len(one.delivery.signals)
            if signals > MOST_SIGNALS:
                left.append(one)
                break
            keys.add(key)
            taken.append(one)
        self._waiting.extendleft(reversed(left))
        return taken

    def _hand_over(self) -> None:
        """Let the next one that waits record a set; with none, a place is free."""
        for one in self._waiting:
            if not one.result.done():
                one.result.set_result(None)
                return
        self._under_way -= 1

    async def _recorded(self, given: Sequence[Delivery]) -> list[Result]:
        """The result of each delivery."""
        try:
            return list(await self._repository.database.write(Brief(partial(intake.accept, given=given))))
        except Exception as error:  # noqa: BLE001 - boundary: the sender of each delivery gets its own error
            if len(given) == 1 or isinstance(error, TransientError):
                return [error] * len(given)
        return [(await self._recorded([one]))[0] for one in given]

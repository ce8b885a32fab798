"""Fakes that ship with the product, for its own tests, its demo and other people's connectors.

`VirtualClock` is a `Clock` on which time passes only when a test says so;
`PacedClock` runs faster than the machine's. The simulated cluster and metrics
live in `app.sandbox` and are re-exported here.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, overload

from app.sandbox.cluster import SandboxCluster
from app.sandbox.cluster.naming import Naming
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.objects import Template
from app.sandbox.runner import InlineRunner
from app.sandbox.world import Workload, World

__all__ = [
    "DEFAULT_START",
    "InlineRunner",
    "Naming",
    "PacedClock",
    "SandboxCluster",
    "SandboxMetrics",
    "Template",
    "VirtualClock",
    "Workload",
    "World",
]

T = TypeVar("T")

DEFAULT_START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)

_ASYNCIO = str(Path(asyncio.__file__).parent)
_THREAD_PATIENCE_SECONDS = 30.0
"""Real seconds that work in another thread may take before the clock calls it stuck."""
_GUESS_PATIENCE_SECONDS = 0.5
"""Real seconds to wait for a future whose owner is unknown."""
_MAX_ROUNDS = 10_000


class VirtualClock:
    """Time that moves only by `advance` and `run_until`; no call ever waits for the machine's clock.

    Before time moves, every other task runs until all of them wait: for this
    clock, for each other, or for nothing. Work in other threads (a database
    driver) is waited for first, so that a query never takes virtual time.
    Waiting on sockets is not recognised: use it with in-process adapters.
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock starts at an aware time, for example datetime(2026, 1, 1, tzinfo=UTC)")
        self._now = start.astimezone(UTC)
        self._sequence = 0
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    @property
    def sleeping(self) -> int:
        """How many tasks wait for this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    @property
    def next_due(self) -> datetime | None:
        """When the next sleeper wakes; None without sleepers."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), self._sequence, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: sleepers wake one by one in order, each followed by everything it sets off."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        await self._advance_to(self._now + timedelta(seconds=seconds))

    @overload
    async def run_until(self, goal: Awaitable[T], limit: float = ...) -> T: ...

    @overload
    async def run_until(self, goal: Callable[[], bool], limit: float = ...) -> None: ...

    async def run_until(self, goal: Awaitable[T] | Callable[[], bool], limit: float = 3600.0) -> T | None:
        """Let time pass from sleeper to sleeper until `goal` is done, or holds.

        `goal` is an awaitable, whose result is returned, or a predicate. Raises
        `TimeoutError` when `limit` virtual seconds are not enough, or when
        no task sleeps any more, so that advancing time changes nothing.
        """
        if inspect.isawaitable(goal):
            task = asyncio.ensure_future(goal)
            try:
                await self._run_until(task.done, limit)
            except BaseException:  # an interruption too leaves no task behind; it is raised again
                task.cancel()
                await asyncio.wait({task})
                raise
            return task.result()
        assert callable(goal)  # noqa: S101 - narrows the union for the type checker
        await self._run_until(goal, limit)
        return None

    async def settle(self) -> None:
        """Run every other task until all of them wait; no virtual time passes."""
        me = asyncio.current_task()
        parked: set[int] = set()
        quiet = False
        for _ in range(_MAX_ROUNDS):
            for _ in range(3):  # callbacks that belong to no task take their turns too
                await asyncio.sleep(0)
            others = [task for task in asyncio.all_tasks() if task is not me]
            if _ready() or any(_runnable(task) for task in others):
                quiet = False
                continue
            outside = [task for task in others if self._outside(task) and id(_waiter(task)) not in parked]
            if not outside and quiet:
                return
            quiet = not outside  # once more: callbacks of a task that has just ended may not have run yet
            if quiet:
                continue
            sure = [waiter for task in outside if (waiter := _waiter(task)) is not None and _chained(waiter)]
            waiters = sure or [waiter for task in outside if (waiter := _waiter(task)) is not None]
            patience = _THREAD_PATIENCE_SECONDS if sure else _GUESS_PATIENCE_SECONDS
            done, _ = await asyncio.wait(waiters, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                if sure:
                    raise TimeoutError(f"work in another thread is stuck: {outside[0]!r}")
                parked.update(id(waiter) for waiter in waiters)
        raise TimeoutError(f"tasks keep each other busy without end: {asyncio.all_tasks()!r}")

    def _outside(self, task: asyncio.Task[Any]) -> bool:
        waiter = _waiter(task)
        if waiter is None or isinstance(waiter, asyncio.Task):
            return False
        if any(waiter is future for _, _, future in self._sleepers):
            return False
        return _chained(waiter) or _foreign(task, waiter)

    async def _advance_to(self, target: datetime) -> None:
        await self.settle()
        while (due := self.next_due) is not None and due <= target:
            self._wake_next()
            await self.settle()
        self._now = max(self._now, target)

    def _wake_next(self) -> None:
        due, _, future = heapq.heappop(self._sleepers)
        self._now = max(self._now, due)
        future.set_result(None)

    async def _run_until(self, holds: Callable[[], bool], limit: float) -> None:
        deadline = self._now + timedelta(seconds=limit)
        while True:
            await self.settle()
            if holds():
                return
            due = self.next_due
            if due is None:
                raise TimeoutError(
                    f"no task sleeps at {self._now:%H:%M:%S}, and what was waited for is not so"
                )
            if due > deadline:
                self._now = deadline
                raise TimeoutError(f"not so within {limit:g} virtual seconds (it is {deadline:%H:%M:%S})")
            self._wake_next()


class PacedClock:
    """The machine's time, `speed` times as fast: for code that must wait for real work as well."""

    def __init__(self, speed: float, start: datetime = DEFAULT_START) -> None:
        if speed <= 0:
            raise ValueError("a pace is greater than zero")
        self._speed = speed
        self._start = start.astimezone(UTC)
        self._began = time.monotonic()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=(time.monotonic() - self._began) * self._speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


def _waiter(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """What a task waits for. asyncio exposes it only in this private attribute."""
    waiter: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
    return waiter


def _ready() -> bool:
    """Whether callbacks are about to be called: a task that none of them woke yet looks as if it waited."""
    return bool(getattr(asyncio.get_running_loop(), "_ready", ()))


def _runnable(task: asyncio.Task[Any]) -> bool:
    waiter = _waiter(task)
    return not task.done() and (waiter is None or waiter.done())


def _callbacks(future: asyncio.Future[Any]) -> list[str]:
    return [
        getattr(callback, "__qualname__", "") for callback, _ in getattr(future, "_callbacks", None) or ()
    ]


def _chained(future: asyncio.Future[Any]) -> bool:
    """Whether a future mirrors one of `concurrent.futures`: work in an executor or thread."""
    return any(name.startswith("_chain_future.") for name in _callbacks(future))


def _foreign(task: asyncio.Task[Any], waiter: asyncio.Future[Any]) -> bool:
    """Whether the task awaits a bare future in code that is not asyncio's own.

    asyncio's locks, queues and gathers wait for other tasks, which are looked at
    themselves; a bare future is how drivers with a thread of their own answer.
    """
    if type(waiter) is not _BARE_FUTURE or any(name.startswith("shield.") for name in _callbacks(waiter)):
        return False
    step: Any = task.get_coro()
    while inspect.iscoroutine(inner := getattr(step, "cr_await", None)):
        step = inner
    if inspect.isasyncgen(step) or type(inner).__name__ == "async_generator_asend":
        return False
    code = getattr(step, "cr_code", None)
    return code is not None and not code.co_filename.startswith(_ASYNCIO)


_BARE_FUTURE: type[asyncio.Future[Any]] = asyncio.Future

"""The virtual clock: time passes in order, only on request, and never while work is under way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from app.clock import Clock
from app.testing import DEFAULT_START, VirtualClock


def test_a_naive_start_is_refused() -> None:
    """A clock of the agent is always aware."""
    with pytest.raises(ValueError, match="aware"):
        VirtualClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the naive time is what is tested


async def test_sleepers_wake_in_order_at_their_own_time() -> None:
    """The shorter sleep wakes first, and sees its own time, not the end of the jump."""
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float, clock: Clock) -> None:
        await clock.sleep(seconds)
        seen.append((name, (clock.now() - DEFAULT_START).total_seconds()))

    tasks = [asyncio.create_task(sleeper(n, s, clock)) for n, s in (("c", 30), ("a", 5), ("b", 10))]
    await clock.advance(20)
    assert seen == [("a", 5.0), ("b", 10.0)]
    assert clock.now() == DEFAULT_START + timedelta(seconds=20)
    assert clock.sleeping == 1
    await clock.advance(10)
    assert seen[-1] == ("c", 30.0)
    await asyncio.gather(*tasks)


async def test_a_sleep_begun_during_an_advance_counts_from_its_own_moment() -> None:
    """A loop that sleeps 5 s seven times needs 35 s, whatever the size of the jump."""
    clock = VirtualClock()
    ticks: list[float] = []

    async def loop() -> None:
        while True:
            await clock.sleep(5)
            ticks.append((clock.now() - DEFAULT_START).total_seconds())

    task = asyncio.create_task(loop())
    await clock.advance(36)
    assert ticks == [5, 10, 15, 20, 25, 30, 35]
    task.cancel()


async def test_time_waits_for_other_tasks() -> None:
    """What one sleeper sets off is finished before the next one wakes."""
    clock = VirtualClock()
    queue: asyncio.Queue[str] = asyncio.Queue()
    handled: list[tuple[str, float]] = []

    async def producer() -> None:
        for name in ("one", "two"):
            await clock.sleep(1)
            await queue.put(name)

    async def consumer() -> None:
        while True:
            name = await queue.get()
            for _ in range(50):
                await asyncio.sleep(0)
            handled.append((name, (clock.now() - DEFAULT_START).total_seconds()))

    tasks = [asyncio.create_task(producer()), asyncio.create_task(consumer())]
    await clock.advance(10)
    assert handled == [("one", 1.0), ("two", 2.0)]
    tasks[1].cancel()


async def test_work_in_an_executor_takes_no_virtual_time() -> None:
    """A database call in a thread is finished at the virtual time at which it began."""
    clock = VirtualClock()
    done_at: list[float] = []

    async def reader() -> None:
        await clock.sleep(1)
        await asyncio.to_thread(time.sleep, 0.05)
        done_at.append((clock.now() - DEFAULT_START).total_seconds())

    async def ticker() -> None:
        while True:
            await clock.sleep(0.5)

    tasks = [asyncio.create_task(reader()), asyncio.create_task(ticker())]
    await clock.advance(10)
    assert done_at == [1.0]
    tasks[1].cancel()


async def test_a_driver_with_a_thread_of_its_own_takes_no_virtual_time() -> None:
    """The same holds for a future that some thread completes by `call_soon_threadsafe`."""
    clock = VirtualClock()
    done_at: list[float] = []
    release = threading.Event()

    async def reader() -> None:
        await clock.sleep(1)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()

        def work() -> None:
            release.wait(0.05)
            loop.call_soon_threadsafe(answer.set_result, 7)

        thread = threading.Thread(target=work)
        thread.start()
        assert await answer == 7
        thread.join()
        done_at.append((clock.now() - DEFAULT_START).total_seconds())

    async def ticker() -> None:
        while True:
            await clock.sleep(0.5)

    tasks = [asyncio.create_task(reader()), asyncio.create_task(ticker())]
    await clock.advance(10)
    assert done_at == [1.0]
    tasks[1].cancel()


async def test_run_until_returns_what_an_awaitable_returns() -> None:
    """An hour of virtual sleep takes no time at all."""
    clock = VirtualClock()

    async def slow() -> str:
        await asyncio.shield(asyncio.create_task(clock.sleep(1800)))
        await asyncio.wait_for(clock.sleep(1799), timeout=60)
        return "done"

    began = time.monotonic()
    assert await clock.run_until(slow()) == "done"
    assert clock.now() == DEFAULT_START + timedelta(seconds=3599)
    assert time.monotonic() - began < 5


async def test_run_until_stops_at_the_moment_a_predicate_holds() -> None:
    """Time stands where the condition came true, for watchers behind an async generator too."""
    clock = VirtualClock()
    seen: set[int] = set()

    async def numbers() -> AsyncIterator[int]:
        number = 0
        while True:
            await clock.sleep(3)
            number += 1
            yield number

    async def watch() -> None:
        async for number in numbers():
            seen.add(number)

    task = asyncio.create_task(watch())
    await clock.run_until(lambda: len(seen) == 4, limit=60)
    assert clock.now() == DEFAULT_START + timedelta(seconds=12)
    task.cancel()


async def test_run_until_gives_up_at_its_limit() -> None:
    """A condition that never comes is an error at the limit, not a hanging test."""
    clock = VirtualClock()
    with pytest.raises(TimeoutError, match="60 virtual seconds"):
        await clock.run_until(clock.sleep(61), limit=60)
    assert clock.now() == DEFAULT_START + timedelta(seconds=60)
    with pytest.raises(TimeoutError, match="no task sleeps"):
        await clock.run_until(lambda: False)


async def test_a_cancelled_sleep_is_forgotten() -> None:
    """A sleeper that was cancelled neither wakes nor holds time up."""
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.settle()
    assert clock.sleeping == 1
    task.cancel()
    await clock.advance(10)
    assert task.cancelled()
    assert clock.sleeping == 0
    assert clock.next_due is None
    with pytest.raises(ValueError, match="backwards"):
        await clock.advance(-1)


@pytest.mark.parametrize("children", range(1, 6))
async def test_tasks_that_are_about_to_be_woken_are_not_taken_for_waiting(children: int) -> None:
    """What they waited for is done, and only the callback that says so is still to come."""
    clock = VirtualClock()
    rounds: list[int] = []

    async def work() -> None:
        for number in range(50):
            tasks = [asyncio.ensure_future(clock.sleep(5)) for _ in range(children)]
            await asyncio.wait(
                {asyncio.ensure_future(asyncio.sleep(0)), *tasks}, return_when="FIRST_COMPLETED"
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rounds.append(number)

    both = [asyncio.ensure_future(work()) for _ in range(2)]
    await clock.settle()
    assert len(rounds) == 100
    await asyncio.gather(*both)

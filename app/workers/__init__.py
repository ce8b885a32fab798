"""What runs beside the API in one process: the engine, the watcher, the poller and the sweep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from app.bootstrap import Container, build
from app.clock import SystemClock
from app.config import Settings
from app.workers.engine import DurableRunner
from app.workers.polling import Poller
from app.workers.sweeping import Sweeper
from app.workers.watching import Watcher

log = logging.getLogger(__name__)

_SWEEP_EVERY = timedelta(seconds=15)
_RESTART_AFTER_SECONDS = 5.0


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Container]:
    """The whole agent, built from settings and at work until the context ends."""
    runner = DurableRunner(database_url=settings.database_url.get_secret_value(), clock=SystemClock())
    container = await build(settings, runner=runner)
    try:
        async with attended(container, runner):
            yield container
    finally:
        await container.close()


@asynccontextmanager
async def attended(container: Container, runner: DurableRunner) -> AsyncIterator[None]:
    """A wired agent with its engine and background work started, and stopped in order."""
    await runner.start(container.loop)
    tasks = [
        asyncio.create_task(_kept_running(name, work), name=name) for name, work in _work(container, runner)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.stop()


def _work(container: Container, runner: DurableRunner) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    settings, world = container.settings, container.world
    sweeper = Sweeper(
        store=container.store,
        runner=runner,
        clock=container.clock,
        every=_SWEEP_EVERY,
        pending_for=2 * container.slo.longest_gap,
        keep_for=timedelta(days=settings.signal_retention_days),
    )
    work: list[tuple[str, Callable[[], Awaitable[None]]]] = [("sweep", sweeper.run)]
    if world.watch is not None and container.historian is not None:
        watcher = Watcher(
            watch=world.watch,
            observer=container.observer,
            historian=container.historian,
            intake=container.intake,
            clock=container.clock,
            stale_after=container.stale_after,
        )
        recheck_every = timedelta(seconds=settings.prometheus_poll_seconds)

        async def recheck() -> None:
            await watcher.recheck(recheck_every)

        work += [("watcher", watcher.run), ("recheck", recheck)]
    if world.metrics is not None and world.reader is not None:
        poller = Poller(
            source=world.metrics,
            reader=world.reader,
            store=container.store,
            intake=container.intake,
            slo=container.slo,
            clock=container.clock,
            every=timedelta(seconds=settings.prometheus_poll_seconds),
            stale_after=container.stale_after,
        )
        work.append(("poller", poller.run))
    return work


async def _kept_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; it starts again in %.0f s", name, _RESTART_AFTER_SECONDS)
        await asyncio.sleep(_RESTART_AFTER_SECONDS)

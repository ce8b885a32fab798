"""The tasks besides the API: the driver, the watcher, the poller, the announcer and the sweep, by role.

One process does everything (`all`); alternatively, processes of the roles `api`,
`worker` and `watch` share a PostgreSQL in any number. `running` builds and starts
one process's part, and stops it in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from app.agent.identity.tokens import store_initial
from app.agent.ids import IncidentId
from app.agent.models import ActionName
from app.agent.ports.workers import Fleet, Runner
from app.agent.responders.recovery import RecoveryWatch
from app.bootstrap import Container, build
from app.clock import Clock
from app.config import Settings, unknown_in_env_file
from app.connectors.anchors import AnchorFolder
from app.connectors.traces.connect import traced
from app.errors import AgentError
from app.settings.entries import Role
from app.settings.watched_file import LOOK_EVERY_SECONDS
from app.spans import metered
from app.stopping import Stop
from app.workers.alerts.own import ServiceAlerts
from app.workers.alerts.own_silences import AgentSilences
from app.workers.alerts.poller import AlertPoller
from app.workers.alerts.watchdog import WatchdogReporter
from app.workers.anchor_writer import Anchorer
from app.workers.backlog import Backlog
from app.workers.batches.watcher import BatchWatcher
from app.workers.cluster_watcher import Watcher
from app.workers.driver import PART as DRIVER
from app.workers.driver import Driver
from app.workers.elected import ElectedTask, Work, kept_running
from app.workers.heartbeat import Heartbeat
from app.workers.metric_poller import Poller
from app.workers.notifier import ChannelSender
from app.workers.sighup import policies_on_hangup
from app.workers.stopping import CLOSE_SECONDS, DRIVER_SECONDS, LEAVE_SECONDS, WORK_SECONDS, within
from app.workers.stream_reader import StreamLimits, StreamReader
from app.workers.sweeper import Sweeper

log = logging.getLogger(__name__)

_SWEEP_EVERY = timedelta(seconds=15)
_REAP_EVERY_SECONDS = 1.0


class LocalRunner:
    """The `Runner` that intake is given: wakes this process's driver, if it has one.

    Workers elsewhere are woken by the store, in the transaction that makes
    an incident due.
    """

    def __init__(self) -> None:
        self.driver: Driver | None = None

    async def wake(self, incident_id: IncidentId) -> None:
        if self.driver is not None:
            await self.driver.wake(incident_id)


class Builder(Protocol):
    """Opens the store and connects the world: `app.bootstrap.build`."""

    async def __call__(self, settings: Settings, *, runner: Runner | None = None) -> Container: ...


@asynccontextmanager
async def running(
    settings: Settings, stop: Stop | None = None, *, builder: Builder = build
) -> AsyncIterator[Container]:
    """One process of the agent, built from settings and at work until the context ends.

    Once `stop` is requested it claims nothing more. `builder` connects it: the sandbox has
    another one.
    """
    unknown = unknown_in_env_file()
    if unknown:
        log.warning(".env has unknown settings without effect: %s", ", ".join(unknown))
    runner = LocalRunner()
    async with traced(settings), _closing(await builder(settings, runner=runner)) as container:
        await _store_initial_token(container)
        with policies_on_hangup(container), metered(container.measures):
            async with attended(container, runner, stop):
                yield container


@asynccontextmanager
async def _closing(container: Container) -> AsyncIterator[Container]:
    try:
        yield container
    finally:
        await within(CLOSE_SECONDS, "closing connections", container.close())


async def _store_initial_token(container: Container) -> None:
    text = container.settings.initial_admin_token
    if text is not None and await store_initial(
        container.store.credentials, text.get_secret_value(), container.clock.now()
    ):
        log.info("administrator token of INITIAL_ADMIN_TOKEN stored")


@asynccontextmanager
async def attended(
    container: Container, runner: LocalRunner, stop: Stop | None = None
) -> AsyncIterator[None]:
    """A wired agent with the work of its role started, and stopped in order."""
    fleet, role = container.fleet, container.settings.role
    await fleet.enter(container.loop.owner)
    work: list[Work] = [("presence", lambda: _present(fleet, container.clock))]
    driver = _driver(container) if role in (Role.ALL, Role.WORKER) else None
    if driver is not None:
        runner.driver = driver
        work.append(("driver", driver.run))
        if stop is not None:
            work.append(("halt", lambda: _halted(driver, stop)))
        heartbeat = Heartbeat.from_settings(container.settings, container.vitals, DRIVER, container.clock)
        if heartbeat is not None:
            work.append(("heartbeat", heartbeat.run))
    if container.live is not None:
        work.append(("configuration", lambda: _reloading(container)))
    work += [(f"stream {reader.source}", reader.run) for reader in _readers(container)]
    work += [(duty.name, duty.run) for duty in _duties(container)]
    work += [
        (f"socket of {name}", chat.keep_connected)
        for name, chat in container.chats.items()
        if chat.takes_socket
    ]
    tasks = [asyncio.create_task(kept_running(*one), name=one[0]) for one in work]
    try:
        yield
    finally:
        if driver is not None:
            await driver.stop(DRIVER_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=WORK_SECONDS)
        await within(LEAVE_SECONDS, "leaving the fleet", fleet.leave())


async def _halted(driver: Driver, stop: Stop) -> None:
    await stop.wait()
    driver.halt()
    await asyncio.Event().wait()


async def _present(fleet: Fleet, clock: Clock) -> None:
    """Keep this process registered as alive, and take over from processes that died."""
    while True:
        try:
            for owner in await fleet.reap():
                log.info("worker %s died; taking over its incidents", owner)
        except AgentError as error:
            log.warning("worker liveness not renewed: %s", error)
        await clock.sleep(_REAP_EVERY_SECONDS)


async def _reloading(container: Container) -> None:
    """Follow CONFIG_FILE."""
    while True:
        container.reload_settings()
        await container.clock.sleep(LOOK_EVERY_SECONDS)


def _driver(container: Container) -> Driver:
    return Driver(
        claims=container.store.claims,
        loop=container.loop,
        clock=container.clock,
        fleet=container.fleet,
        at_once=container.settings.worker_concurrency,
        vitals=container.vitals,
        measures=container.measures,
    )


def _readers(container: Container) -> list[StreamReader]:
    settings = container.settings
    limits = StreamLimits(
        stale_after=container.stale_after,
        max_future=timedelta(seconds=settings.signal_max_future_seconds),
        max_bytes=settings.max_body_bytes,
    )
    return [
        StreamReader(
            stream=one.stream,
            source=one.source,
            intake=container.intake,
            clock=container.clock,
            limits=limits,
            schemas=container.schemas,
            progress=one.progress,
        )
        for one in container.streams
    ]


def _duties(container: Container) -> list[ElectedTask]:
    settings = container.settings
    duties: dict[str, list[Work]] = {}
    if settings.role is not Role.API:
        sweeper = _sweeper(container)
        backlog = Backlog(
            intake=container.intake,
            incidents=container.store.incidents,
            notifier=container.loop.stages.closer.notifier,
            clock=container.clock,
        )
        duties["sweep"] = [
            ("sweep", sweeper.run),
            ("forget", sweeper.forget),
            ("backlog", backlog.run),
            ("recovery", _recovery(container).run),
            *_listening(container),
        ]
        anchors = AnchorFolder.from_settings(settings)
        if anchors is not None:
            anchorer = Anchorer(
                store=container.store,
                clock=container.clock,
                folder=anchors,
                every=timedelta(hours=settings.audit_anchor_hours),
            )
            duties["anchor"] = [("audit anchor", anchorer.run)]
    if settings.role in (Role.ALL, Role.WORKER) and container.world.channels:
        duties["announce"] = _announcing(container)
    if settings.role is not Role.API and (settings.role is not Role.WORKER or settings.embedded):
        found = watching(container)
        if found:
            duties["watch"] = found
    return [
        ElectedTask(
            name=name,
            work=work,
            fleet=container.fleet,
            owner=container.loop.owner,
            clock=container.clock,
            lease=container.loop.lease,
        )
        for name, work in duties.items()
    ]


def _recovery(container: Container) -> RecoveryWatch:
    return RecoveryWatch(
        store=container.store, verifier=container.loop.stages.verifier, clock=container.clock
    )


def _listening(container: Container) -> list[Work]:
    """What finds out whether alerts arrive: the watchdog alert, and alerts whose delivery was missed."""
    work: list[Work] = []
    if container.watchdog is not None:
        reporter = WatchdogReporter(
            terms=container.watchdog,
            signals=container.store.signals,
            intake=container.intake,
            clock=container.clock,
            stale_after=container.stale_after,
        )
        work.append(("watchdog", reporter.run))
    if container.world.alerts is not None:
        alerts = AlertPoller(
            source=container.world.alerts,
            settings=container.settings,
            signals=container.store.signals,
            incidents=container.store.incidents,
            silences=AgentSilences(
                source=container.world.alerts,
                incidents=container.store.incidents,
                ending=container.world.silence_ending,
            )
            if ActionName.SILENCE_ALERTS in container.settings.enabled_actions
            else None,
            intake=container.intake,
            owners=container.pod_owners,
            clock=container.clock,
            measures=container.measures,
        )
        work.append(("alerts", alerts.run))
    return work


def _sweeper(container: Container) -> Sweeper:
    return Sweeper(
        store=container.store,
        clock=container.clock,
        every=_SWEEP_EVERY,
        pending_for=2 * container.slo.longest_gap,
        keep_for=timedelta(days=container.settings.signal_retention_days),
    )


def _announcing(container: Container) -> list[Work]:
    """One sender for each channel, so that none waits for another."""
    senders = [
        ChannelSender(store=container.store, clock=container.clock, channel=channel)
        for channel in container.world.channels
    ]
    return [(f"notify {channel_sender.channel.name}", channel_sender.run) for channel_sender in senders]


def watching(container: Container, *, recheck_every: timedelta | None = None) -> list[Work]:
    """The observers of the connected systems: the watcher and the poller.

    Known services are looked at again every `recheck_every`; None: as often as metrics are polled.
    """
    settings, world = container.settings, container.world
    every = container.pace.every
    reader = world.steady or world.reader
    work: list[Work] = []
    if world.watch is not None and container.historian is not None and reader is not None:
        watcher = Watcher(
            watch=world.watch,
            observer=replace(container.observer, reader=reader),
            historian=replace(container.historian, reader=reader),
            intake=container.intake,
            clock=container.clock,
            stale_after=container.stale_after,
            at_once=settings.watch_concurrency,
        )
        work += [("watcher", watcher.run), ("recheck", lambda: watcher.recheck(recheck_every or every))]
    if world.batches is not None:
        batches = BatchWatcher(
            reader=world.batches,
            signals=container.store.signals,
            intake=container.intake,
            clock=container.clock,
            stale_after=container.stale_after,
        )
        work.append(("batches", batches.run))
    if world.metrics is not None and reader is not None:
        poller = Poller(
            source=world.metrics,
            reader=reader,
            signals=container.store.signals,
            intake=container.intake,
            slo=container.slo,
            clock=container.clock,
            every=every,
            stale_after=container.stale_after,
            at_once=container.pace.at_once,
            cluster_faults=world.cluster_faults,
            alerts=ServiceAlerts(
                services=container.slo.services, baselines=container.observer.baselines, every=every
            ),
        )
        work.append(("poller", poller.run))
    return work

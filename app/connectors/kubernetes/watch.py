"""Reports changed services: lists, watches, and lists again after every interruption.

Called by the worker that watches the cluster. It keeps the promise of
`ClusterWatch` that an event may be repeated but is never lost: after every
interruption, missed events are covered by reporting every service of the
namespace again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from app.agent.ids import ServiceKey
from app.agent.ports.cluster import ClusterEvent
from app.bounds.backoff import Backoff
from app.clock import Clock
from app.connectors.kubernetes.api import (
    Kind,
    ReadApi,
    Watched,
    WatchType,
)
from app.connectors.kubernetes.controllers import ABSENT_FOR
from app.connectors.kubernetes.errors import Expired
from app.connectors.kubernetes.index import WorkloadIndex
from app.connectors.kubernetes.mapping import WORKLOADS, ServiceMap
from app.errors import Forbidden, NotFound, TransientError

_log = logging.getLogger(__name__)
_WATCHED_KINDS = (*WORKLOADS, Kind.POD, Kind.CONFIG_MAP)
_OPTIONAL = frozenset({*WORKLOADS} - {Kind.DEPLOYMENT})
"""Kinds that a cluster may not have, or may not let the agent read."""


_BACKOFF = Backoff.of_seconds(0.5, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTiming:
    """How patient the watch is."""

    coalesce_seconds: float = 0.25
    """Changes within this time after the first are reported as one."""
    stream_seconds: int = 120
    """A stream is ended and taken up again after this; bounds how long a dead connection goes unnoticed."""
    backoff: Backoff = _BACKOFF


class _Feed:
    """Changed services not reported yet; each is listed once, however often it changed."""

    def __init__(self) -> None:
        self._pending: dict[ServiceKey, None] = {}
        self._failed: BaseException | None = None
        self._something = asyncio.Event()

    def add(self, keys: set[ServiceKey]) -> None:
        self._pending.update(dict.fromkeys(sorted(keys)))
        if keys:
            self._something.set()

    def ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._failed = task.exception()
            self._something.set()

    async def wait(self) -> None:
        """Return once there is a change to report; raises the error that ended a stream."""
        await self._something.wait()
        if self._failed is not None:
            raise self._failed

    def take(self) -> list[ServiceKey]:
        taken = list(self._pending)
        self._pending.clear()
        if self._failed is None:
            self._something.clear()
        return taken


class KubernetesWatch:
    """`ClusterWatch` over workloads, pods and ConfigMaps of the watched namespaces."""

    def __init__(
        self,
        api: Callable[[str], ReadApi],
        services: ServiceMap,
        clock: Clock,
        *,
        timing: WatchTiming | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`api` gives the connection for a namespace: each holds a stream open for each kind."""
        self._api = api
        self._services = services
        self._clock = clock
        self._timing = timing or WatchTiming()
        self._jitter = jitter

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        feed = _Feed()
        index = WorkloadIndex(self._services)
        tasks = [
            asyncio.create_task(self._follower(kind, namespace, index, feed).run())
            for namespace in self._services.namespaces()
            for kind in _WATCHED_KINDS
        ]
        for task in tasks:
            task.add_done_callback(feed.ended)
        try:
            while True:
                await feed.wait()
                await self._clock.sleep(self._timing.coalesce_seconds)
                for key in feed.take():
                    yield ClusterEvent(key=key)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follower(self, kind: Kind, namespace: str, index: WorkloadIndex, feed: _Feed) -> _Follower:
        return _Follower(
            api=self._api(namespace),
            kind=kind,
            namespace=namespace,
            index=index,
            feed=feed,
            clock=self._clock,
            timing=self._timing,
            jitter=self._jitter,
        )


@dataclass(slots=True, kw_only=True)
class _Follower:
    """Feeds from one collection of one namespace."""

    api: ReadApi
    kind: Kind
    namespace: str
    index: WorkloadIndex
    feed: _Feed
    clock: Clock
    timing: WatchTiming
    jitter: Callable[[], float]
    failures: int = 0
    """Interruptions since the last event or the last stream that ended normally."""

    async def run(self) -> None:
        """Runs without end; stops only with an error that a retry does not fix."""
        while True:
            try:
                version = await self._start()
                while True:
                    version = await self._stream(version)
            except Expired as error:
                # The watch expired but the server is healthy: the first time, list again at once.
                await self._pause(error, self.failures)
            except TransientError as error:
                await self._pause(error, self.failures + 1)
            except (Forbidden, NotFound):
                if self.kind not in _OPTIONAL:
                    raise
                await self.clock.sleep(ABSENT_FOR.total_seconds())
            self.failures += 1

    async def _start(self) -> str:
        """The version to watch from, with every service that may have moved before it in the feed."""
        if self.kind not in WORKLOADS:
            version = await self.api.version(self.kind, self.namespace)
            self.feed.add(self.index.keys(self.namespace))
            return version
        listing = await self.api.list(self.kind, self.namespace)
        self.feed.add(self.index.replaced(self.namespace, self.kind, listing.items))
        return listing.version

    async def _stream(self, version: str) -> str:
        """Feed from one watch request until the server ends it; the version it came to."""
        began = self.clock.now()
        told = False
        stream = self.api.watch(self.kind, self.namespace, version, seconds=self.timing.stream_seconds)
        async with aclosing(stream):
            async for event in stream:
                told = True
                self.failures = 0
                version = event.version or version
                self.feed.add(_touched(self.kind, event, self.index))
        held_seconds = (self.clock.now() - began).total_seconds()
        if not told and held_seconds < min(1.0, self.timing.stream_seconds / 2):
            raise TransientError(f"watch of {self.kind} in {self.namespace}: ended at once, without an event")
        self.failures = 0
        return version

    async def _pause(self, error: TransientError, failures: int) -> None:
        if failures < 1:
            return
        ceiling = self.timing.backoff.seconds_after(failures)
        seconds = ceiling * (0.5 + self.jitter() / 2)
        if error.retry_after is not None:
            seconds = max(seconds, error.retry_after.total_seconds())
        _log.warning("watch interrupted, listing again in %.1f s: %s", seconds, error)
        await self.clock.sleep(seconds)


def _touched(kind: Kind, event: Watched, index: WorkloadIndex) -> set[ServiceKey]:
    if event.type is WatchType.BOOKMARK:
        return set()
    match kind:
        case Kind.POD:
            return index.of_pod(event.item)
        case Kind.CONFIG_MAP:
            return index.of_config_map(event.item)
        case _:
            workload = {**event.item, "kind": kind.value}
            return index.removed(workload) if event.type is WatchType.DELETED else index.put(workload)

"""Keeps the store of one kind equal to the API server: one list, then a watch.

A watch that breaks is taken up again from the version it came to; a bookmark moves that
version while nothing changes. The objects are listed again only when the version has
expired (410), or after several attempts without a word from the server. What changed
meanwhile is found by comparing versions, so that nothing is lost and nothing unchanged
is reported.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.agent.ids import JsonObject
from app.bounds.backoff import Backoff
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi, Watched, WatchType
from app.connectors.kubernetes.controllers import ABSENT_FOR
from app.connectors.kubernetes.errors import Expired
from app.connectors.kubernetes.reading.store import ObjectName, ObjectStore, object_name
from app.errors import Forbidden, NotFound, TransientError

_log = logging.getLogger(__name__)

_PAGE_SIZE = 200
_PAGE_SIZES = {Kind.CONFIG_MAP: 100}
"""A page is held in memory as a whole, and a ConfigMap may be 1 MiB long."""
_FIELDS = {Kind.EVENT: "type=Warning"}
_BACKOFF = Backoff.of_seconds(0.5, 30.0)


class InformerState(StrEnum):
    """Whether the store can be read in place of the API server."""

    STARTING = "not listed yet"
    CURRENT = "listed and watched"
    BEHIND = "the watch is interrupted"
    ABSENT = "the cluster does not have this kind"
    REFUSED = "the kind may not be listed"
    UNWATCHED = "the kind may be listed and not watched"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTiming:
    """Times of lists and watches, in seconds."""

    coalesce_seconds: float = 0.25
    """Changes within this time after the first are reported as one."""
    stream_seconds: int = 240
    """A stream is ended and taken up again after this and at most a quarter more."""
    silence_seconds: float = 150.0
    """A server that sends bookmarks (one a minute) and is silent for longer has lost the connection."""
    backoff: Backoff = _BACKOFF
    resumes: int = 5
    """Failed attempts in a row to take up a watch; after that the objects are listed again."""
    lists_at_once: int = 3
    """Collections that are listed at the same time."""


@dataclass(slots=True, kw_only=True)
class Informer:
    """One kind of one namespace, or of all of them."""

    api: ReadApi
    kind: Kind
    namespace: str
    store: ObjectStore
    keeps: Callable[[str], bool]
    """Whether objects of a namespace are kept."""
    changed: Callable[[Kind, JsonObject, bool], None]
    """Called after the store changed, with the object and whether it still exists."""
    clock: Clock
    timing: WatchTiming
    gate: asyncio.Semaphore
    """Bounds the lists at the same time, shared by all informers of a cluster."""
    required: bool
    """An error that a retry does not fix ends the informer; otherwise the kind is left out for a while."""
    jitter: Callable[[], float] = random.random
    """Between 0 and 1."""
    state: InformerState = InformerState.STARTING
    heard_at: datetime | None = None
    """When the API server last sent something: a list, an opened stream, an event or a bookmark."""
    refusal: str | None = None
    """Why the kind may not be read, in words."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first list is complete, or refused."""
    _version: str | None = None
    _failures: int = 0
    """Interruptions since the last event, or the last stream that ended normally."""
    _bookmarks: bool = False

    async def run(self) -> None:
        """Runs without end; raises the error that a retry does not fix."""
        while True:
            try:
                await self._follow()
            except Expired as error:
                # The server is healthy: the first time, list again at once.
                self._version = None
                await self._pause(error, self._failures)
            except TransientError as error:
                await self._pause(error, self._failures + 1)
            except (NotFound, Forbidden) as error:
                if self.required:
                    raise
                await self._left_out(error)
                continue
            self._failures += 1
            if self._failures >= self.timing.resumes:
                self._version = None

    async def _follow(self) -> None:
        if self._version is None:
            self._version = await self._list()
            self.state, self.refusal = InformerState.CURRENT, None
            self.heard_at = self.clock.now()
            self.settled.set()
        while True:
            await self._stream()

    async def _list(self) -> str:
        """Read every object page by page; the version to watch from."""
        missing = self.store.names(self.namespace)
        version = ""
        async with (
            self.gate,
            aclosing(
                self.api.pages(
                    self.kind,
                    self.namespace,
                    fields=_FIELDS.get(self.kind),
                    limit=_PAGE_SIZES.get(self.kind, _PAGE_SIZE),
                )
            ) as pages,
        ):
            async for page in pages:
                version = page.version
                for item in page.items:
                    place = object_name(item)
                    missing.discard(place)
                    self._put(place, item)
        for name in missing:
            self._remove(name)
        return version

    async def _stream(self) -> None:
        """Apply one watch request until the server ends it."""
        began = self.clock.now()
        heard = False
        seconds = self.timing.stream_seconds
        seconds += int(self.jitter() * seconds / 4)
        stream = self.api.watch(
            self.kind,
            self.namespace,
            self._version or "",
            seconds=seconds,
            fields=_FIELDS.get(self.kind),
            silence_seconds=self.timing.silence_seconds if self._bookmarks else None,
            opened=self._opened,
        )
        async with aclosing(stream):
            async for event in stream:
                heard = True
                self._failures = 0
                self.heard_at = self.clock.now()
                self._apply(event)
        held_seconds = (self.clock.now() - began).total_seconds()
        if not heard and held_seconds < min(1.0, self.timing.stream_seconds / 2):
            raise TransientError(f"watch of {self.kind} in {self.namespace}: ended at once, without an event")
        self._failures = 0

    def _opened(self) -> None:
        self.heard_at = self.clock.now()
        self.state = InformerState.CURRENT

    def _apply(self, event: Watched) -> None:
        if event.type is WatchType.BOOKMARK:
            self._bookmarks = True
        elif event.type is WatchType.DELETED:
            self._remove(object_name(event.item))
        else:
            self._put(object_name(event.item), event.item)
        self._version = event.version or self._version

    def _put(self, place: ObjectName, item: JsonObject) -> None:
        if self.keeps(place[0]) and self.store.put(item):
            self.changed(self.kind, {**item, "kind": self.kind.value}, True)

    def _remove(self, name: ObjectName) -> None:
        gone = self.store.remove(name)
        if gone is not None:
            self.changed(self.kind, gone, False)

    async def _pause(self, error: TransientError, failures: int) -> None:
        if self.state is InformerState.CURRENT:
            self.state = InformerState.BEHIND
        if failures < 1:
            return
        ceiling = self.timing.backoff.seconds_after(failures)
        seconds = ceiling * (0.5 + self.jitter() / 2)
        if error.retry_after is not None:
            seconds = max(seconds, error.retry_after.total_seconds())
        _log.warning("watch interrupted, resuming in %.1f s: %s", seconds, error)
        await self.clock.sleep(seconds)

    async def _left_out(self, error: NotFound | Forbidden) -> None:
        """Do without the kind until it may have been installed, or the right granted."""
        listed = self._version is not None
        if isinstance(error, NotFound):
            self.state = InformerState.ABSENT
        else:
            self.state = InformerState.UNWATCHED if listed else InformerState.REFUSED
            self.refusal = str(error)
        for name in self.store.names(self.namespace):
            self.store.remove(name)
        self._version, self._failures, self.heard_at = None, 0, None
        self.settled.set()
        await self.clock.sleep(ABSENT_FOR.total_seconds() * (1 + self.jitter() / 4))

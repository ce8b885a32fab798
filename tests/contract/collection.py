"""One collection of a simulated API server: versions, pages, watches, and the faults that real ones have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import cast

from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import Connection, Kind, Listing, ReadApi, Watched, WatchType
from app.connectors.kubernetes.errors import Expired
from app.connectors.kubernetes.reading.informer import Informer, WatchTiming
from app.connectors.kubernetes.reading.store import ObjectStore
from app.errors import AgentError, TransientError
from app.testing import VirtualClock


@dataclass
class Collection(ReadApi):
    """ConfigMaps of one namespace; every method of a reader that an informer uses."""

    page_size: int = 3
    refused: list[AgentError] = field(default_factory=list)
    """What the next requests are answered with instead."""
    asked: list[str] = field(default_factory=list)
    """What was answered: `list` for each page, `watch VERSION` for each watch."""
    turned_away: int = 0
    objects: dict[str, JsonObject] = field(default_factory=dict)
    between_pages: Callable[[], None] = lambda: None
    seconds: list[int] = field(default_factory=list)
    """How long each watch was asked to last."""
    _version: int = 0
    _log: list[tuple[int, Watched]] = field(default_factory=list)
    _oldest: int = 0
    _broken: int = 0
    """Counts the cuts; a stream that began before the last one is broken."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__(cast("Connection", None))

    # ------------------------------------------------------------ what people do

    def put(self, name: str, value: str) -> None:
        """Create or change a ConfigMap."""
        known = self.objects.get(name)
        self._version += 1
        metadata = cast("JsonObject", known["metadata"]) if known is not None else {}
        item: JsonObject = {
            "metadata": {
                "name": name,
                "namespace": "payments",
                "uid": metadata.get("uid", f"uid-{self._version}"),
                "resourceVersion": str(self._version),
            },
            "data": {"mode": value},
        }
        self.objects[name] = item
        self._tell(WatchType.ADDED if known is None else WatchType.MODIFIED, item)

    def delete(self, name: str) -> None:
        """Delete a ConfigMap if it is there; as on a server, the event carries a version of its own."""
        item = self.objects.pop(name, None)
        if item is not None:
            self._version += 1
            metadata = cast("JsonObject", item["metadata"])
            self._tell(
                WatchType.DELETED, {**item, "metadata": {**metadata, "resourceVersion": str(self._version)}}
            )

    def bookmark(self) -> None:
        """Tell every watch the version of the collection."""
        self._tell(WatchType.BOOKMARK, {"metadata": {"resourceVersion": str(self._version)}})

    # ------------------------------------------------------------ what breaks

    def cut(self) -> None:
        """Break every open stream."""
        self._broken += 1
        self._moved.set()

    def compact(self) -> None:
        """Forget the history: watches from earlier versions are answered with 410."""
        self._oldest = self._version
        self._log.clear()
        self._moved.set()

    # ------------------------------------------------------------ what an informer asks

    async def pages(
        self,
        kind: Kind,
        namespace: str,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int = 0,
    ) -> AsyncGenerator[Listing, None]:
        del kind, namespace, labels, fields, limit
        snapshot, version = list(self.objects.values()), self._version
        for start in range(0, max(1, len(snapshot)), self.page_size):
            self._ask("list")
            if start and version < self._oldest:
                raise Expired("list: the continue token is too old")
            yield Listing(items=tuple(snapshot[start : start + self.page_size]), version=str(version))
            await asyncio.sleep(0)
            self.between_pages()

    async def watch(
        self,
        kind: Kind,
        namespace: str,
        version: str,
        *,
        seconds: int,
        fields: str | None = None,
        silence_seconds: float | None = None,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Watched, None]:
        del kind, namespace, fields, silence_seconds
        self.seconds.append(seconds)
        self._ask(f"watch {version}")
        began, at = self._broken, int(version)
        opened()
        while True:
            if began != self._broken:
                raise TransientError("watch: connection closed by peer")
            if at < self._oldest:
                raise Expired(f"watch: too old resource version {at}")
            waiting = [(number, event) for number, event in self._log if number > at]
            for number, event in waiting:
                at = number
                yield event
            if not waiting:
                self._moved.clear()
                await self._moved.wait()

    def _ask(self, what: str) -> None:
        if self.refused:
            self.turned_away += 1
            raise self.refused.pop(0)
        self.asked.append(what)

    def _tell(self, kind: WatchType, item: JsonObject) -> None:
        self._log.append((self._version, Watched(type=kind, item=item)))
        self._moved.set()


DOWN = 1_000
"""More refusals than an informer has attempts in the length of a test."""


def informer_of(collection: Collection, clock: VirtualClock, **changes: object) -> Informer:
    """An informer of its ConfigMaps; `changes` are its fields."""
    fields: dict[str, object] = {
        "api": collection,
        "kind": Kind.CONFIG_MAP,
        "namespace": "payments",
        "store": ObjectStore(Kind.CONFIG_MAP),
        "keeps": lambda _: True,
        "changed": lambda *_: None,
        "clock": clock,
        "timing": WatchTiming(),
        "gate": asyncio.Semaphore(1),
        "required": True,
        "jitter": lambda: 1.0,
        **changes,
    }
    return Informer(**fields)  # type: ignore[arg-type] # the fields are those above


def kept(informer: Informer) -> dict[str, JsonObject]:
    """The store by name."""
    names = informer.store.names(informer.namespace)
    return {name[1]: item for name in names if (item := informer.store.get(name)) is not None}


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    """Stop the informer that a test began."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

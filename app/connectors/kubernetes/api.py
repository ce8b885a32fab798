"""Talks HTTP with one Kubernetes API server: get, list, watch and patch of plain JSON objects.

Called by the adapters in `k8s`, and by the informers, because lightkube's own watch
reconnects without a pause. Reading and patching are separate classes: an object that only reads cannot be
made to write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.connection import EVERYWHERE, FIELD_MANAGER, Connection, Kind, plural
from app.connectors.kubernetes.errors import Expired, KubernetesCall, failure, rejection
from app.connectors.kubernetes.fields import mapping, number, objects, text

__all__ = [
    "EVERYWHERE",
    "FIELD_MANAGER",
    "PAGE_SIZE",
    "Connection",
    "DryRunApi",
    "Kind",
    "Listing",
    "PatchApi",
    "ReadApi",
    "WatchType",
    "Watched",
    "load_config",
    "plural",
]

PAGE_SIZE = 500
_LIST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A consistent list and the version from which a watch continues."""

    items: tuple[JsonObject, ...]
    version: str


class WatchType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One event of a watch."""

    type: WatchType
    item: JsonObject

    @property
    def version(self) -> str | None:
        return text(self.item, "metadata", "resourceVersion")


class ReadApi:
    """Reads objects; has no way to change one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, kind: Kind, namespace: str, name: str) -> JsonObject:
        """One object; `NotFound` when it is not there."""
        call = KubernetesCall(verb="get", what=f"{plural(kind)} {namespace}/{name}", effect=False)
        answer = await self._connection.exchange(
            call, self._connection.prepare("get", kind, namespace, name=name)
        )
        if text(answer, "metadata", "name") != name:
            raise failure(call, ValueError("the answer is not the object that was asked for"))
        return answer

    async def list(
        self, kind: Kind, namespace: str, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        """All objects of a kind that match both selectors, page by page; restarts when a page expires.

        Each item carries its kind, which the API server leaves out of a list.
        """
        for _ in range(_LIST_ATTEMPTS):
            try:
                return await self._list(kind, namespace, labels, fields)
            except Expired as error:
                expired = error
        raise expired

    async def _list(self, kind: Kind, namespace: str, labels: str | None, fields: str | None) -> Listing:
        items: list[JsonObject] = []
        version = ""
        async for page in self.pages(kind, namespace, labels=labels, fields=fields):
            items.extend(page.items)
            version = page.version
        return Listing(items=tuple(items), version=version)

    async def pages(
        self,
        kind: Kind,
        namespace: str,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int = PAGE_SIZE,
    ) -> AsyncGenerator[Listing, None]:
        """The same list page by page, for a caller that keeps only parts; `Expired` when it took too long."""
        page: str | None = None
        while True:
            answer = await self._page(kind, namespace, labels, fields, page=page, limit=limit)
            if not isinstance(answer.get("items", ()), list | None):
                # An empty object is not an empty list: a gateway answered, or an answer was cut off.
                call = _collection_call("list", kind, namespace)
                raise failure(call, ValueError("the answer is not a list of objects"))
            page = text(answer, "metadata", "continue")
            version = text(answer, "metadata", "resourceVersion") or ""
            found = ({**item, "kind": kind.value} for item in objects(answer, "items"))
            yield Listing(items=tuple(found), version=version)
            if page is None:
                return

    async def metadata(self, kind: Kind, namespace: str, *, labels: str) -> tuple[JsonObject, ...]:
        """The metadata of the objects that match, at most a hundred; never anything else of them."""
        call = _collection_call("list", kind, namespace)
        request = self._connection.prepare_metadata_list(kind, namespace, labels)
        answer = await self._connection.exchange(call, request)
        return tuple({"metadata": mapping(item, "metadata")} for item in objects(answer, "items"))

    async def version(self, kind: Kind, namespace: str) -> str:
        """The version of the collection as it is now, without reading it."""
        answer = await self._page(kind, namespace, None, None, page=None, limit=1)
        return text(answer, "metadata", "resourceVersion") or ""

    async def _page(
        self,
        kind: Kind,
        namespace: str,
        labels: str | None,
        fields: str | None,
        *,
        page: str | None,
        limit: int,
    ) -> JsonObject:
        request = self._connection.prepare(
            "list",
            kind,
            namespace,
            limit=str(limit),
            labelSelector=labels,
            fieldSelector=fields,
            **{"continue": page},
        )
        return await self._connection.exchange(_collection_call("list", kind, namespace), request)

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
        """Changes after `version`, until the server ends the stream, at the latest after `seconds`.

        `opened` is called when the server has accepted the watch. A stream that is silent
        for `silence_seconds` (None: for all of `seconds`) is given up. Raises `Expired`
        when the version is too old.
        """
        call = _collection_call("watch", kind, namespace)
        request = self._connection.prepare(
            "list",
            kind,
            namespace,
            watch=True,
            resourceVersion=version,
            timeoutSeconds=str(seconds),
            allowWatchBookmarks="true",
            fieldSelector=fields,
        )
        silence = min(seconds, silence_seconds or seconds) + self._connection.timeout_seconds
        async with aclosing(self._connection.lines(call, request, silence, opened)) as lines:
            async for line in lines:
                if line:
                    yield _watched(call, line)


class DryRunApi:
    """Has the API server judge an object that is never made."""

    def __init__(self, connection: Connection) -> None:
        if not connection.dry_run:
            raise ValueError("a dry run over a connection that persists")
        self._connection = connection

    async def create(self, kind: Kind, namespace: str, body: JsonObject) -> None:
        """Ask with `dryRun=All` for `body` to be created; raises what the server answers instead."""
        call = KubernetesCall(verb="create", what=f"{plural(kind)} in namespace {namespace}", effect=False)
        await self._connection.exchange(call, self._connection.prepare_dry_create(kind, namespace, body))


class PatchApi:
    """Patches objects; over a dry-run connection no patch persists."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def dry_run(self) -> bool:
        return self._connection.dry_run

    async def patch(
        self, ref: ObjectRef, operations: Sequence[JsonObject], *, status: bool = False
    ) -> JsonObject:
        """Apply a JSON patch in one request; the object as it is, or would be, after it."""
        kind = Kind(ref.kind)
        resource = f"{plural(kind)}/status" if status else plural(kind)
        call = KubernetesCall(
            verb="patch", what=f"{resource} {ref.namespace}/{ref.name}", effect=not self.dry_run
        )
        request = self._connection.prepare_patch(kind, ref, operations, status=status)
        return await self._connection.exchange(call, request)

    async def create(self, kind: Kind, namespace: str, body: JsonObject) -> JsonObject:
        """Create an object; `Conflict` where one of its name exists."""
        call = KubernetesCall(
            verb="create", what=f"{plural(kind)} in namespace {namespace}", effect=not self.dry_run
        )
        request = self._connection.prepare_create(kind, namespace, body)
        return await self._connection.exchange(call, request)

    async def delete(self, ref: ObjectRef, *, uid: str, version: str) -> None:
        """Delete exactly this object in exactly this version; `Conflict` where it is another."""
        kind = Kind(ref.kind)
        call = KubernetesCall(
            verb="delete", what=f"{plural(kind)} {ref.namespace}/{ref.name}", effect=not self.dry_run
        )
        await self._connection.exchange(call, self._connection.prepare_delete(kind, ref, uid, version))

    async def evict(self, ref: ObjectRef, *, uid: str) -> None:
        """Evict exactly this pod; `Conflict` where a disruption budget allows none now."""
        call = KubernetesCall(
            verb="create", what=f"pods/eviction {ref.namespace}/{ref.name}", effect=not self.dry_run
        )
        await self._connection.exchange(call, self._connection.prepare_eviction(ref, uid))


def _collection_call(verb: str, kind: Kind, namespace: str) -> KubernetesCall:
    where = "all namespaces" if namespace == EVERYWHERE else f"namespace {namespace}"
    return KubernetesCall(verb=verb, what=f"{plural(kind)} in {where}", effect=False)


def _watched(call: KubernetesCall, line: str) -> Watched:
    try:
        event = msgspec.json.decode(line)
        if not isinstance(event, dict):
            raise failure(call, ValueError("the event is not an object"))
        item = mapping(event, "object")
        if event.get("type") == "ERROR":
            raise rejection(call, number(item, "code") or 500, {}, item)
        return Watched(type=WatchType(str(event.get("type"))), item=item)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise failure(call, error) from error

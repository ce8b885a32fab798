"""The changes of Services, Ingresses and NetworkPolicies that a watch saw, of the last two hours.

State that the view of the cluster feeds; an object is compared with the one before it, so
that a write that left its specification as it was is no change.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from app.agent.ids import JsonObject
from app.clock import Clock
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import mapping, uid
from app.connectors.kubernetes.index import NamespaceWorkloads
from app.connectors.kubernetes.mapping import WorkloadClaim, claim_of
from app.connectors.kubernetes.reading.store import ObjectStore, object_name
from app.connectors.kubernetes.routes.effects import Pods, pods_of
from app.connectors.kubernetes.routes.view import KEPT_FOR, SeenChange, newly_written, written_at
from app.connectors.kubernetes.templates import template_of

_KEPT = 50
"""Changes of one namespace; the oldest go first."""
_SAME_WRITE_WITHIN = timedelta(seconds=15)
"""The last write that both versions name is the change itself if the watch received it this soon after."""


class RouteHistory:
    """What the watches of one cluster saw; bounded by the namespaces that are watched."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, deque[SeenChange]] = {}

    def changed(self, old: JsonObject, new: JsonObject) -> None:
        """An object was replaced by another version, or by another object of its name."""
        if mapping(old, "spec") == mapping(new, "spec"):
            return
        self._add(SeenChange(at=self._changed_at(old, new), old=old, new=new))

    def _changed_at(self, old: JsonObject, new: JsonObject) -> datetime:
        """When the specification changed: the last write that the object names, however late it arrives.

        Now, where the object names a write that is not the change: an earlier one, or one of the future.
        """
        now, written, before = self._clock.now(), written_at(new), written_at(old)
        if written is None or written > now:
            return now
        if newly_written(old, new):
            return written if before is None or written >= before else now
        return written if written >= now - _SAME_WRITE_WITHIN else now

    def deleted(self, old: JsonObject, heard_at: datetime | None = None) -> None:
        """An object is gone; `heard_at` is when its watch heard last from the API server.

        A deletion names no time: where the watch was interrupted, it may be as old as that.
        """
        now = self._clock.now()
        missed = heard_at is not None and now - heard_at > _SAME_WRITE_WITHIN
        self._add(SeenChange(at=now, old=old, new=None, not_before=heard_at if missed else None))

    def within(self, namespace: str) -> tuple[SeenChange, ...]:
        """The changes of a namespace, oldest first."""
        since = self._clock.now() - KEPT_FOR
        return tuple(one for one in self._seen.get(namespace, ()) if one.at >= since)

    @property
    def size(self) -> tuple[int, int]:
        """Of how many namespaces changes are kept, and how many changes."""
        return len(self._seen), sum(map(len, self._seen.values()))

    def _add(self, change: SeenChange) -> None:
        namespace, _ = object_name(change.new or change.old or {})
        kept = self._seen.pop(namespace, None)
        self._seen[namespace] = deque(maxlen=_KEPT) if kept is None else kept
        self._seen[namespace].append(change)
        self._forget()

    def _forget(self) -> None:
        """Drop what is too old, whole namespaces too: those that changed longest ago come first."""
        since = self._clock.now() - KEPT_FOR
        while self._seen:
            namespace = next(iter(self._seen))
            kept = self._seen[namespace]
            while kept and kept[0].at < since:
                kept.popleft()
            if kept:
                return
            del self._seen[namespace]


class RouteStore(ObjectStore):
    """Keeps the objects of one of the kinds, and records how they change."""

    def __init__(self, kind: Kind, clock: Clock, history: RouteHistory) -> None:
        super().__init__(kind)
        self._clock = clock
        self._history = history
        self.first_read: dict[str, datetime] = {}
        """Since when the agent compares each object, by uid."""

    def put(self, item: JsonObject) -> bool:
        place = object_name(item)
        before = self.get(place)
        kept = super().put(item)
        after = self.get(place)
        if before is not None and uid(before) != uid(item):
            self.first_read.pop(uid(before), None)
        self.first_read.setdefault(uid(item), self._clock.now())
        if kept and before is not None and after is not None:
            self._history.changed(before, after)
        return kept

    def remove(self, place: tuple[str, str]) -> JsonObject | None:
        gone = super().remove(place)
        self.first_read.pop("" if gone is None else uid(gone), None)
        return gone


class PodTemplates:
    """The pods of each workload as its template makes them, so that no look reads every workload."""

    def __init__(self) -> None:
        self._known: dict[str, dict[tuple[str, str], tuple[WorkloadClaim, Pods]]] = {}

    def changed(self, workload: JsonObject, *, present: bool) -> None:
        """A workload was added, changed or removed."""
        claim, template = claim_of(workload), template_of(workload)
        known = self._known.setdefault(claim.namespace, {})
        known.pop((claim.kind, claim.name), None)
        if present and template:
            known[claim.kind, claim.name] = (claim, pods_of(template))

    def by_service(self, space: NamespaceWorkloads, namespace: str, environment: str) -> dict[str, Pods]:
        """The pods of each service of a namespace that belongs to the environment.

        The settings may name workloads of one namespace for several environments.
        """
        known = self._known.get(namespace, {})
        found = ((space.key_of(claim), pods) for claim, pods in known.values())
        return {
            key.service: pods for key, pods in found if key is not None and key.environment == environment
        }

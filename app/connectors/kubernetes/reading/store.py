"""The objects of one kind as last seen, pruned; found by name or owner. Pure state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import EVERYWHERE, Kind
from app.connectors.kubernetes.fields import controller_uid, name, text, uid
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.releases.migrations import is_migration

ObjectName: TypeAlias = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One object as JSON text: a third of the memory of its dictionaries, for 20 us a read."""

    uid: str
    version: str
    owner: str
    body: bytes

    def item(self) -> JsonObject:
        found: JsonObject = msgspec.json.decode(self.body)
        return found


class ObjectStore:
    """Every object of a kind in the watched namespaces."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._spaces: dict[str, dict[str, _Kept]] = {}
        self._by_uid: dict[str, ObjectName] = {}
        self._by_owner: dict[str, set[ObjectName]] = {}

    def put(self, item: JsonObject) -> bool:
        """Keep an object in place of the one of its name; False when it is the version already kept."""
        place, unique = object_name(item), uid(item)
        space = self._spaces.setdefault(place[0], {})
        before = space.get(place[1])
        version = text(item, "metadata", "resourceVersion") or ""
        if before is not None and version and (before.uid, before.version) == (unique, version):
            return False
        if before is not None:
            self._forget(place, before)
        kept = _Kept(
            uid=unique,
            version=version,
            owner=self._owner(item),
            body=msgspec.json.encode(pruned(self._kind, item)),
        )
        space[place[1]] = kept
        self._by_uid[kept.uid] = place
        if kept.owner:
            self._by_owner.setdefault(kept.owner, set()).add(place)
        return True

    def remove(self, place: ObjectName) -> JsonObject | None:
        """Drop an object; what was kept of it."""
        kept = self._spaces.get(place[0], {}).pop(place[1], None)
        if kept is None:
            return None
        self._forget(place, kept)
        if not self._spaces[place[0]]:
            del self._spaces[place[0]]
        return kept.item()

    def names(self, scope: str) -> set[ObjectName]:
        """The objects of a namespace, or of all."""
        spaces = self._spaces if scope == EVERYWHERE else (scope,)
        return {(space, one) for space in spaces for one in self._spaces.get(space, ())}

    def get(self, place: ObjectName) -> JsonObject | None:
        kept = self._spaces.get(place[0], {}).get(place[1])
        return None if kept is None else kept.item()

    def of_uid(self, wanted: str) -> JsonObject | None:
        """The object with that uid."""
        place = self._by_uid.get(wanted)
        return None if place is None else self.get(place)

    def owner_of(self, wanted: str) -> str | None:
        """The uid of the controller of the object with that uid; None where no such object is kept."""
        place = self._by_uid.get(wanted)
        return None if place is None else self._spaces[place[0]][place[1]].owner

    def owned_by(self, owner: str) -> Iterator[JsonObject]:
        """The objects that the owner controls; of events, those about it."""
        places = sorted(self._by_owner.get(owner, ()))
        return (item for place in places if (item := self.get(place)) is not None)

    def within(self, namespace: str) -> Iterator[JsonObject]:
        """Every object of a namespace, by name."""
        return (kept.item() for _, kept in sorted(self._spaces.get(namespace, {}).items()))

    @property
    def size(self) -> tuple[int, int]:
        """How many objects, and the bytes of their text."""
        kept = [one for space in self._spaces.values() for one in space.values()]
        return len(kept), sum(len(one.body) for one in kept)

    def _owner(self, item: JsonObject) -> str:
        if self._kind is Kind.EVENT:
            return text(item, "involvedObject", "uid") or ""
        return controller_uid(item) or ""

    def _forget(self, place: ObjectName, kept: _Kept) -> None:
        if self._by_uid.get(kept.uid) == place:
            del self._by_uid[kept.uid]
        owned = self._by_owner.get(kept.owner, set())
        owned.discard(place)
        if not owned:
            self._by_owner.pop(kept.owner, None)


class PodStore(ObjectStore):
    """Keeps pods, and knows those that migrate data."""

    def __init__(self) -> None:
        super().__init__(Kind.POD)
        self._migrations: dict[str, set[ObjectName]] = {}

    def put(self, item: JsonObject) -> bool:
        place = object_name(item)
        known = self._migrations.setdefault(place[0], set())
        (known.add if is_migration(item) else known.discard)(place)
        return super().put(item)

    def remove(self, place: ObjectName) -> JsonObject | None:
        known = self._migrations.get(place[0], set())
        known.discard(place)
        if not known:
            self._migrations.pop(place[0], None)
        return super().remove(place)

    def migrations(self, namespace: str) -> tuple[JsonObject, ...]:
        """The pods of Jobs that name a migration of data, by name."""
        places = sorted(self._migrations.get(namespace, ()))
        return tuple(item for place in places if (item := self.get(place)) is not None)


def object_name(item: JsonObject) -> ObjectName:
    """Namespace and name of an object."""
    return text(item, "metadata", "namespace") or "", name(item)

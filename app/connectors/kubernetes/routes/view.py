"""What carries requests to the pods of a workload, and what changed in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.ids import JsonObject
from app.agent.routes import RouteChange, RouteEffect, RouteFault, RouteObject, RoutesView
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import (
    created_at,
    kind_of,
    moment,
    name,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.routes.effects import (
    Pods,
    backends,
    fields_of,
    ingress_effect,
    pods_of,
    policy_effect,
    policy_selects,
    service_effect,
    service_selects,
    too_long,
    unserved_ports,
)
from app.connectors.kubernetes.templates import template_of
from app.connectors.kubernetes.views.targets import last_change

ROUTES = (Kind.SERVICE, Kind.INGRESS, Kind.NETWORK_POLICY)
KEPT_FOR = timedelta(hours=2)
"""A change is older than any that can be a cause after this."""
_SPECIFICATION = (("f:spec",),)
"""As `managedFields` names it."""
_SHOWN = 160
"""Characters of one value in words."""
_DIFFERENCES = 6
_HASH_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
"""A controller that selects by them changes the selector with each rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenChange:
    """One object before and after a change, each pruned."""

    at: datetime
    old: JsonObject | None
    """None: created."""
    new: JsonObject | None
    """None: deleted."""
    not_before: datetime | None = None
    """It may be as old as this, because the watch was interrupted; None: it was made at `at`."""

    @property
    def item(self) -> JsonObject:
        return self.new or self.old or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteObjects:
    """The Services, Ingresses and NetworkPolicies of one namespace."""

    items: tuple[JsonObject, ...] = ()
    """Each with its kind."""
    seen: tuple[SeenChange, ...] = ()
    """The changes that a watch saw, oldest first."""
    compared_since: Mapping[str, datetime] = field(default_factory=dict)
    """Since when a watch compares each object, by uid; absent where none does."""
    pods: Mapping[str, Pods] = field(default_factory=dict)
    """The pods of each service of the namespace, by their templates, as far as they are known."""
    unread: tuple[Kind, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedWorkload:
    """The workload that the view is about."""

    workload: JsonObject
    service: str
    pods: tuple[JsonObject, ...]


def written_at(item: JsonObject) -> datetime | None:
    """When its specification was written last, as the object says; another part of it may have changed."""
    return moment(last_change(item, _SPECIFICATION), "time")


def newly_written(old: JsonObject, new: JsonObject) -> bool:
    """Whether a version names another last write than the one before it.

    It does not after a removal of what another manager had set, or two writes in one second.
    """
    return last_change(old, _SPECIFICATION) != last_change(new, _SPECIFICATION)


def routes_view(found: RouteObjects, workload: RoutedWorkload, at: datetime) -> RoutesView:
    """The objects that concern the workload, and the recent changes of those of its namespace."""
    pods = pods_of(template_of(workload.workload), workload.pods)
    every = {**found.pods, workload.service: pods}
    reach = _Reach(found, every)
    changes = sorted(
        (one for seen in _changes(found, at) if (one := _change(seen, found, reach)) is not None),
        key=lambda one: one.at,
        reverse=True,
    )
    own = [item for item in found.items if reach.concerned(item, (workload.service,))]
    return RoutesView(
        objects=tuple(sorted((_object(item, found) for item in own), key=lambda one: (one.kind, one.name))),
        changes=tuple(changes),
        faults=tuple(_faults(found, workload, pods)),
        unread=tuple(kind.value for kind in found.unread),
    )


class _Reach:
    """What reaches the pods of each service, worked out once for all changes of a namespace.

    A namespace may have hundreds of services, each with a change.
    """

    def __init__(self, found: RouteObjects, pods: Mapping[str, Pods]) -> None:
        self.pods = pods
        items = [*found.items, *(one.old for one in found.seen if one.old is not None)]
        self.policies = [one for one in found.items if kind_of(one) == Kind.NETWORK_POLICY]
        named = [one for one in items if kind_of(one) == Kind.SERVICE]
        self.names: dict[str, frozenset[str]] = {
            service: frozenset(name(one) for one in named if service_selects(one, of.labels))
            for service, of in pods.items()
        }
        """The names of the Services that select the pods, now or before a change that was seen."""
        self._selecting = {
            service: [one for one in self.policies if policy_selects(one, of.labels)]
            for service, of in pods.items()
        }

    def beside(self, service: str, policy: JsonObject) -> list[JsonObject]:
        """The other policies that are about the pods now."""
        return [one for one in self._selecting[service] if name(one) != name(policy)]

    def concerned(self, item: JsonObject, among: Iterable[str] | None = None) -> list[str]:
        """The services whose pods an object concerns."""
        services = self.pods if among is None else among
        match kind_of(item):
            case Kind.SERVICE:
                return [one for one in services if service_selects(item, self.pods[one].labels)]
            case Kind.INGRESS:
                sent = {service for _, service in backends(item)}
                return [one for one in services if not sent.isdisjoint(self.names[one])]
            case _:
                return [one for one in services if policy_selects(item, self.pods[one].labels)]


def _changes(found: RouteObjects, at: datetime) -> Iterator[SeenChange]:
    """What a watch saw, what was created recently, and what was written before a watch could compare it."""
    yield from found.seen
    since = at - KEPT_FOR
    first: dict[str, JsonObject] = {}
    for seen in found.seen:
        if seen.old is not None:
            first.setdefault(uid(seen.old), seen.old)
    for item in found.items:
        born, written = created_at(item), written_at(item)
        compared = found.compared_since.get(uid(item))
        if born >= since:
            # As it was before the first change that was seen.
            yield SeenChange(at=born, old=None, new=first.get(uid(item), item))
        if written is None or written <= born or written < since:
            continue
        if compared is None or written <= compared:
            yield SeenChange(at=written, old=item, new=item)


def _change(seen: SeenChange, found: RouteObjects, reach: _Reach) -> RouteChange | None:
    """None for a change that concerns no service of the namespace."""
    kind = Kind(kind_of(seen.item))
    versions = [one for one in (seen.old, seen.new) if one is not None]
    concerned = dict.fromkeys(service for one in versions for service in reach.concerned(one))
    if not concerned:
        return None
    unknown = (seen.old is not None and seen.old is seen.new) or any(map(too_long, versions))
    earlier = [] if unknown or kind is not Kind.NETWORK_POLICY else _policies_before(seen, found, reach)
    effects = {} if unknown else {one: _effect(kind, seen, one, reach, earlier) for one in concerned}
    cut = sorted(service for service, effect in effects.items() if effect is RouteEffect.CUTS)
    effect = RouteEffect.UNKNOWN if unknown else RouteEffect.CUTS if cut else RouteEffect.HARMLESS
    return RouteChange(
        kind=kind.value,
        name=name(seen.item),
        at=seen.at,
        not_before=seen.not_before,
        by=_author(seen),
        difference=() if unknown else _difference(kind, seen),
        effect=effect,
        services=tuple(cut) if effect is RouteEffect.CUTS else tuple(sorted(concerned)),
    )


def _author(seen: SeenChange) -> str | None:
    """The field manager of a change; None where the object does not say, or says it of an earlier one."""
    if seen.new is None:
        return None
    if seen.old is not None and seen.at != written_at(seen.new) and not newly_written(seen.old, seen.new):
        return None
    return text(last_change(seen.new, _SPECIFICATION), "manager")


def _effect(
    kind: Kind, seen: SeenChange, service: str, reach: _Reach, earlier: Sequence[JsonObject]
) -> RouteEffect:
    """Of a change that concerns the service."""
    pods = reach.pods[service]
    match kind:
        case Kind.SERVICE:
            return service_effect(seen.old, seen.new, pods)
        case Kind.INGRESS:
            return ingress_effect(seen.old, seen.new, reach.names[service])
        case _:
            return policy_effect(seen.old, seen.new, pods, reach.beside(service, seen.item), earlier)


def _policies_before(seen: SeenChange, found: RouteObjects, reach: _Reach) -> list[JsonObject]:
    """The other policies as they were before a change: what came at the same time was not there yet."""
    then = {name(one): one for one in reach.policies}
    for one in reversed(found.seen):
        if one is seen or one.at < seen.at or kind_of(one.item) != Kind.NETWORK_POLICY:
            continue
        then.pop(name(one.item), None)
        if one.old is not None:
            then[name(one.item)] = one.old
    then.pop(name(seen.item), None)
    return [one for one in then.values() if created_at(one) < seen.at]


def _difference(kind: Kind, seen: SeenChange) -> tuple[str, ...]:
    before, after = fields_of(kind, seen.old), fields_of(kind, seen.new)
    if seen.new is None:
        found = ["deleted", *(f"{_short(field)} was {_short(words)}" for field, words in before.items())]
    elif seen.old is None:
        found = ["created", *(f"{_short(field)} {_short(words)}" for field, words in after.items())]
    else:
        found = [
            f"{_short(field)} {_short(before.get(field, 'none'))} -> {_short(after.get(field, 'none'))}"
            for field in dict.fromkeys((*before, *after))
            if before.get(field) != after.get(field)
        ]
    return tuple(found[:_DIFFERENCES]) or ("another field of its specification",)


def _short(words: str) -> str:
    words = words or "none"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def _object(item: JsonObject, found: RouteObjects) -> RouteObject:
    return RouteObject(kind=kind_of(item), name=name(item), unchanged_since=_unchanged_since(item, found))


def _unchanged_since(item: JsonObject, found: RouteObjects) -> datetime:
    """The last write before a watch compared it, or the last change since."""
    changed = [one.at for one in found.seen if one.new is not None and uid(one.new) == uid(item)]
    written, compared = written_at(item), found.compared_since.get(uid(item))
    if not changed and written is not None:
        changed = [written if compared is None else min(written, compared)]
    return max([*changed, created_at(item)])


def _faults(found: RouteObjects, workload: RoutedWorkload, pods: Pods) -> Iterator[RouteFault]:
    """What sends requests nowhere now, whenever it was changed."""
    names = {name(workload.workload), workload.service}
    every = [*pods.labels, *(one for those in found.pods.values() for one in those.labels)]
    held = {
        uid(one.old) for one in found.seen if one.old is not None and service_selects(one.old, pods.labels)
    }
    for item in found.items:
        if kind_of(item) != Kind.SERVICE:
            continue
        selector = texts(item, "spec", "selector")
        by_hash = any(label in selector for label in _HASH_LABELS)
        if service_selects(item, pods.labels):
            for port in unserved_ports(item, pods):
                yield _fault(
                    item, found, f"sends requests to port {port}, which no container of its pods has"
                )
        elif (
            selector
            and not by_hash
            and text(item, "spec", "type") != "ExternalName"
            and (name(item) in names or uid(item) in held)
            and not service_selects(item, every)
        ):
            words = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
            yield _fault(item, found, f"selects no pod of the namespace (selector {words})")


def _fault(item: JsonObject, found: RouteObjects, words: str) -> RouteFault:
    at = _unchanged_since(item, found)
    return RouteFault(kind=kind_of(item), name=name(item), words=words, written_at=at)

"""What carries requests to the pods of a workload, and what changed in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    unheard_ports,
)
from app.connectors.kubernetes.templates import template_of
from app.connectors.kubernetes.views.targets import last_change

ROUTES = (Kind.SERVICE, Kind.INGRESS, Kind.NETWORK_POLICY)
KEPT_FOR = timedelta(hours=2)
"""A change is older than any that can be a cause after this."""
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
    return moment(last_change(item, (("f:spec",),)), "time")


def routes_view(found: RouteObjects, workload: RoutedWorkload, at: datetime) -> RoutesView:
    """The objects that concern the workload, and the recent changes of those of its namespace."""
    pods = pods_of(template_of(workload.workload), workload.pods)
    services = {**found.pods, workload.service: pods}
    changes = sorted(
        (one for seen in _changes(found, at) if (one := _change(seen, found, services)) is not None),
        key=lambda one: one.at,
        reverse=True,
    )
    own = [item for item in found.items if _concerns(item, pods, found)]
    return RoutesView(
        objects=tuple(sorted((_object(item, found) for item in own), key=lambda one: (one.kind, one.name))),
        changes=tuple(changes),
        faults=tuple(_faults(found, workload, pods)),
        unread=tuple(kind.value for kind in found.unread),
    )


def _changes(found: RouteObjects, at: datetime) -> Iterator[SeenChange]:
    """What a watch saw, what was created lately, and what was written before a watch could compare it."""
    yield from found.seen
    since = at - KEPT_FOR
    for item in found.items:
        born, written = created_at(item), written_at(item)
        compared = found.compared_since.get(uid(item))
        if born >= since:
            yield SeenChange(at=born, old=None, new=_as_created(item, found))
        if written is None or written <= born or written < since:
            continue
        if compared is None or written <= compared:
            yield SeenChange(at=written, old=item, new=item)


def _as_created(item: JsonObject, found: RouteObjects) -> JsonObject:
    """As it was before the first change that was seen."""
    first = next((one for one in found.seen if one.old is not None and uid(one.old) == uid(item)), None)
    return item if first is None or first.old is None else first.old


def _change(seen: SeenChange, found: RouteObjects, services: Mapping[str, Pods]) -> RouteChange | None:
    """None for a change that concerns no service of the namespace."""
    kind = Kind(kind_of(seen.item))
    effects = {
        service: effect
        for service, pods in services.items()
        if (effect := _effect(kind, seen, pods, found)) is not None
    }
    if not effects:
        return None
    unknown = seen.old is not None and seen.old is seen.new
    cut = sorted(service for service, effect in effects.items() if effect is RouteEffect.CUTS)
    effect = RouteEffect.UNKNOWN if unknown else RouteEffect.CUTS if cut else RouteEffect.HARMLESS
    return RouteChange(
        kind=kind.value,
        name=name(seen.item),
        at=seen.at,
        by=None if seen.new is None else text(last_change(seen.new, (("f:spec",),)), "manager"),
        difference=() if unknown else _difference(kind, seen),
        effect=effect,
        services=tuple(cut) if effect is RouteEffect.CUTS else tuple(sorted(effects)),
    )


def _effect(kind: Kind, seen: SeenChange, pods: Pods, found: RouteObjects) -> RouteEffect | None:
    """None where the change does not concern these pods."""
    versions = [one for one in (seen.old, seen.new) if one is not None]
    if not any(_concerns(one, pods, found) for one in versions):
        return None
    match kind:
        case Kind.SERVICE:
            return service_effect(seen.old, seen.new, pods)
        case Kind.INGRESS:
            return ingress_effect(seen.old, seen.new, _services_of(pods, found))
        case _:
            others = [
                one
                for one in found.items
                if kind_of(one) == Kind.NETWORK_POLICY and name(one) != name(seen.item)
            ]
            return policy_effect(seen.old, seen.new, pods, others)


def _concerns(item: JsonObject, pods: Pods, found: RouteObjects) -> bool:
    match kind_of(item):
        case Kind.SERVICE:
            return service_selects(item, pods.labels)
        case Kind.INGRESS:
            named = _services_of(pods, found)
            return any(service in named for _, service in backends(item))
        case _:
            return policy_selects(item, pods.labels)


def _services_of(pods: Pods, found: RouteObjects) -> frozenset[str]:
    """The names of the Services that select the pods, now or before a change that was seen."""
    there = [*found.items, *(one.old for one in found.seen if one.old is not None)]
    return frozenset(
        name(one) for one in there if kind_of(one) == Kind.SERVICE and service_selects(one, pods.labels)
    )


def _difference(kind: Kind, seen: SeenChange) -> tuple[str, ...]:
    before, after = fields_of(kind, seen.old), fields_of(kind, seen.new)
    if seen.new is None:
        return ("deleted", *(f"{field} was {_short(words)}" for field, words in before.items()))[
            :_DIFFERENCES
        ]
    if seen.old is None:
        return ("created", *(f"{field} {_short(words)}" for field, words in after.items()))[:_DIFFERENCES]
    found = [
        f"{field} {_short(before.get(field, 'none'))} -> {_short(after.get(field, 'none'))}"
        for field in dict.fromkeys((*before, *after))
        if before.get(field) != after.get(field)
    ]
    return tuple(found[:_DIFFERENCES]) or ("another field of its specification",)


def _short(words: str) -> str:
    words = words or "none"
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def _object(item: JsonObject, found: RouteObjects) -> RouteObject:
    """The last write before a watch compared it, or the last change since."""
    changed = [one.at for one in found.seen if one.new is not None and uid(one.new) == uid(item)]
    written, compared = written_at(item), found.compared_since.get(uid(item))
    if not changed and written is not None:
        changed = [written if compared is None else min(written, compared)]
    return RouteObject(kind=kind_of(item), name=name(item), unchanged_since=max([*changed, created_at(item)]))


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
            for port in unheard_ports(item, pods):
                yield _fault(item, f"sends requests to port {port}, which no container of its pods has")
        elif (
            selector
            and not by_hash
            and text(item, "spec", "type") != "ExternalName"
            and (name(item) in names or uid(item) in held)
            and not service_selects(item, every)
        ):
            words = ",".join(f"{label}={value}" for label, value in sorted(selector.items()))
            yield _fault(item, f"selects no pod of the namespace (selector {words})")


def _fault(item: JsonObject, words: str) -> RouteFault:
    at = max(created_at(item), written_at(item) or created_at(item))
    return RouteFault(kind=kind_of(item), name=name(item), words=words, written_at=at)

"""Which workloads a change of an object touches, and which services they are.

Pure state, fed by the view of the cluster. It keeps of each workload no more than what
is needed to find it from what it controls or a ConfigMap. Which service a workload is
follows from all of its namespace, so it is worked out when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.fields import kind_of, name, objects, text, texts, uid
from app.connectors.kubernetes.mapping import Assignment, ServiceMap, WorkloadClaim, claim_of
from app.connectors.kubernetes.templates import config_maps_of

WorkloadName: TypeAlias = tuple[str, str, str]
"""Namespace, kind and name."""


class NamespaceWorkloads:
    """The workloads of one namespace with the services that they are, worked out once."""

    def __init__(
        self, services: ServiceMap, claims: Iterable[WorkloadClaim], *, followed: bool = False
    ) -> None:
        """`followed`: kept by a watch, so that asking the API server again shows nothing newer."""
        self.claims = tuple(claims)
        self.followed = followed
        self._services = services
        self._assigned: dict[str | None, Assignment] = {}
        self._by_key: dict[str | None, dict[ServiceKey, WorkloadClaim | None]] = {}

    def assigned(self, environment: str | None = None) -> Assignment:
        """`environment` is that of a namespace that is read without being watched."""
        if environment not in self._assigned:
            self._assigned[environment] = self._services.assigned(self.claims, environment)
        return self._assigned[environment]

    def workload(self, key: ServiceKey) -> WorkloadClaim | None:
        """The workload that a service is."""
        if key.environment not in self._by_key:
            groups: dict[ServiceKey, dict[WorkloadClaim, ServiceKey]] = {}
            for claim, one in self.assigned(key.environment).keys.items():
                groups.setdefault(one, {})[claim] = one
            self._by_key[key.environment] = {
                one: Assignment(keys=group, unwatched={}).workload(one) for one, group in groups.items()
            }
        return self._by_key[key.environment].get(key)

    def named(self, kind: str, wanted: str) -> WorkloadClaim | None:
        """The workload of that kind and name."""
        return self._named.get((kind, wanted))

    def key_of(self, claim: WorkloadClaim) -> ServiceKey | None:
        """The service that a workload is."""
        return self.assigned().keys.get(claim)

    @cached_property
    def _named(self) -> Mapping[tuple[str, str], WorkloadClaim]:
        return {(claim.kind, claim.name): claim for claim in self.claims}


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownObject:
    claim: WorkloadClaim
    uid: str
    config_maps: frozenset[str]


class WorkloadIndex:
    """The workloads of the watched namespaces."""

    def __init__(self, services: ServiceMap) -> None:
        self._services = services
        self._known: dict[str, dict[tuple[str, str], _KnownObject]] = {}
        """By namespace, and by kind and name."""
        self._worked_out: dict[str, NamespaceWorkloads] = {}
        self._before: dict[str, NamespaceWorkloads] = {}
        """As the namespaces were when services were last resolved, where workloads came, went or changed."""
        self._by_uid: dict[str, WorkloadName] = {}
        self._by_config_map: dict[tuple[str, str], set[WorkloadName]] = {}

    def namespaces(self) -> Iterable[str]:
        """Every namespace that has a workload."""
        return tuple(space for space, known in self._known.items() if known)

    def workloads(self, namespace: str) -> NamespaceWorkloads:
        """The workloads of a namespace."""
        if namespace not in self._worked_out:
            claims = (known.claim for known in self._known.get(namespace, {}).values())
            self._worked_out[namespace] = NamespaceWorkloads(self._services, claims, followed=True)
        return self._worked_out[namespace]

    def services(self) -> set[ServiceKey]:
        """Every service."""
        return {key for space in self.namespaces() for key in self.workloads(space).assigned().keys.values()}

    def put(self, workload: JsonObject) -> set[WorkloadName]:
        """A workload was added or changed."""
        claim = claim_of(workload)
        place = (claim.namespace, claim.kind, claim.name)
        space = self._known.setdefault(claim.namespace, {})
        before = space.get((claim.kind, claim.name))
        if before is None or before.claim != claim:
            self._stale(claim.namespace)
        if before is not None:
            self._unlink(place, before)
        known = _KnownObject(
            claim=claim,
            uid=uid(workload),
            config_maps=frozenset(config_maps_of(workload)),
        )
        space[claim.kind, claim.name] = known
        self._by_uid[known.uid] = place
        for named in known.config_maps:
            self._by_config_map.setdefault((claim.namespace, named), set()).add(place)
        return {place}

    def removed(self, workload: JsonObject) -> set[WorkloadName]:
        """A workload is gone."""
        space = text(workload, "metadata", "namespace") or ""
        place = (space, kind_of(workload), name(workload))
        known = self._known.get(space, {}).pop(place[1:], None)
        if known is None:
            return set()
        self._stale(space)
        self._unlink(place, known)
        return {place}

    def of_uid(self, wanted: str) -> set[WorkloadName]:
        """The workload with this uid."""
        place = self._by_uid.get(wanted)
        return set() if place is None else {place}

    def of_config_map(self, config_map: JsonObject) -> set[WorkloadName]:
        """The workloads whose template or annotation refers to a ConfigMap."""
        space = text(config_map, "metadata", "namespace") or ""
        return set(self._by_config_map.get((space, name(config_map)), ()))

    def resolved(self, touched: Iterable[WorkloadName]) -> set[ServiceKey]:
        """The services of these workloads, and all that moved from or to a workload since the last call."""
        found: set[ServiceKey | None] = set()
        for space, before in self._before.items():
            then, now = before.assigned().keys, self.workloads(space).assigned().keys
            found |= {key for claim, key in then.items() if now.get(claim) != key}
            found |= {key for claim, key in now.items() if then.get(claim) != key}
        self._before.clear()
        for space, kind, named in touched:
            workloads = self.workloads(space)
            claim = workloads.named(kind, named)
            found.add(None if claim is None else workloads.key_of(claim))
        return {key for key in found if key is not None}

    def _stale(self, space: str) -> None:
        before = self._worked_out.pop(space, None)
        if space not in self._before:
            self._before[space] = before or NamespaceWorkloads(self._services, ())

    def _unlink(self, place: WorkloadName, known: _KnownObject) -> None:
        if self._by_uid.get(known.uid) == place:
            del self._by_uid[known.uid]
        for named in known.config_maps:
            users = self._by_config_map[place[0], named]
            users.discard(place)
            if not users:
                del self._by_config_map[place[0], named]


def selects(selector: JsonObject, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one, which no workload can have, matches nothing."""
    wanted = texts(selector, "matchLabels")
    expressions = objects(selector, "matchExpressions")
    if not wanted and not expressions:
        return False
    return all(labels.get(label) == value for label, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def selector_query(selector: JsonObject) -> str:
    """The same selector as the API takes it in a query."""
    parts = [f"{label}={value}" for label, value in sorted(texts(selector, "matchLabels").items())]
    for expression in objects(selector, "matchExpressions"):
        label, operator, values = _parts(expression)
        match operator:
            case "In" | "NotIn":
                parts.append(f"{label} {operator.lower()} ({','.join(sorted(values))})")
            case "Exists":
                parts.append(label)
            case _:
                parts.append(f"!{label}")
    return ",".join(parts)


def _holds(expression: JsonObject, labels: Mapping[str, str]) -> bool:
    label, operator, values = _parts(expression)
    match operator:
        case "In":
            return labels.get(label) in values
        case "NotIn":
            return labels.get(label) not in values
        case "Exists":
            return label in labels
        case "DoesNotExist":
            return label not in labels
        case _:
            return False


def _parts(expression: JsonObject) -> tuple[str, str, frozenset[str]]:
    listed = expression.get("values")
    values = frozenset(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else ()
    return text(expression, "key") or "", text(expression, "operator") or "", frozenset(values)

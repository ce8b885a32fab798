"""Which services a change of an object touches.

Pure state, fed by `k8s_watch` from its lists and watches. It keeps of each
workload no more than what is needed to find it from a pod or a ConfigMap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.fields import (
    kind_of,
    mapping,
    name,
    objects,
    text,
    texts,
)
from app.connectors.kubernetes.mapping import ServiceMap, WorkloadClaim, claim_of
from app.connectors.kubernetes.templates import config_map_names, template_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownObject:
    claim: WorkloadClaim
    selector: JsonObject
    config_maps: frozenset[str]


class WorkloadIndex:
    """The workloads of the watched namespaces that are services."""

    def __init__(self, services: ServiceMap) -> None:
        self._services = services
        self._known: dict[str, dict[tuple[str, str], _KnownObject]] = {}
        """By namespace, and by kind and name."""
        self._assigned: dict[str, Mapping[WorkloadClaim, ServiceKey]] = {}
        """The services of a namespace, worked out again after a workload came, went or was relabelled."""

    def keys(self, scope: str) -> set[ServiceKey]:
        """Every service of a namespace, or of all."""
        return {key for space in self._spaces(scope) for key in self._keys(space).values()}

    def replaced(self, scope: str, kind: str, workloads: Iterable[JsonObject]) -> set[ServiceKey]:
        """Take a complete list of one kind; every service that is in the scope, or was before."""
        before = self.keys(scope)
        for space in self._spaces(scope):
            kept = {place: known for place, known in self._known[space].items() if place[0] != kind}
            self._known[space] = kept
            self._assigned.pop(space, None)
        for workload in workloads:
            self._keep(workload)
        return before | self.keys(scope)

    def put(self, workload: JsonObject) -> set[ServiceKey]:
        """A workload was added or changed; the services that it is, and every one that it was or moved."""
        space = text(workload, "metadata", "namespace") or ""
        before = dict(self._keys(space))
        self._keep(workload)
        return self._moved(space, before, claim_of(workload))

    def removed(self, workload: JsonObject) -> set[ServiceKey]:
        """A workload is gone; the service it was, and those of others that it moved."""
        space = text(workload, "metadata", "namespace") or ""
        before = dict(self._keys(space))
        known = self._known.get(space, {}).pop((kind_of(workload), name(workload)), None)
        if known is None:
            return set()
        self._assigned.pop(space, None)
        return self._moved(space, before, known.claim)

    def of_pod(self, pod: JsonObject) -> set[ServiceKey]:
        """The services whose selector matches a pod."""
        labels = texts(pod, "metadata", "labels")
        return self._where(pod, lambda known: selects(known.selector, labels))

    def of_config_map(self, config_map: JsonObject) -> set[ServiceKey]:
        """The services whose template refers to a ConfigMap."""
        return self._where(config_map, lambda known: name(config_map) in known.config_maps)

    def _where(self, item: JsonObject, holds: Callable[[_KnownObject], bool]) -> set[ServiceKey]:
        space = text(item, "metadata", "namespace") or ""
        keys = self._keys(space)
        found = (known.claim for known in self._known.get(space, {}).values() if holds(known))
        return {keys[claim] for claim in found if claim in keys}

    def _spaces(self, scope: str) -> list[str]:
        return [space for space in self._known if scope in (EVERYWHERE, space)]

    def _keys(self, space: str) -> Mapping[WorkloadClaim, ServiceKey]:
        if space not in self._assigned:
            claims = [known.claim for known in self._known.get(space, {}).values()]
            self._assigned[space] = self._services.assigned(claims).keys
        return self._assigned[space]

    def _keep(self, workload: JsonObject) -> None:
        claim = claim_of(workload)
        space = self._known.setdefault(claim.namespace, {})
        before = space.get((claim.kind, claim.name))
        space[claim.kind, claim.name] = _KnownObject(
            claim=claim,
            selector=mapping(workload, "spec", "selector"),
            config_maps=frozenset(config_map_names(template_of(workload))),
        )
        if before is None or before.claim != claim:
            self._assigned.pop(claim.namespace, None)

    def _moved(
        self, space: str, before: Mapping[WorkloadClaim, ServiceKey], claim: WorkloadClaim
    ) -> set[ServiceKey]:
        """The services of a workload, then and now, and those that other workloads are or were instead."""
        after = self._keys(space)
        place = (claim.kind, claim.name)
        own = {key for keys in (before, after) for one, key in keys.items() if (one.kind, one.name) == place}
        others = {key for one, key in before.items() if after.get(one) != key}
        return own | others | {key for one, key in after.items() if before.get(one) != key}


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

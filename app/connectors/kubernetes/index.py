"""Which services a change of an object touches.

Pure state, fed by the view of the cluster. It keeps of each workload no more than what
is needed to find it from what it controls or a ConfigMap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.fields import (
    name,
    objects,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.templates import config_map_names, template_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownObject:
    key: ServiceKey
    uid: str
    config_maps: frozenset[str]


class WorkloadIndex:
    """The workloads of the watched namespaces that are services."""

    def __init__(self, services: ServiceMap) -> None:
        self._services = services
        self._known: dict[tuple[str, str], _KnownObject] = {}
        """By namespace and name."""
        self._by_uid: dict[str, ServiceKey] = {}
        self._by_config_map: dict[tuple[str, str], set[tuple[str, str]]] = {}
        """The workloads that refer to a ConfigMap, each by namespace and name."""
        self._sorted: tuple[ServiceKey, ...] | None = None

    def services(self) -> tuple[ServiceKey, ...]:
        """Every service, sorted."""
        if self._sorted is None:
            self._sorted = tuple(sorted({known.key for known in self._known.values()}))
        return self._sorted

    def put(self, workload: JsonObject) -> set[ServiceKey]:
        """A workload was added or changed; the service it is, and the one it was."""
        before = self._sorted
        touched = self.removed(workload)
        key = self._services.key(workload)
        if key is not None:
            place = _place(workload)
            config_maps = frozenset(config_map_names(template_of(workload)))
            self._known[place] = _KnownObject(key=key, uid=uid(workload), config_maps=config_maps)
            self._by_uid[uid(workload)] = key
            for named in config_maps:
                self._by_config_map.setdefault((place[0], named), set()).add(place)
            # A change of a workload that stays the same service moves nothing in the sorted list.
            self._sorted = before if touched == {key} else None
            touched.add(key)
        return touched

    def removed(self, workload: JsonObject) -> set[ServiceKey]:
        """A workload is gone; the service it was."""
        place = _place(workload)
        known = self._known.pop(place, None)
        if known is None:
            return set()
        self._by_uid.pop(known.uid, None)
        for named in known.config_maps:
            users = self._by_config_map[place[0], named]
            users.discard(place)
            if not users:
                del self._by_config_map[place[0], named]
        self._sorted = None
        return {known.key}

    def of_uid(self, wanted: str) -> set[ServiceKey]:
        """The service that the workload with this uid is."""
        key = self._by_uid.get(wanted)
        return set() if key is None else {key}

    def of_config_map(self, config_map: JsonObject) -> set[ServiceKey]:
        """The services whose template refers to a ConfigMap."""
        users = self._by_config_map.get(_place(config_map), ())
        return {self._known[place].key for place in users}


def _place(item: JsonObject) -> tuple[str, str]:
    return text(item, "metadata", "namespace") or "", name(item)


def selects(selector: JsonObject, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one, which a Deployment cannot have, matches nothing."""
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

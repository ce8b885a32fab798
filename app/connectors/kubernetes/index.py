"""Which services a change of an object touches.

Pure state, fed by `k8s_watch` from its lists and watches. It keeps of each
Deployment no more than what is needed to find it from a pod or a ConfigMap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.fields import (
    mapping,
    name,
    objects,
    text,
    texts,
)
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.templates import config_map_names, template_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownObject:
    key: ServiceKey
    selector: JsonObject
    config_maps: frozenset[str]


class WorkloadIndex:
    """The Deployments of the watched namespaces that are services."""

    def __init__(self, services: ServiceMap) -> None:
        self._services = services
        self._known: dict[str, dict[str, _KnownObject]] = {}
        """By namespace and name."""

    def keys(self, scope: str) -> set[ServiceKey]:
        """Every service of a namespace, or of all."""
        spaces = self._known.values() if scope == EVERYWHERE else (self._known.get(scope, {}),)
        return {known.key for space in spaces for known in space.values()}

    def replaced(self, scope: str, deployments: Iterable[JsonObject]) -> set[ServiceKey]:
        """Take a complete list of a scope; every service that is in it, or was before."""
        before = self.keys(scope)
        if scope == EVERYWHERE:
            self._known.clear()
        else:
            self._known.pop(scope, None)
        for deployment in deployments:
            self.put(deployment)
        return before | self.keys(scope)

    def put(self, deployment: JsonObject) -> set[ServiceKey]:
        """A Deployment was added or changed; the service it is, and the one it was."""
        touched = self.removed(deployment)
        key = self._services.key(deployment)
        if key is not None:
            space = self._known.setdefault(text(deployment, "metadata", "namespace") or "", {})
            space[name(deployment)] = _KnownObject(
                key=key,
                selector=mapping(deployment, "spec", "selector"),
                config_maps=frozenset(config_map_names(template_of(deployment))),
            )
            touched.add(key)
        return touched

    def removed(self, deployment: JsonObject) -> set[ServiceKey]:
        """A Deployment is gone; the service it was."""
        space = self._known.get(text(deployment, "metadata", "namespace") or "", {})
        known = space.pop(name(deployment), None)
        return {known.key} if known is not None else set()

    def of_pod(self, pod: JsonObject) -> set[ServiceKey]:
        """The services whose selector matches a pod."""
        labels = texts(pod, "metadata", "labels")
        space = self._known.get(text(pod, "metadata", "namespace") or "", {})
        return {known.key for known in space.values() if selects(known.selector, labels)}

    def of_config_map(self, config_map: JsonObject) -> set[ServiceKey]:
        """The services whose template refers to a ConfigMap."""
        space = self._known.get(text(config_map, "metadata", "namespace") or "", {})
        return {known.key for known in space.values() if name(config_map) in known.config_maps}


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

"""What a pod template needs besides its image: other objects, and the time that its probes grant. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from app.agent.ids import JsonObject
from app.connectors.kubernetes.fields import flag, mapping, number, objects, text
from app.connectors.kubernetes.templates import CONTAINER_LISTS

_PERIOD_SECONDS, _FAILURES = 10, 3
"""What Kubernetes takes where a probe does not say."""
_MOST_SECONDS = 366 * 24 * 3600


def references(template: JsonObject) -> frozenset[str]:
    """`ConfigMap a`, `Secret b`, `PersistentVolumeClaim c`: without one of them no pod starts."""
    return frozenset((*_of_volumes(template), *_of_environment(template)))


def _of_volumes(template: JsonObject) -> Iterator[str]:
    for volume in objects(template, "spec", "volumes"):
        yield from _named("PersistentVolumeClaim", volume, "persistentVolumeClaim", "claimName")
        yield from _named("Secret", volume, "secret", "secretName")
        yield from _named("ConfigMap", volume, "configMap", "name")
        for source in objects(volume, "projected", "sources"):
            yield from _named("Secret", source, "secret", "name")
            yield from _named("ConfigMap", source, "configMap", "name")


def _of_environment(template: JsonObject) -> Iterator[str]:
    for kind in CONTAINER_LISTS:
        for container in objects(template, "spec", kind):
            for source in objects(container, "envFrom"):
                yield from _named("Secret", source, "secretRef", "name")
                yield from _named("ConfigMap", source, "configMapRef", "name")
            for variable in objects(container, "env"):
                value = mapping(variable, "valueFrom")
                yield from _named("Secret", value, "secretKeyRef", "name")
                yield from _named("ConfigMap", value, "configMapKeyRef", "name")


def _named(kind: str, holder: JsonObject, field: str, key: str) -> Iterator[str]:
    found = text(holder, field, key)
    if found is not None and not flag(holder, field, "optional"):
        yield f"{kind} {found}"


def start_seconds(template: JsonObject) -> int:
    """How long the slowest container may take by its startup and readiness probes; 0 without probes.

    A year at most: the API server allows products of 2**62 seconds, which no time can hold.
    """
    slowest = max(
        (
            _granted(mapping(container, "startupProbe")) + _granted(mapping(container, "readinessProbe"))
            for container in objects(template, "spec", "containers")
        ),
        default=0,
    )
    return min(slowest, _MOST_SECONDS)


def _granted(probe: JsonObject) -> int:
    if not probe:
        return 0
    period = number(probe, "periodSeconds") or _PERIOD_SECONDS
    failures = number(probe, "failureThreshold") or _FAILURES
    return (number(probe, "initialDelaySeconds") or 0) + period * failures

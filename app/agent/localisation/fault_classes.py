"""Names the kind of fault of a candidate, and the cause of the product that it corresponds to."""

from __future__ import annotations

from app.agent.localisation.deviation import SURE
from app.agent.localisation.local_faults import RESOURCES
from app.agent.localisation.metric_kinds import MetricKind
from app.agent.localisation.service_evidence import ServiceEvidence
from app.agent.localisation.system import FaultClass
from app.agent.models import Cause

_SHARED_STORES = frozenset({"database", "object-store", "queue", "cache"})
"""Kinds without releases: the load of other services makes them slow."""

_OF_RESOURCE = {
    MetricKind.CPU: FaultClass.CPU,
    MetricKind.MEMORY: FaultClass.MEMORY,
    MetricKind.DISK: FaultClass.DISK,
    MetricKind.QUEUE: FaultClass.OVERLOAD,
}

_CAUSES = {
    FaultClass.CPU: Cause.RESOURCE_LIMIT,
    FaultClass.MEMORY: Cause.RESOURCE_LIMIT,
    FaultClass.DISK: Cause.RESOURCE_LIMIT,
    FaultClass.OVERLOAD: Cause.TRAFFIC_SURGE,
    FaultClass.NETWORK: Cause.DEPENDENCY_FAILURE,
}

_CAUSES_OF_CHANGES = {"deploy": Cause.BAD_RELEASE, "config": Cause.BAD_CONFIG}


def fault_of(
    found: ServiceEvidence, service_kind: str, symptom: MetricKind | None, changed: bool
) -> FaultClass:
    """The class with the strongest evidence; `changed`: a change of the service fits the symptom."""
    if found.local.silent:
        return FaultClass.UNAVAILABLE
    failing = max(found.own_errors, found.local.lost_calls)
    if symptom is MetricKind.ERRORS or failing > found.own_latency:
        return FaultClass.ERRORS
    # Waiting requests hold memory: where processor time and memory are both sure, the first is named.
    resource, strength = max(
        ((kind, min(found.local.resources.get(kind, 0.0), SURE)) for kind in RESOURCES),
        key=lambda item: item[1],
    )
    if strength > 0.0 and strength >= found.network:
        return _OF_RESOURCE[resource]
    if found.network > found.own_latency:
        return FaultClass.NETWORK
    surge = found.anomalies.rise(MetricKind.REQUESTS)
    if not changed and (service_kind in _SHARED_STORES or surge >= found.latency > 0.0):
        return FaultClass.OVERLOAD
    return FaultClass.LATENCY if found.latency > 0.0 or symptom is not None else FaultClass.ERRORS


def cause_of(fault: FaultClass, change_kind: str | None) -> Cause:
    """The product's cause for a fault; `change_kind` is the kind of a change that matches the symptom."""
    if change_kind in _CAUSES_OF_CHANGES:
        return _CAUSES_OF_CHANGES[change_kind]
    return _CAUSES.get(fault, Cause.UNKNOWN)

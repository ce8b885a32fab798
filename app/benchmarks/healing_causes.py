"""Which causes are right for an incident of a scenario: they follow from what its timeline does. Pure.

A diagnosis is right if it names a cause that one of the faults has at the service of the
incident. A service without a fault of its own suffers from a dependency, or from what
reaches every service.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.agent.models import Cause
from app.sandbox.scenarios.document import (
    AdmissionEvent,
    BehaviourSpec,
    ConfigEvent,
    CredentialsEvent,
    EnvEvent,
    Event,
    ExternalEvent,
    FlagEvent,
    LoadEvent,
    MemoryEvent,
    NetworkEvent,
    NodeEvent,
    PlacementEvent,
    RegistryEvent,
    ReleaseEvent,
    ScaleEvent,
    SelectorEvent,
    ServiceSpec,
    TelemetryEvent,
    Topology,
)
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.judge import JudgedCause, Run

_CONFIGURATION = frozenset({Cause.BAD_CONFIG, Cause.MISSING_CONFIGURATION})
_MEMORY = frozenset({Cause.RESOURCE_LIMIT, Cause.MEMORY_LEAK})
_SATURATION = frozenset({Cause.TRAFFIC_SURGE, Cause.RESOURCE_LIMIT})
_EVERYWHERE: dict[type[Event], frozenset[Cause]] = {
    NodeEvent: frozenset({Cause.NODE_FAILURE}),
    RegistryEvent: frozenset({Cause.REGISTRY_FAILURE}),
    TelemetryEvent: frozenset({Cause.TELEMETRY_OUTAGE}),
    AdmissionEvent: frozenset({Cause.ADMISSION_REFUSAL}),
}
"""Faults that reach any service."""
_ROOM = Topology(services=(ServiceSpec(name="any"),)).pods_per_node
"""A cluster with less for each node is full at some time."""
_OF_ITS_SERVICE: dict[type[Event], frozenset[Cause]] = {
    EnvEvent: _CONFIGURATION,
    MemoryEvent: _MEMORY | _CONFIGURATION,
    PlacementEvent: frozenset({Cause.SCHEDULING_FAILURE}) | _CONFIGURATION,
    ScaleEvent: frozenset({Cause.SCALED_TO_ZERO, Cause.SCALED_TOO_LOW}) | _SATURATION,
    SelectorEvent: frozenset({Cause.DEPENDENCY_FAILURE, Cause.SERVICE_ROUTING}),
}


def answers(variant: Variant, run: Run) -> tuple[JudgedCause, ...]:
    """The diagnoses of a run that name a cause, judged; "unknown" is no answer."""
    return tuple(
        JudgedCause(confidence=one.confidence, right=one.cause in right_causes(variant, one.service))
        for one in run.diagnoses
        if one.cause is not Cause.UNKNOWN
    )


def right_causes(variant: Variant, service: str) -> frozenset[Cause]:
    """The causes that a diagnosis of this service's incident may name; none in a control."""
    faults = [event for event in variant.events if event.role == "fault"]
    topology = variant.scenario.topology
    spec = next((one for one in topology.services if one.name == service), None)
    found = set(_from_the_start(spec)) if variant.fault_at is not None else set()
    calls = {call.to for call in spec.calls} if spec is not None else set()
    elsewhere = False
    for event in faults:
        own = frozenset(_at(event, variant, spec, service))
        found |= own
        # What reaches every service reaches those that this one calls as well; services beside those
        # of the file call each other.
        elsewhere = elsewhere or not own or (type(event) in _EVERYWHERE and (spec is None or bool(calls)))
    if found or elsewhere:
        found |= set(_in_the_way(variant))
    return frozenset(found | {Cause.DEPENDENCY_FAILURE} if elsewhere else found)


def _from_the_start(spec: ServiceSpec | None) -> Iterator[Cause]:
    """What is wrong with the version that runs before anything happens."""
    if spec is not None and spec.behaviour.leak_mib_per_minute > 0:
        yield from _MEMORY


def _in_the_way(variant: Variant) -> Iterator[Cause]:
    """What keeps more pods from starting, whatever they are needed for."""
    if any(isinstance(event, AdmissionEvent) and event.refuses for event in variant.events):
        yield Cause.ADMISSION_REFUSAL
    if variant.scenario.topology.pods_per_node < _ROOM:
        yield Cause.SCHEDULING_FAILURE


def _at(event: Event, variant: Variant, spec: ServiceSpec | None, service: str) -> Iterator[Cause]:
    """The causes that a fault has at a service; none where it is somewhere else."""
    yield from _EVERYWHERE.get(type(event), ())
    topology = variant.scenario.topology
    calls = {call.to for call in spec.calls} if spec is not None else set()
    match event:
        case ReleaseEvent(service=of) if of == service:
            yield from _of_release(event)
        case ConfigEvent(config_map=name) if spec is not None and name in spec.config_maps:
            yield from _CONFIGURATION
        case FlagEvent(name=name):
            if any(flag.name == name and flag.service == service for flag in topology.flags):
                yield Cause.BAD_CONFIG
        case ExternalEvent(name=name) | CredentialsEvent(name=name) if name in calls:
            yield Cause.DEPENDENCY_FAILURE
        case NetworkEvent(caller=caller) if caller == service:
            yield from (Cause.DEPENDENCY_FAILURE, Cause.NETWORK_POLICY)
        case SelectorEvent(service=of) if of in calls:
            yield from (Cause.DEPENDENCY_FAILURE, Cause.SERVICE_ROUTING)
        case LoadEvent(service=of) if service in _reached(variant, of):
            yield from _SATURATION
        case _:
            if getattr(event, "service", None) == service:
                yield from _OF_ITS_SERVICE.get(type(event), ())


def _reached(variant: Variant, service: str) -> frozenset[str]:
    """The service with all that it calls, directly or not: load on it reaches them."""
    calls = {one.name: {call.to for call in one.calls} for one in variant.scenario.topology.services}
    found, new = {service}, {service}
    while new:
        new = {callee for one in new for callee in calls.get(one, ())} - found
        found |= new
    return frozenset(found)


def _of_release(event: ReleaseEvent) -> Iterator[Cause]:
    yield Cause.IRREVERSIBLE_RELEASE if event.irreversible else Cause.BAD_RELEASE
    behaviour: BehaviourSpec = event.behaviour
    if event.env is not None or event.config_maps is not None or event.memory_limit is not None:
        yield from _CONFIGURATION
    if event.memory_limit is not None or behaviour.leak_mib_per_minute > 0:
        yield from _MEMORY
    if behaviour.memory_mib > BehaviourSpec().memory_mib:
        yield from _MEMORY
    if event.probe is not None:
        yield Cause.PROBE_FAILURE

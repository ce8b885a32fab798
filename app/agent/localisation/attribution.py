"""Attributes a symptom to services: from where it is noticed, along the calls that explain it.

Each service passes on the share that its callees explain, and keeps the rest. This is a
walk down the call graph in which every branch is weighted by the added latency, the added
errors or the waiting that the branch contributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.metric_kinds import MetricKind, meaning_of
from app.agent.localisation.service_evidence import ServiceEvidence
from app.agent.localisation.system import ObservedSymptom

_TRUST_IN_SYMPTOM = 0.8
"""The share that starts at the symptom; the rest starts at every anomaly: calls may be missing."""

_NEGLIGIBLE = 1e-4

Place = tuple[str, MetricKind | None]
"""A service and the kind of its anomaly; None for evidence of a fault in the service itself."""


def symptom_kind(symptom: ObservedSymptom | None) -> MetricKind | None:
    """Errors or latency; None where people noticed nothing in particular."""
    if symptom is None:
        return None
    kind = meaning_of(symptom.metric).kind
    return kind if kind is MetricKind.ERRORS else MetricKind.LATENCY


def attribute(
    evidence: Mapping[str, ServiceEvidence], graph: CallGraph, symptom: ObservedSymptom | None
) -> dict[str, float]:
    """The share of the symptom that ends at each service; together 1, or 0 without any anomaly."""
    kept = dict.fromkeys(graph.services, 0.0)
    open_places = _starts(evidence, graph, symptom)
    for _ in graph.services:
        following: dict[Place, float] = {}
        for (service, kind), mass in sorted(
            open_places.items(), key=lambda item: (item[0][0], item[0][1] or "")
        ):
            if kind is None or mass < _NEGLIGIBLE:
                kept[service] += mass
                continue
            passed, ended = _step(service, kind, evidence, graph)
            for place, share in passed.items():
                following[place] = following.get(place, 0.0) + mass * share
            for name, share in ended.items():
                kept[name] += mass * share
        open_places = following
    for (service, _), mass in open_places.items():
        kept[service] += mass
    return kept


def _starts(
    evidence: Mapping[str, ServiceEvidence], graph: CallGraph, symptom: ObservedSymptom | None
) -> dict[Place, float]:
    """Where the symptom starts: where people noticed it, and at every anomaly of its kind.

    The more services are behind an anomaly, the larger is its share of the symptom that people notice.
    """
    kind = symptom_kind(symptom)
    starts: dict[Place, float] = {}
    for service, found in evidence.items():
        behind = len(graph.behind(service))
        if kind is not MetricKind.ERRORS:
            starts[service, MetricKind.LATENCY] = behind * found.latency * found.felt
            starts[service, MetricKind.OUTGOING_LATENCY] = behind * found.waiting
        if kind is not MetricKind.LATENCY:
            starts[service, MetricKind.ERRORS] = behind * found.errors
        starts[service, None] = found.local.strength
    total = math.fsum(starts.values())
    noticed = symptom is not None and _shows(symptom.service, kind, evidence, graph)
    rest = 1.0 - _TRUST_IN_SYMPTOM if noticed else 1.0
    starts = {place: rest * strength / total for place, strength in starts.items() if strength > 0.0}
    if symptom is not None and noticed:
        place = symptom.service, kind
        starts[place] = starts.get(place, 0.0) + _TRUST_IN_SYMPTOM
    return starts


def _shows(
    service: str, kind: MetricKind | None, evidence: Mapping[str, ServiceEvidence], graph: CallGraph
) -> bool:
    """Whether the series of the service show the symptom that people noticed, so that it can be followed."""
    own = evidence[service]
    strength = own.errors if kind is MetricKind.ERRORS else max(own.latency, own.waiting)
    return strength > 0.0 and bool(graph.callees(service))


def _step(
    service: str, kind: MetricKind, evidence: Mapping[str, ServiceEvidence], graph: CallGraph
) -> tuple[dict[Place, float], dict[str, float]]:
    """The shares of an anomaly that pass on to callees, and the shares that end at a service."""
    own = evidence[service]
    if kind is MetricKind.ERRORS:
        passed: dict[Place, float] = {
            (callee, MetricKind.ERRORS): share for callee, share in own.errors_from.items()
        }
        ended = dict(own.hidden_errors_from)
        ended[service] = 1.0 - math.fsum(passed.values()) - math.fsum(ended.values())
        return passed, ended
    explained = own.latency_from if kind is MetricKind.LATENCY else own.waiting_from
    passed = {(callee, MetricKind.LATENCY): share for callee, share in explained.items()}
    rest = 1.0 - math.fsum(passed.values())
    behind = {callee: evidence[callee].network for callee in graph.callees(service)}
    total = math.fsum(behind.values())
    if not total or own.waiting <= 0.0:
        return passed, {service: rest}
    network = own.waiting_part if kind is MetricKind.LATENCY else 1.0
    ended = {callee: rest * network * strength / total for callee, strength in behind.items()}
    ended[service] = rest * (1.0 - network)
    return passed, ended

"""Ranks the services that can be the root cause of a symptom.

The score of a service is a logarithm of odds: the share of the symptom that ends at it,
plus its anomalies that others do not explain, plus a change shortly before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.agent.localisation.anomalies import anomalies_of
from app.agent.localisation.attribution import attribute, symptom_kind
from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.fault_classes import fault_of
from app.agent.localisation.findings import findings_against, findings_for
from app.agent.localisation.metric_kinds import MetricKind
from app.agent.localisation.service_evidence import ServiceEvidence, evidence_of
from app.agent.localisation.system import (
    Localisation,
    ObservedChange,
    ObservedSystem,
    RootCauseCandidate,
)

_LEAST_SHARE = 0.02
"""The share of the symptom that any service may have caused unseen: metrics and calls have gaps."""

_LEAST_SHARE_WITHOUT_CALLS = 0.1
"""The same where no call is known, so that effects and causes look alike."""

_OTHER_KIND = 0.3
"""How much latency counts when people noticed errors, and the reverse: faults often show as both."""

_USUAL_LAG_SECONDS = 300.0
"""The mean time from a change that causes a symptom to the symptom: rollouts and alerts take minutes."""

_WINDOW_SECONDS = 3600.0
"""Changes without a connection are spread evenly over the hour before a symptom."""

_RECORDED_LATE_SECONDS = 60.0
"""A change may be recorded this much after its effect: rollouts are reported at their end."""

_SHARPNESS = 1.5
"""Services fail for one reason more often than the independent shares of evidence say."""

_LEAST_CONFIDENCE = 0.5
"""Below it the first candidate is more likely wrong than right: the answer is unknown."""

_OUTSIDE = 0.02
"""The minimum odds that the cause is none of the services, such as a node or a third party."""

_OUTSIDE_SCORE = math.log(1 / 3)
""""None of the services" is as likely as a service with a third of the symptom and no other anomaly."""

_DESCRIBED = 5
"""How many candidates get their evidence in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examined:
    """A service with all that its score is made of."""

    service: str
    service_kind: str
    evidence: ServiceEvidence
    share: float
    change: ObservedChange | None
    change_strength: float
    score: float


def localise(system: ObservedSystem) -> Localisation:
    """The candidates for the root cause, with confidence and evidence, or unknown."""
    graph = _graph_of(system)
    evidence = evidence_of(anomalies_of(system, graph.services), graph)
    examined = sorted(_examine(system, graph, evidence), key=lambda one: (-one.score, one.service))
    confidences = _confidences([one.score for one in examined])
    kind = symptom_kind(system.symptom)
    candidates = []
    for place, (one, confidence) in enumerate(zip(examined, confidences, strict=True)):
        described = place < _DESCRIBED
        candidates.append(
            RootCauseCandidate(
                service=one.service,
                score=one.score,
                confidence=confidence,
                fault=fault_of(one.evidence, one.service_kind, kind, one.change_strength > 0.0),
                evidence_for=findings_for(
                    one.service, one.share, evidence, graph, one.change, system.started_at
                )
                if described
                else (),
                evidence_against=findings_against(one.evidence, one.share) if described else (),
            )
        )
    # Without any anomaly there is nothing to explain, regardless of changes.
    found = any(one.share for one in examined) and confidences[0] >= _LEAST_CONFIDENCE
    return Localisation(candidates=tuple(candidates), unknown=not found)


def _graph_of(system: ObservedSystem) -> CallGraph:
    """Every service that is named anywhere, and the calls between them."""
    named = {service for service, _ in system.series} | {change.service for change in system.changes}
    if system.symptom is None:
        return CallGraph(system.kinds.keys() | named, system.calls)
    graph = CallGraph(system.kinds.keys() | named | {system.symptom.service}, system.calls)
    return graph.with_assumed_calls(system.symptom.service)


def _examine(
    system: ObservedSystem, graph: CallGraph, evidence: Mapping[str, ServiceEvidence]
) -> list[_Examined]:
    shares = attribute(evidence, graph, system.symptom)
    least = _LEAST_SHARE if system.calls else _LEAST_SHARE_WITHOUT_CALLS
    kind = symptom_kind(system.symptom)
    examined = []
    for name in graph.services:
        change = _latest_change(name, system)
        strength = change_strength(change, system.started_at)
        score = math.log(least + shares[name]) + _own_strength(evidence[name], kind) + strength
        examined.append(
            _Examined(
                service=name,
                service_kind=system.kinds.get(name, ""),
                evidence=evidence[name],
                share=shares[name],
                change=change,
                change_strength=strength,
                # Sums differ in their last digits with the order of services; equal scores stay equal.
                score=round(score, 9),
            )
        )
    return examined


def _own_strength(found: ServiceEvidence, kind: MetricKind | None) -> float:
    """The anomalies of the service that no other service explains."""
    latency = found.own_latency * (_OTHER_KIND if kind is MetricKind.ERRORS else 1.0)
    errors = found.own_errors * (_OTHER_KIND if kind is MetricKind.LATENCY else 1.0)
    return found.local.strength + found.network + latency + errors


def _latest_change(service: str, system: ObservedSystem) -> ObservedChange | None:
    """The last change of a service before the symptom."""
    latest = system.started_at + _RECORDED_LATE_SECONDS
    found = [c for c in system.changes if c.service == service and c.at <= latest]
    return max(found, key=lambda c: (c.at, c.kind), default=None)


def change_strength(change: ObservedChange | None, started_at: float) -> float:
    """The logarithm of how much better a change before the symptom fits as its cause than as a coincidence.

    The lag of a cause is exponential, coincidences are even. A change that fits worse than
    a coincidence counts nothing, because the service may have failed without it.
    """
    if change is None:
        return 0.0
    lag = max(0.0, started_at - change.at)
    return max(0.0, math.log(_WINDOW_SECONDS / _USUAL_LAG_SECONDS) - lag / _USUAL_LAG_SECONDS)


def _confidences(scores: Sequence[float]) -> list[float]:
    """The probability of each service; together less than 1, because the cause may be none of them."""
    best = max(scores, default=0.0)
    odds = [math.exp(_SHARPNESS * (score - best)) for score in scores]
    total = math.fsum(odds)
    total += max(_OUTSIDE * total, math.exp(min(0.0, _SHARPNESS * (_OUTSIDE_SCORE - best))))
    return [value / total for value in odds]

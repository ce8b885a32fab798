"""The evidence about each service, before the symptom is attributed to any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.localisation.anomalies import Anomalies, ServiceAnomalies
from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.contributions import (
    Shares,
    error_shares,
    latency_shares,
    outgoing_latency_shares,
)
from app.agent.localisation.deviation import SURE
from app.agent.localisation.local_faults import LocalFault, local_fault
from app.agent.localisation.metric_kinds import MetricKind
from app.agent.localisation.network_delay import network_strengths, outgoing_strength, waiting_part

_UNCONFIRMED = 0.5
"""How much added latency counts that no caller shows: callers may be unmeasured, or may not wait."""

_OWN_ERRORS = 1.0
"""The weight of a service's own fault behind its errors, beside callees whose errors are not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEvidence:
    """The evidence about one service; strengths are logarithms, shares 0..1.

    `latency_from`, `errors_from` and `waiting_from` are the shares of its anomaly that
    each callee explains. `waiting_part` is how much of its added latency
    its waiting can make up. `hidden_errors_from` are those of callees without error metrics
    that show another fault. `felt` is how much of its added latency its callers show.
    `latency_seen` and `errors_seen` are the shares of its callees for which the metric exists,
    including itself: without them a callee without anomaly is not evidence.
    """

    anomalies: ServiceAnomalies
    local: LocalFault
    latency_from: Shares
    errors_from: Shares
    hidden_errors_from: Shares
    waiting_from: Shares
    waiting: float
    waiting_part: float
    network: float
    felt: float
    latency_seen: float
    errors_seen: float

    @property
    def latency(self) -> float:
        return self.anomalies.rise(MetricKind.LATENCY)

    @property
    def errors(self) -> float:
        return self.anomalies.rise(MetricKind.ERRORS)

    @property
    def own_latency(self) -> float:
        """The strength of the added latency that is its own."""
        kept = self.latency * (1.0 - math.fsum(self.latency_from.values())) * self.felt * self.latency_seen
        kept *= 1.0 - self.waiting_part * (1.0 - math.fsum(self.waiting_from.values()))
        return min(kept, SURE)

    @property
    def own_errors(self) -> float:
        """The strength of the added errors that are its own."""
        explained = math.fsum(self.errors_from.values()) + math.fsum(self.hidden_errors_from.values())
        return min(self.errors * (1.0 - explained) * self.errors_seen, SURE)


def evidence_of(anomalies: Anomalies, graph: CallGraph) -> dict[str, ServiceEvidence]:
    """The evidence about every service of the graph."""
    names = graph.services
    network = network_strengths(anomalies, graph)
    local = {name: local_fault(name, anomalies, graph) for name in names}
    latency = {name: latency_shares(name, anomalies, graph) for name in names}
    errors = {name: error_shares(name, anomalies, graph) for name in names}
    waiting = {name: outgoing_latency_shares(name, anomalies, graph) for name in names}
    shown = {
        name: local[name].strength
        + min(anomalies[name].rise(MetricKind.LATENCY) * (1.0 - math.fsum(latency[name].values())), SURE)
        for name in names
    }
    return {
        name: ServiceEvidence(
            anomalies=anomalies[name],
            local=local[name],
            latency_from=latency[name],
            errors_from=errors[name],
            hidden_errors_from=_hidden_errors(name, anomalies, graph, errors[name], shown, local[name]),
            waiting_from=waiting[name],
            waiting=outgoing_strength(anomalies[name]),
            waiting_part=waiting_part(name, anomalies, graph),
            network=min(network.get(name, 0.0), SURE),
            felt=_felt(name, anomalies, graph, latency, waiting),
            latency_seen=_seen(name, MetricKind.LATENCY, anomalies, graph),
            errors_seen=_seen(name, MetricKind.ERRORS, anomalies, graph),
        )
        for name in names
    }


def _hidden_errors(
    service: str,
    anomalies: Anomalies,
    graph: CallGraph,
    explained: Shares,
    shown: Mapping[str, float],
    local: LocalFault,
) -> Shares:
    """The shares of otherwise unexplained errors that callees without an error metric may have caused."""
    if anomalies[service].rise(MetricKind.ERRORS) <= 0.0:
        return {}
    weights = {
        callee: shown[callee]
        for callee in graph.callees(service)
        if anomalies[callee].measured and not anomalies[callee].has(MetricKind.ERRORS) and shown[callee] > 0.0
    }
    rest = 1.0 - math.fsum(explained.values())
    total = math.fsum(weights.values()) + _OWN_ERRORS + local.strength
    return {callee: rest * weight / total for callee, weight in weights.items()}


def _felt(
    service: str,
    anomalies: Anomalies,
    graph: CallGraph,
    latency: Mapping[str, Shares],
    waiting: Mapping[str, Shares],
) -> float:
    """The largest share of a caller's anomaly that this service explains; 1 for a service without callers."""
    callers = graph.callers(service)
    if not callers:
        return 1.0
    found = []
    for caller in callers:
        own = anomalies[caller]
        for kind, shares in ((MetricKind.LATENCY, latency), (MetricKind.OUTGOING_LATENCY, waiting)):
            if own.rise(kind) > 0.0:
                found.append(shares[caller].get(service, 0.0))
        if own.rise(MetricKind.LATENCY) <= 0.0 and own.rise(MetricKind.OUTGOING_LATENCY) <= 0.0:
            found.append(_UNCONFIRMED)
    return max(found)


def _seen(service: str, kind: MetricKind, anomalies: Anomalies, graph: CallGraph) -> float:
    callees = graph.possible_callees(service)
    return (1 + sum(anomalies[callee].has(kind) for callee in callees)) / (1 + len(callees))

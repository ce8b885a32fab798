"""Delays between a caller and a callee: the caller waits longer than the callee works."""

from __future__ import annotations

import math

from app.agent.localisation.anomalies import Anomalies, ServiceAnomalies
from app.agent.localisation.call_graph import CallGraph, calls_per_request, shares_of_calls
from app.agent.localisation.contributions import outgoing_latency_shares, tail_of, visibility
from app.agent.localisation.metric_kinds import MetricKind

_UNMEASURED = 0.25
"""How much a callee without any measurement counts: nothing clears it, but nothing points at it either."""

_ROUNDING = 1e-9
"""A smaller remainder than this is the noise of a sum."""

_LEAST_FELT = 0.25
"""How much added outgoing latency counts that the caller's own latency does not show."""


def unexplained_waiting(caller: str, anomalies: Anomalies, graph: CallGraph) -> float:
    """The strength of a service's added outgoing latency that no slower callee explains."""
    own = anomalies[caller]
    explained = math.fsum(outgoing_latency_shares(caller, anomalies, graph).values())
    left = outgoing_strength(own) * (1.0 - explained)
    return left if left > _ROUNDING else 0.0


def outgoing_strength(own: ServiceAnomalies) -> float:
    """The strength of the added outgoing latency, as far as the service's own latency grew with it."""
    strength = own.rise(MetricKind.OUTGOING_LATENCY)
    if strength <= 0.0 or not own.has(MetricKind.LATENCY):
        return strength
    outgoing, handled = own.added(MetricKind.OUTGOING_LATENCY), own.added(MetricKind.LATENCY)
    ratios = [handled[s] / outgoing[s] for s in outgoing.keys() & handled.keys() if outgoing[s] > 0]
    return strength * (max(_LEAST_FELT, min(1.0, max(ratios))) if ratios else 1.0)


def waiting_part(caller: str, anomalies: Anomalies, graph: CallGraph) -> float:
    """The share (0..1) of a service's added latency that waiting for its outgoing calls can make up."""
    own = anomalies[caller]
    if not own.rise(MetricKind.OUTGOING_LATENCY) or not own.rise(MetricKind.LATENCY):
        return 0.0
    outgoing, handled = own.added(MetricKind.OUTGOING_LATENCY), own.added(MetricKind.LATENCY)
    ratios = [outgoing[s] / handled[s] for s in outgoing.keys() & handled.keys() if handled[s] > 0]
    calls = math.fsum(calls_per_request(callee, anomalies, graph) for callee in graph.callees(caller))
    return min(1.0, max(0.0, max(ratios, default=1.0)) * max(1.0, calls))


def network_strengths(anomalies: Anomalies, graph: CallGraph) -> dict[str, float]:
    """For each service, how strongly the waiting of its callers indicates the network in front of it.

    A caller that does not wait, although a visible share of its calls goes to a callee, rules that callee
    out. A callee that explains the waiting of all callers is the most likely.
    """
    waiting = {
        service: unexplained_waiting(service, anomalies, graph)
        for service in graph.services
        if anomalies[service].has(MetricKind.OUTGOING_LATENCY)
    }
    total = math.fsum(waiting.values())
    if not total:
        return {}
    visible: dict[str, dict[str, float]] = {}
    for caller in waiting:
        tail = tail_of(anomalies[caller])
        for callee, share in shares_of_calls(caller, anomalies, graph).items():
            visible.setdefault(callee, {})[caller] = visibility(share, tail)
    found = {}
    for callee, callers in visible.items():
        seen = math.fsum(callers.values())
        explains = math.fsum(waiting[caller] * share for caller, share in callers.items())
        if seen and explains:
            known = 1.0 if anomalies[callee].measured else _UNMEASURED
            found[callee] = known * (explains / seen) * (explains / total)
    return found

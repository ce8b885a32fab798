"""How much of a caller's anomaly its callees explain."""

from __future__ import annotations

import math

from app.agent.localisation.anomalies import Anomalies, ServiceAnomalies
from app.agent.localisation.call_graph import CallGraph, calls_per_request, shares_of_calls
from app.agent.localisation.metric_kinds import MEAN, MetricKind

Shares = dict[str, float]
"""For each callee the share of its caller's anomaly that it explains; together at most 1."""


_IN_A_CIRCLE = 0.5
"""How much a callee explains that calls its caller in turn: each may be the cause of the other's anomaly."""


def latency_shares(caller: str, anomalies: Anomalies, graph: CallGraph) -> Shares:
    """The shares of a service's added latency that the added latency of its callees explains."""
    return _shares(MetricKind.LATENCY, caller, anomalies, graph)


def error_shares(caller: str, anomalies: Anomalies, graph: CallGraph) -> Shares:
    """The shares of a service's added errors that failed calls of its callees explain."""
    return _shares(MetricKind.ERRORS, caller, anomalies, graph)


def _shares(kind: MetricKind, caller: str, anomalies: Anomalies, graph: CallGraph) -> Shares:
    """The increase of the callees per request of the caller, as a share of the increase of the caller.

    A callee whose measurements stopped can explain everything: calls to it fail or time out.
    """
    own = anomalies[caller]
    if own.rise(kind) <= 0.0:
        return {}
    found = {}
    for callee in graph.callees(caller):
        if anomalies[callee].silent:
            found[callee] = 1.0
        elif anomalies[callee].rise(kind) > 0.0:
            share = _largest_ratio(own, anomalies[callee], kind, kind)
            found[callee] = min(1.0, share * calls_per_request(callee, anomalies, graph))
            if caller in graph.behind(callee):
                found[callee] *= _IN_A_CIRCLE
    return at_most_one(found)


def outgoing_latency_shares(caller: str, anomalies: Anomalies, graph: CallGraph) -> Shares:
    """The shares of the added latency of a service's outgoing calls that slower callees explain.

    A callee moves a quantile of all calls only if its share of them exceeds the tail.
    """
    own = anomalies[caller]
    if own.rise(MetricKind.OUTGOING_LATENCY) <= 0.0:
        return {}
    tail = tail_of(own)
    found = {}
    for callee, calls in shares_of_calls(caller, anomalies, graph).items():
        if anomalies[callee].rise(MetricKind.LATENCY) > 0.0:
            ratio = _largest_ratio(own, anomalies[callee], MetricKind.OUTGOING_LATENCY, MetricKind.LATENCY)
            found[callee] = min(1.0, ratio * visibility(calls, tail))
    return at_most_one(found)


def visibility(share_of_calls: float, tail: float) -> float:
    """0..1: how much a callee with this share of the calls moves a statistic with this tail."""
    return share_of_calls / (share_of_calls + tail) if share_of_calls > 0.0 else 0.0


def tail_of(service: ServiceAnomalies) -> float:
    """The share of calls above the highest quantile of the outgoing latency; 1 for an average."""
    statistics = [s.meaning.statistic for s in service.by_kind.get(MetricKind.OUTGOING_LATENCY, ())]
    return 1.0 - max(statistics, default=MEAN)


def _largest_ratio(
    caller: ServiceAnomalies, callee: ServiceAnomalies, of_caller: MetricKind, of_callee: MetricKind
) -> float:
    """The increase of the callee, as a multiple of the increase of the caller, in the same statistic.

    Averages are preferred, because they add up along a call. Without a common statistic the result is 0.
    """
    own, passed = caller.added(of_caller), callee.added(of_callee)
    shared = sorted(own.keys() & passed.keys())
    if MEAN in shared:
        shared = [MEAN]
    return max((passed[s] / own[s] for s in shared if own[s] > 0 and passed[s] > 0), default=0.0)


def at_most_one(shares: Shares) -> Shares:
    """The shares without zeros, scaled down where they explain more than everything."""
    total = math.fsum(shares.values())
    return {name: share / max(1.0, total) for name, share in shares.items() if share > 0.0}

"""The evidence for and against a candidate, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from app.agent.evidence.format import share as in_percent
from app.agent.localisation.anomalies import DeviatingSeries
from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.contributions import Shares
from app.agent.localisation.metric_kinds import MetricKind
from app.agent.localisation.service_evidence import ServiceEvidence
from app.agent.localisation.system import ObservedChange
from app.durations import span

_MENTIONED = 0.05
"""Smaller shares and strengths are not worth a sentence."""

_SHOWN = (
    MetricKind.ERRORS,
    MetricKind.LATENCY,
    MetricKind.CPU,
    MetricKind.MEMORY,
    MetricKind.DISK,
    MetricKind.QUEUE,
)


def findings_for(
    service: str,
    share: float,
    evidence: Mapping[str, ServiceEvidence],
    graph: CallGraph,
    change: ObservedChange | None,
    started_at: float,
) -> tuple[str, ...]:
    """What makes the service a likely root cause."""
    found = evidence[service]
    said = []
    if share >= _MENTIONED:
        said.append(f"{in_percent(share)} of the symptom ends at it")
    said.extend(_movement(series) for kind in _SHOWN if (series := found.anomalies.strongest(kind)))
    said.extend(
        _explains({name: other.latency_from.get(service, 0.0) for name, other in evidence.items()}, "latency")
    )
    said.extend(
        _explains({name: other.errors_from.get(service, 0.0) for name, other in evidence.items()}, "errors")
    )
    if found.network >= _MENTIONED:
        waiting = [name for name in graph.callers(service) if evidence[name].waiting > 0.0]
        said.append(f"{', '.join(waiting)} wait longer for their calls, which no slower callee explains")
    if found.local.lost_callees:
        said.append(
            f"it receives its usual requests, but calls {', '.join(found.local.lost_callees)} far less often"
        )
    if found.local.silent:
        said.append("its measurements stopped while those of other services continued")
    if change is not None:
        lag = started_at - change.at
        when = f"{span(timedelta(seconds=lag))} {'before' if lag >= 0 else 'after'} the symptom"
        said.append(f"a {change.kind} change of it {when}")
    return tuple(said)


def findings_against(found: ServiceEvidence, share: float) -> tuple[str, ...]:
    """What makes the service an unlikely root cause."""
    said = []
    if not found.anomalies.measured and not found.local.silent:
        said.append("nothing of it is measured")
    elif not any(found.anomalies.strongest(kind) for kind in _SHOWN) and not found.local.silent:
        said.append("its errors, latency and resources are as usual")
    for shares, what in ((found.latency_from, "latency"), (found.errors_from, "errors")):
        said.extend(_explained(shares, what))
    if found.latency > 0.0 and found.felt < _MENTIONED:
        said.append("its added latency is too small to explain that of its callers")
    if share < _MENTIONED:
        said.append("the symptom does not lead to it along the known calls")
    return tuple(said)


def _movement(series: DeviatingSeries) -> str:
    moved = series.deviation
    verb = "rose" if moved.rises else "fell"
    name = series.metric.replace("_", " ")
    if series.meaning.is_share:
        return f"{name} {verb} from {in_percent(moved.before)} to {in_percent(moved.now)}"
    return f"{name} {verb} from {moved.before:.3g} to {moved.now:.3g}"


def _explains(shares: Shares, what: str) -> list[str]:
    """The callers whose anomaly the service explains most."""
    most = sorted(shares, key=lambda name: (-shares[name], name))[:2]
    return [
        f"it explains {in_percent(shares[name])} of the added {what} of {name}"
        for name in most
        if shares[name] >= _MENTIONED
    ]


def _explained(shares: Shares, what: str) -> list[str]:
    total = math.fsum(shares.values())
    if total < _MENTIONED:
        return []
    main = max(sorted(shares), key=lambda name: shares[name])
    return [f"its callees explain {in_percent(total)} of its added {what}, most of it {main}"]

"""Evidence of a fault in the service itself: its resources, its silence, the calls it stopped making."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.agent.localisation.anomalies import Anomalies
from app.agent.localisation.call_graph import CallGraph
from app.agent.localisation.deviation import SURE
from app.agent.localisation.metric_kinds import MetricKind

RESOURCES = (MetricKind.CPU, MetricKind.MEMORY, MetricKind.DISK, MetricKind.QUEUE)

_DROP = 2.0
"""Calls that fell by less than this factor, compared with the requests, do not indicate a failing caller."""

_FEWEST = 0.01
"""The least share of the usual calls that counts as a level; below it, the calls ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFault:
    """The strengths of local evidence; `resources` has the kinds that rose more than the traffic."""

    resources: dict[MetricKind, float]
    lost_calls: float
    lost_callees: tuple[str, ...]
    silent: bool

    @property
    def strength(self) -> float:
        return (
            math.fsum(min(found, SURE) for found in self.resources.values())
            + min(self.lost_calls, SURE)
            + (SURE if self.silent else 0.0)
        )


def local_fault(service: str, anomalies: Anomalies, graph: CallGraph) -> LocalFault:
    """The local evidence about a service."""
    own = anomalies[service]
    traffic = own.rise(MetricKind.REQUESTS)
    lost = _lost_calls(service, anomalies, graph)
    return LocalFault(
        resources={kind: found for kind in RESOURCES if (found := own.rise(kind) - traffic) > 0.0},
        lost_calls=max(lost.values(), default=0.0),
        lost_callees=tuple(lost),
        silent=own.silent,
    )


def _lost_calls(service: str, anomalies: Anomalies, graph: CallGraph) -> dict[str, float]:
    """The callees that get fewer calls although the service gets its requests: it fails before it calls.

    Only callees that get most of their calls from this service count.
    """
    own = anomalies[service].requests
    if own is None or own.before <= 0 or own.mean <= 0:
        return {}
    level = own.mean / own.before
    found = {}
    for callee in graph.callees(service):
        received = anomalies[callee].requests
        if received is None or not received.dropped or received.before <= 0:
            continue
        everyone = math.fsum(anomalies[c].usual_requests or 0.0 for c in graph.callers(callee))
        if own.before < everyone / 2:
            continue
        lost = math.log(level / max(received.mean / received.before, _FEWEST)) - math.log(_DROP)
        if lost > 0.0:
            found[callee] = lost
    return found

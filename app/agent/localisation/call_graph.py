"""Who calls whom, and how often."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from app.agent.localisation.anomalies import Anomalies


class CallGraph:
    """The calls between services; calls may be missing, and may form cycles."""

    def __init__(self, services: Iterable[str], calls: Iterable[tuple[str, str]]) -> None:
        callees: dict[str, set[str]] = {name: set() for name in services}
        callers: dict[str, set[str]] = {name: set() for name in callees}
        for caller, callee in calls:
            if caller != callee:
                callees.setdefault(caller, set()).add(callee)
                callers.setdefault(callee, set()).add(caller)
        self._callees: Mapping[str, Sequence[str]] = {name: sorted(found) for name, found in callees.items()}
        self._callers: Mapping[str, Sequence[str]] = {name: sorted(found) for name, found in callers.items()}
        self.services: Sequence[str] = sorted(self._callees.keys() | self._callers.keys())

    def callees(self, service: str) -> Sequence[str]:
        return self._callees.get(service, ())

    def callers(self, service: str) -> Sequence[str]:
        return self._callers.get(service, ())

    def behind(self, service: str) -> set[str]:
        """The services that a service calls, directly or not, and itself."""
        seen = {service}
        pending = [service]
        while pending:
            following = [callee for callee in self.callees(pending.pop()) if callee not in seen]
            seen.update(following)
            pending.extend(following)
        return seen

    @property
    def empty(self) -> bool:
        """Whether no call is known."""
        return not any(self._callees.values())

    def possible_callees(self, service: str) -> Sequence[str]:
        """The callees of a service; every other service where no call is known at all."""
        return [other for other in self.services if other != service] if self.empty else self.callees(service)

    def with_assumed_calls(self, caller: str) -> CallGraph:
        """The graph in which a service that occurs in no known call calls every other service.

        Other services are behind a symptom that people noticed; without known calls the
        amounts of latency and errors decide which of them explain it.
        """
        if self.callees(caller) or self.callers(caller):
            return self
        known = [(a, b) for a in self.services for b in self.callees(a)]
        return CallGraph(self.services, [*known, *((caller, other) for other in self.services)])


def calls_per_request(callee: str, anomalies: Anomalies, graph: CallGraph) -> float:
    """How often a caller calls a callee while it handles one request; 1 where requests are not measured.

    The requests of a callee are shared among its callers in proportion to their own requests.
    """
    received = anomalies[callee].usual_requests
    callers = math.fsum(anomalies[caller].usual_requests or 0.0 for caller in graph.callers(callee))
    return received / callers if received is not None and callers else 1.0


def shares_of_calls(caller: str, anomalies: Anomalies, graph: CallGraph) -> dict[str, float]:
    """For each callee its share of the caller's calls; an unmeasured callee gets the mean share."""
    own = anomalies[caller].usual_requests
    volumes: dict[str, float | None] = {}
    for callee in graph.callees(caller):
        measured = own is not None and anomalies[callee].usual_requests is not None
        volumes[callee] = (own or 0.0) * calls_per_request(callee, anomalies, graph) if measured else None
    known = [volume for volume in volumes.values() if volume is not None]
    mean = math.fsum(known) / len(known) if known else 1.0
    total = math.fsum(mean if volume is None else volume for volume in volumes.values())
    if not total:
        return dict.fromkeys(volumes, 0.0)
    return {callee: (mean if volume is None else volume) / total for callee, volume in volumes.items()}

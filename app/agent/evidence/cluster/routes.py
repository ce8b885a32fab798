"""Changes of Services, Ingresses and NetworkPolicies as causes. Pure.

They take effect within seconds: the symptom of one begins at once, or it is not its symptom.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from app.agent.evidence.facts import LOOKBACK, current_pods
from app.agent.evidence.format import relative
from app.agent.evidence.onset.departure import departure
from app.agent.evidence.symptoms import incident_onset
from app.agent.models import Cause, Evidence
from app.agent.routes import NETWORK_POLICY, RouteChange, RouteEffect, RouteFault, RoutesView
from app.lists import some_of

ROUTE_CAUSES = frozenset({Cause.SERVICE_ROUTING, Cause.NETWORK_POLICY})

_TAKES_EFFECT = timedelta(minutes=3)
"""Connections that are open may outlive the change, and a measurement covers the time before it."""
_DIFFERENCES, _SERVICES = 3, 3


def cause_of(change: RouteChange) -> Cause:
    """The cause that it is one of."""
    return Cause.NETWORK_POLICY if change.kind == NETWORK_POLICY else Cause.SERVICE_ROUTING


def routes_of(evidence: Evidence) -> RoutesView:
    """The routes that were read; none without a workload."""
    workload = evidence.workload
    return RoutesView() if workload is None or workload.routes is None else workload.routes


def route_candidates(evidence: Evidence) -> tuple[RouteChange, ...]:
    """The changes just before the symptom that can keep requests from the service or its dependencies.

    A change that may be older, because the watch was interrupted, does not count.
    """
    began, left = incident_onset(evidence), departure(evidence)
    latest = began if left is None else max(began, left.by)
    earliest = (began if left is None else left.after) - _TAKES_EFFECT
    return tuple(
        change
        for change in concerning(evidence, related(evidence))
        if change.effect is RouteEffect.CUTS
        and earliest <= (change.not_before or change.at)
        and change.at < latest
    )


def related(evidence: Evidence) -> frozenset[str]:
    """The service and those that it calls, in its environment."""
    home = evidence.key.environment
    return frozenset(one.service for one in (evidence.key, *evidence.dependencies) if one.environment == home)


def concerning(evidence: Evidence, services: Iterable[str]) -> tuple[RouteChange, ...]:
    """The changes within the look-back window that concern one of these services, newest first."""
    wanted, began = frozenset(services), incident_onset(evidence)
    return tuple(
        change
        for change in routes_of(evidence).changes
        if wanted.intersection(change.services) and began - LOOKBACK <= change.at <= evidence.at
    )


def standing_faults(evidence: Evidence) -> tuple[RouteFault, ...]:
    """The objects that currently send requests to no pod, although pods are ready.

    An object last written long before the symptom is unchanged since the service was healthy.
    """
    workload, began = evidence.workload, incident_onset(evidence)
    if workload is None or not any(pod.ready for pod in current_pods(workload)):
        return ()
    return tuple(
        one for one in routes_of(evidence).faults if began - LOOKBACK <= one.written_at < evidence.at
    )


def change_in_words(change: RouteChange, evidence: Evidence) -> str:
    """Object, author, time, difference, and which dependency it is about."""
    by = f" by {change.by}" if change.by is not None else ""
    when = relative(change.at, incident_onset(evidence), "the incident started")
    if change.not_before is not None:
        after = relative(change.not_before, incident_onset(evidence), "the incident started")
        when = f"between {after} and {when} (the watch was interrupted)"
    what = f": {'; '.join(change.difference[:_DIFFERENCES])}" if change.difference else ""
    unseen = " (changed fields unknown)" if change.effect is RouteEffect.UNKNOWN else ""
    about = ""
    if evidence.key.service not in change.services:
        called = sorted(related(evidence).intersection(change.services))
        kind = "dependency" if len(called) == 1 else "dependencies"
        about = f", which affects the {kind} {some_of(called, _SERVICES)}," if called else ""
    return f"{change}{about} was changed{by} {when}{unseen}{what}"


def unchanged_words(routes: RoutesView, since: datetime, most: int) -> str | None:
    """The objects that are as they were before the incident; None where there is none."""
    still = [one for one in routes.objects if one.unchanged_since < since]
    if not still:
        return None
    newest = max(one.unchanged_since for one in still)
    return f"unchanged since {newest:%Y-%m-%d %H:%M:%S} UTC: {some_of([str(one) for one in still], most)}"

"""The circuit breakers of a service and of the cluster."""

from __future__ import annotations

from datetime import datetime

from app.agent.freshness.clock_jumps import ahead
from app.agent.guardrails.circuit_breaker import Tried, open_reason, since_closed
from app.agent.guardrails.limits.clusters import in_words
from app.agent.guardrails.limits.history import History, Proposed
from app.agent.guardrails.limits.terms import Excess, LimitName, Limits


def service_circuit_open(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether the circuit breaker of the service is open for this incident."""
    if limits.service_breaker is None:
        return None
    tried = [
        Tried(
            intent_id=past.intent_id,
            incident_id=past.incident_id,
            began_at=past.began_at,
            helped=past.helped,
        )
        for past in history.service
        if past.key == proposed.key and past.undoes is None
    ]
    why = open_reason(
        since_closed(tried, _past_closing(history.service_closed_at, at)),
        limits.service_breaker,
        proposed.incident_id,
        at,
    )
    if why is None:
        return None
    return Excess(limit=LimitName.SERVICE_CIRCUIT, reason=f"the circuit breaker of {proposed.key} is {why}")


def cluster_circuit_open(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether the circuit breaker of the cluster is open for this incident."""
    if limits.cluster_breaker is None:
        return None
    why = open_reason(
        since_closed(history.cluster, _past_closing(history.cluster_closed_at, at)),
        limits.cluster_breaker,
        proposed.incident_id,
        at,
    )
    if why is None:
        return None
    cluster = in_words(limits.clusters.of(proposed.key.environment))
    return Excess(limit=LimitName.CLUSTER_CIRCUIT, reason=f"the circuit breaker of {cluster} is {why}")


def _past_closing(closed_at: datetime | None, at: datetime) -> datetime | None:
    """When a breaker was closed manually; a time in the future does not affect later actions."""
    return None if ahead(closed_at, at) else closed_at

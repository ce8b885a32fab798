"""The inputs of the limits: an action that may begin, and the earlier actions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.freshness.clock_jumps import FAR_AHEAD, ahead
from app.agent.guardrails.circuit_breaker import Tried
from app.agent.guardrails.workload_kinds import mutes
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import Action, ActionName, Cause, Incident, OutcomeKind
from app.agent.workload import ObjectRef

NAMESPACE = "namespace"
"""The parameter with the workload's namespace, of an action on an object of no namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """A record that a service was acted on, as needed for counting."""

    intent_id: IntentId
    key: ServiceKey
    namespace: str
    began_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAction:
    """One action that began, as needed to limit later ones."""

    intent_id: IntentId
    incident_id: IncidentId
    key: ServiceKey
    namespace: str
    action: ActionName
    target: ObjectRef
    parameters: tuple[tuple[str, str], ...]
    """Names and values in words, sorted by name."""
    plan_hash: str
    cause: Cause | None
    """The diagnosed cause; None if not recorded."""
    evidence: str | None
    """Fingerprint of the diagnosis's evidence; None if not recorded."""
    began_at: datetime
    outcome: OutcomeKind | None
    """None while it is in progress."""
    helped: bool | None
    """Whether the service recovered by it; None if not known yet."""
    leaves: str | None = None
    """The content hash of the target's state before it; None if unnamed."""
    reaches: str | None = None
    undoes: IntentId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """An action that may begin, as needed by the limits."""

    incident_id: IncidentId
    key: ServiceKey
    namespace: str | None
    """None for an action outside a cluster: only the incident's own limit applies."""
    action: ActionName
    target: ObjectRef | None
    parameters: tuple[tuple[str, str], ...]
    plan_hash: str
    cause: Cause | None
    evidence: str | None
    leaves: str | None = None
    reaches: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Earlier actions: of the service's cluster within the window, and further back of the service."""

    window: tuple[Touch, ...] = ()
    """Actions of any service of the cluster, without undos, that began within the window: all, or the newest
    up to the budget of the cluster."""
    service: tuple[PastAction, ...] = ()
    """The service's own actions, including undos, within `Limits.look_back`, oldest first."""
    cluster: tuple[Tried, ...] = ()
    """Of any service of the cluster: the newest with a known outcome, as many as open its breaker,
    and those in progress; empty without such a breaker."""
    service_closed_at: datetime | None = None
    """When the service's breaker was last closed manually."""
    cluster_closed_at: datetime | None = None


def proposed_by(incident: Incident, plan_hash: str, action: Action) -> Proposed:
    """The action of an incident as the limits need it."""
    diagnosis = incident.diagnosis
    return Proposed(
        incident_id=incident.id,
        key=incident.key,
        namespace=namespace_of(action),
        action=action.name,
        target=action.target,
        parameters=in_words(action),
        plan_hash=plan_hash,
        cause=diagnosis.best.cause if diagnosis is not None else None,
        evidence=diagnosis.fingerprint if diagnosis is not None else None,
        leaves=action.leaves,
        reaches=action.reaches,
    )


def namespace_of(action: Action) -> str | None:
    """The namespace whose budget the action spends; None for one outside a cluster.

    An object without a namespace, such as a node, is changed for the workload of the incident.
    """
    if action.target is None or mutes(action):
        return None
    return action.target.namespace or str(action.parameters.get(NAMESPACE, ""))


def in_words(action: Action) -> tuple[tuple[str, str], ...]:
    """The parameters in a comparable and sortable form."""
    return tuple(sorted((name, str(value)) for name, value in action.parameters.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentResult:
    """The known data of an incident for the evaluation of its actions."""

    closed: bool
    recovered_after: int | None = None
    """The sequence of the action after which its last verdict is "recovered"; None without one.

    The end does not matter: an incident that recovered may end as escalated or resolved by hand.
    """


def helped(
    outcome: OutcomeKind | None, result: IncidentResult, *, sequence: int, undone: bool
) -> bool | None:
    """Whether an action helped: the last verdict is "recovered", after it or one it completes."""
    if undone:
        return False
    if not result.closed:
        return None
    after = result.recovered_after
    return outcome is OutcomeKind.DONE and after is not None and sequence >= after


def of_this_time(began_at: datetime, length: timedelta, at: datetime) -> bool:
    """Whether a limit of that length counts it: False if dated so far ahead that the clock was wrong."""
    return not ahead(began_at, at, max(length, FAR_AHEAD))


def order(past: PastAction) -> tuple[datetime, str]:
    """Sorts actions by the time they began, in one order everywhere."""
    return past.began_at, past.intent_id


def in_utc(at: datetime) -> str:
    """`2026-02-20 17:00:00 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

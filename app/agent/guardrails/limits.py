"""Limits on actions across incidents: budgets, fleet share, cooldown, backoff and repeated actions.

Pure. `exceeded` is evaluated twice for every action: by policy, for the decision,
and by the store inside the transaction that begins the action, so that two workers
cannot spend the same budget (promise 4). It also keeps promise 10 across incidents:
an action that did not help is not repeated on the same evidence. Undos are exempt.

Times are those that the workers recorded. An action with a time in the future counts,
so that a clock set back never frees budget: each limit holds in every window of
recorded time, in whatever order actions were recorded. Only actions dated more than a
day and more than the limit's length ahead are ignored; otherwise a clock that was
briefly years ahead would block the agent for years.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.freshness.clock_jumps import FAR_AHEAD, ahead
from app.agent.guardrails.circuit_breaker import (
    Breaker,
    Tried,
    open_reason,
    since_closed,
)
from app.agent.guardrails.freeze import FreezeWindow, frozen
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    Incident,
    OutcomeKind,
)
from app.agent.workload import ObjectRef
from app.bounds.backoff import Backoff

SMALL_FLEET = 3
"""The minimum number of services that the fleet share allows in a window."""


class LimitName(StrEnum):
    """The limit that an action would exceed."""

    INCIDENT = "actions_per_incident"
    SERVICE = "actions_per_service"
    NAMESPACE = "actions_per_namespace"
    CLUSTER = "actions_per_cluster"
    FLEET_SHARE = "fleet_share"
    COOLDOWN = "cooldown"
    BACKOFF = "backoff"
    SAME_EVIDENCE = "same_evidence"
    OSCILLATION = "oscillation"
    FREEZE = "freeze"
    SERVICE_CIRCUIT = "service_circuit"
    CLUSTER_CIRCUIT = "cluster_circuit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The configured limits; the defaults limit nothing."""

    window: timedelta = timedelta(hours=1)
    """The rolling window of the counts and of the share of the fleet."""
    per_service: int | None = None
    per_namespace: int | None = None
    per_cluster: int | None = None
    fleet_share: float = 1.0
    """The share of known services that may be acted on in one window: above 0, up to 1."""
    cooldown: timedelta = timedelta(0)
    """The cooldown of a service after an action of another incident began on it."""
    backoff_base: timedelta = timedelta(0)
    """The backoff after a first action that did not help; it doubles with each consecutive one."""
    backoff_max: timedelta = timedelta(0)
    memory: timedelta = timedelta(0)
    """How long failed actions and the states they left are remembered."""
    service_breaker: Breaker | None = None
    cluster_breaker: Breaker | None = None
    freezes: tuple[FreezeWindow, ...] = ()

    @property
    def look_back(self) -> timedelta:
        """How far back a service's own actions count."""
        breakers = [b.remembers for b in (self.service_breaker, self.cluster_breaker) if b is not None]
        return max(self.window, self.cooldown, self.backoff_max, self.memory, *breakers)


UNLIMITED = Limits()

NAMESPACE = "namespace"
"""The parameter with the workload's namespace, of an action on an object of no namespace."""

INCIDENT_BUDGET_SPENT = "the incident's budget of actions is spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits that an action must stay within to begin."""

    per_incident: int
    limits: Limits = UNLIMITED
    known_services: int | None = None
    """The number of services in the cluster; None if unknown."""
    alone: bool = False
    """No other action of this name, and no undo with its effect, may be under way, so that
    what it is limited by can be counted."""


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
    """Earlier actions: of the cluster within the window, and further back of the service itself."""

    window: tuple[Touch, ...] = ()
    """Actions of any service, without undos, that began within the window: all, or the newest
    up to the budget of the cluster."""
    service: tuple[PastAction, ...] = ()
    """The service's own actions, including undos, within `Limits.look_back`, oldest first."""
    cluster: tuple[Tried, ...] = ()
    """Of any service: the newest with a known outcome, as many as open the cluster's breaker, and those
    in progress; empty without such a breaker."""
    service_closed_at: datetime | None = None
    """When the service's breaker was last closed manually."""
    cluster_closed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A limit that an action would exceed."""

    limit: LimitName
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How much of a budget is spent, for the record and for custom policies."""

    limit: LimitName
    spent: int
    allowed: int | None
    """None: no limit is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """The limit status of an action at one moment."""

    history: History = field(default_factory=History)
    spending: tuple[Spending, ...] = ()
    exceeded: tuple[Excess, ...] = ()


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

    An object of no namespace, such as a node, is changed for the workload of the incident.
    """
    if action.target is None:
        return None
    return action.target.namespace or str(action.parameters.get(NAMESPACE, ""))


def in_words(action: Action) -> tuple[tuple[str, str], ...]:
    """The parameters in a comparable and sortable form."""
    return tuple(sorted((name, str(value)) for name, value in action.parameters.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentResult:
    """What is known of an incident when its actions are judged."""

    closed: bool
    recovered_after: int | None = None
    """The sequence of the action after which its last verdict is "recovered"; None without one.

    However it ended: an incident that recovered may end as escalated or resolved by hand.
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


def standing(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> LimitStatus:
    """The complete limit status of an action at that moment."""
    return LimitStatus(
        history=history,
        spending=spending(proposed, history, limits, known_services, at),
        exceeded=exceeded(proposed, history, limits, known_services, at),
    )


def spending(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> tuple[Spending, ...]:
    """The counts over the window, without this action."""
    window = _within(history.window, limits.window, at)
    others = {t.key for t in window} - {proposed.key}
    share = _services_allowed(limits, known_services)
    return (
        Spending(
            limit=LimitName.SERVICE,
            spent=sum(t.key == proposed.key for t in window),
            allowed=limits.per_service,
        ),
        Spending(
            limit=LimitName.NAMESPACE,
            spent=sum(t.namespace == proposed.namespace for t in window),
            allowed=limits.per_namespace,
        ),
        Spending(limit=LimitName.CLUSTER, spent=len(window), allowed=limits.per_cluster),
        Spending(limit=LimitName.FLEET_SHARE, spent=len(others), allowed=share),
    )


def exceeded(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> tuple[Excess, ...]:
    """The limits that the action would exceed if it began at `at`; empty if none."""
    if proposed.namespace is None:
        return ()
    return tuple(
        excess
        for excess in (
            _freeze(proposed, limits, at),
            *_counts(proposed, history, limits, known_services, at),
            _cooldown(proposed, history, limits, at),
            _backoff(proposed, history, limits, at),
            _same_evidence(proposed, history, limits, at),
            _oscillation(proposed, history, limits, at),
            _service_circuit(proposed, history, limits, at),
            _cluster_circuit(proposed, history, limits, at),
        )
        if excess is not None
    )


def _freeze(proposed: Proposed, limits: Limits, at: datetime) -> Excess | None:
    why = frozen(limits.freezes, proposed.key, at)
    return None if why is None else Excess(limit=LimitName.FREEZE, reason=why)


def _counts(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> Iterator[Excess]:
    minutes = f"{limits.window.total_seconds() / 60:g} minutes"
    of = {
        LimitName.SERVICE: (f"on {proposed.key}", "MAX_ACTIONS_PER_SERVICE"),
        LimitName.NAMESPACE: (f"in namespace {proposed.namespace}", "MAX_ACTIONS_PER_NAMESPACE"),
        LimitName.CLUSTER: ("in the cluster", "MAX_ACTIONS_PER_CLUSTER"),
    }
    for one in spending(proposed, history, limits, known_services, at):
        if one.allowed is None or one.spent < one.allowed:
            continue
        if one.limit is LimitName.FLEET_SHARE:
            known = "an unknown number of" if known_services is None else str(known_services)
            reason = (
                f"{one.spent} other services of {known} were acted on within {minutes}, "
                f"and MAX_FLEET_SHARE={limits.fleet_share:g} allows {one.allowed}"
            )
        else:
            where, setting = of[one.limit]
            reason = (
                f"the budget is exhausted: {one.spent} of {setting}={one.allowed} {where} within {minutes}"
            )
        yield Excess(limit=one.limit, reason=reason)


def _services_allowed(limits: Limits, known_services: int | None) -> int | None:
    """How many services may be acted on in one window; an unknown fleet counts as small."""
    if limits.fleet_share >= 1:
        return None
    return max(SMALL_FLEET, int(limits.fleet_share * (known_services or 0)))


def _cooldown(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    recent = [
        p
        for p in _of_others(proposed, history)
        if p.began_at > at - limits.cooldown and _of_this_time(p.began_at, limits.cooldown, at)
    ]
    if not recent:
        return None
    last = max(recent, key=_order)
    return Excess(
        limit=LimitName.COOLDOWN,
        reason=f"{proposed.key} is in cooldown until {_clock(last.began_at + limits.cooldown)}: "
        f"{last.action.words} began {_clock(last.began_at)}",
    )


def _backoff(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    if limits.backoff_base <= timedelta(0) or proposed.cause is None:
        return None
    failures: list[PastAction] = []
    for past in sorted(_of_others(proposed, history), key=_order, reverse=True):
        if past.cause is not proposed.cause or past.helped is None:
            continue
        if not _of_this_time(past.began_at, limits.backoff_max, at):
            continue
        if past.helped:
            break
        failures.append(past)
    if not failures:
        return None
    backoff = Backoff(first=limits.backoff_base, longest=limits.backoff_max)
    until = failures[0].began_at + backoff.after(len(failures))
    if at >= until:
        return None
    last = "the last action" if len(failures) == 1 else f"the last {len(failures)} actions"
    return Excess(
        limit=LimitName.BACKOFF,
        reason=f"{last} on {proposed.key} for {proposed.cause.replace('_', ' ')} did not help: "
        f"backoff until {_clock(until)}",
    )


def _same_evidence(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    if not proposed.evidence:
        return None
    form = (proposed.evidence, *_form(proposed))
    for past in _remembered(history, limits, at):
        if past.undoes is not None or past.helped is not False or past.outcome is OutcomeKind.FAILED:
            continue
        if (past.evidence, *_form(past)) == form:
            return Excess(
                limit=LimitName.SAME_EVIDENCE,
                reason=f"{past.action.words} was executed {_clock(past.began_at)} on the same evidence "
                f"({past.incident_id}) and did not help",
            )
    return None


def _form(one: Proposed | PastAction) -> tuple[object, ...]:
    """The identity of an action; by content hash where known, because revision numbers change."""
    return one.action, one.target, one.reaches if one.reaches is not None else one.parameters


def _oscillation(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    """Whether it would restore a state that the agent itself replaced, from a state that the agent set.

    An undo that a person asked for is meant to.
    """
    if proposed.action is ActionName.RESTORE or proposed.reaches is None or proposed.leaves is None:
        return None
    on_target = [
        p
        for p in sorted(_remembered(history, limits, at), key=_order)
        if p.target == proposed.target
        and p.leaves is not None
        and p.outcome is not OutcomeKind.FAILED
        and (p.incident_id, p.plan_hash, p.undoes) != (proposed.incident_id, proposed.plan_hash, None)
    ]
    for number, past in enumerate(on_target):
        if past.leaves != proposed.reaches:
            continue
        if any(later.reaches == proposed.leaves for later in on_target[number:]):
            return Excess(
                limit=LimitName.OSCILLATION,
                reason=f"{proposed.action.words} would restore the state of {proposed.target} that the agent "
                f"itself replaced by {past.action.words} {_clock(past.began_at)}",
            )
    return None


def _service_circuit(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
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


def _cluster_circuit(proposed: Proposed, history: History, limits: Limits, at: datetime) -> Excess | None:
    if limits.cluster_breaker is None:
        return None
    why = open_reason(
        since_closed(history.cluster, _past_closing(history.cluster_closed_at, at)),
        limits.cluster_breaker,
        proposed.incident_id,
        at,
    )
    return (
        None
        if why is None
        else Excess(limit=LimitName.CLUSTER_CIRCUIT, reason=f"the circuit breaker of the cluster is {why}")
    )


def _past_closing(closed_at: datetime | None, at: datetime) -> datetime | None:
    """When a breaker was closed manually; a time in the future does not affect later actions."""
    return None if ahead(closed_at, at) else closed_at


def _within(window: Iterable[Touch], length: timedelta, at: datetime) -> list[Touch]:
    return [t for t in window if t.began_at > at - length and _of_this_time(t.began_at, length, at)]


def _of_this_time(began_at: datetime, length: timedelta, at: datetime) -> bool:
    """Whether a limit of that length counts it: False if dated so far ahead that the clock was wrong."""
    return not ahead(began_at, at, max(length, FAR_AHEAD))


def _of_others(proposed: Proposed, history: History) -> list[PastAction]:
    """Actions on the service by other incidents: an incident's own steps are each verified."""
    return [
        p
        for p in history.service
        if p.key == proposed.key and p.undoes is None and p.incident_id != proposed.incident_id
    ]


def _remembered(history: History, limits: Limits, at: datetime) -> list[PastAction]:
    return [
        p
        for p in history.service
        if p.began_at > at - limits.memory and _of_this_time(p.began_at, limits.memory, at)
    ]


def set_aside(history: History, limits: Limits, at: datetime) -> str | None:
    """The note on actions that no limit counts because they are dated far in the future."""
    began = {touch.intent_id: touch.began_at for touch in history.window}
    began |= {past.intent_id: past.began_at for past in history.service}
    far = [moment for moment in began.values() if not _of_this_time(moment, limits.look_back, at)]
    if not far:
        return None
    actions = "1 action" if len(far) == 1 else f"{len(far)} actions"
    return f"{actions} dated up to {_clock(max(far))}, in the future, set aside: the clock went back"


def _order(past: PastAction) -> tuple[datetime, str]:
    return past.began_at, past.intent_id


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"

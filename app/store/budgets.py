"""Counts started actions for the limits, serialised with every other start (promise 4).

One lock serialises the transactions that begin an action, on all workers; in the order of locks it comes
after the incident's row and the guardrails, and no transaction that holds it waits for another lock.
Everything is read from the rows of the intents, so that a restart loses nothing and a second attempt at an
intent counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Select, Text, cast, exists, not_, or_, select

from app.agent.freshness.clock_jumps import FAR_AHEAD
from app.agent.guardrails.circuit_breaker import Tried
from app.agent.guardrails.limits import (
    UNLIMITED,
    Budget,
    Excess,
    History,
    IncidentResult,
    Limits,
    PastAction,
    Touch,
    exceeded,
    helped,
    in_words,
    proposed_by,
)
from app.agent.guardrails.status import Attempts
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    Outcome,
    OutcomeKind,
    Verdict,
    VerdictKind,
)
from app.store import guardrails
from app.store.database import locks
from app.store.database.codec import IntentBody, read, read_optional, read_text
from app.store.database.port import Database
from app.store.database.repository import Repository, reads, reads_urgently
from app.store.database.tables import incidents, intents

_UNDER_WAY = 100
"""The newest are enough: a half-open attempt begins after everything that led to it."""

_SHOWN = 2_000
"""Number of the newest actions for which open breakers are reported."""

_STATE = incidents.c.state.label("incident_state")
# As text: a few fields of each body are read, and the rest is never built.
_BODY = cast(incidents.c.body, Text).label("incident_body")
_RESULT = (_STATE, _BODY)
_VERSION = (incidents.c.version.label("incident_version"), incidents.c.timeline_head.label("incident_head"))
"""With the id, what names the content of an incident: another body has another version, or another head."""

_UNDOING = intents.alias("undoing")
# An undo belongs to the incident of the undone action: the index over incidents finds it.
_UNDONE = exists().where(
    _UNDOING.c.incident_id == intents.c.incident_id,
    _UNDOING.c.undoes == intents.c.id,
    _UNDOING.c.started_at.is_not(None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _VerdictOfIncident:
    """The part of an incident's body that says whether it recovered."""

    verdict: Verdict | None = None
    recovered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _KindOfOutcome:
    """The field of an outcome that breakers need."""

    kind: OutcomeKind


_Content: TypeAlias = tuple[str, int, str]
"""Id, version and head of an incident."""


class SqlBudgets(Repository):
    """`BudgetRepository` over SQL."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._known: Mapping[_Content, _VerdictOfIncident] = {}
        """Of the incidents that the last look at all attempts showed: at most `_SHOWN`."""

    @reads
    def recent_actions(
        self, connection: Connection, key: ServiceKey, limits: Limits, at: datetime
    ) -> History:
        return _recent(connection, key, limits, at)

    @reads_urgently
    def attempts(self, connection: Connection, since: datetime) -> Attempts:
        tried: dict[ServiceKey, list[Tried]] = defaultdict(list)
        rows = connection.execute(_began(since, _STATE, *_VERSION).limit(_SHOWN)).all()
        ends = self._ends(connection, rows)
        for row, one in zip(rows, _each_tried(connection, rows, ends), strict=True):
            tried[ServiceKey(environment=row.environment, service=row.service)].append(one)
        return Attempts(tried=tried, closed=guardrails.circuits_closed(connection))

    def _ends(self, connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, _VerdictOfIncident]:
        """By incident. Bodies take most of the time of a look: an unchanged one is not read again."""
        contents = {
            row.incident_id: (row.incident_id, row.incident_version, row.incident_head) for row in rows
        }
        known = self._known
        ends = {one: known[content] for one, content in contents.items() if content in known}
        unknown = contents.keys() - ends.keys()
        if unknown:
            wanted = select(incidents.c.id.label("incident_id"), _BODY).where(incidents.c.id.in_(unknown))
            ends |= _ends_of(connection.execute(wanted).all())
        self._known = {content: ends[one] for one, content in contents.items()}
        return ends


def over(
    connection: Connection, incident: Incident, intent: Intent, budget: Budget, at: datetime
) -> tuple[Excess, ...]:
    """The shared limits that the intent would exceed by beginning now; serialised
    with every other start until this transaction ends."""
    if budget.limits == UNLIMITED:
        return ()
    locks.hold(connection, locks.Space.BUDGET, ["budget"])
    proposed = proposed_by(incident, intent.decision.plan_hash, intent.action)
    history = _recent(connection, incident.key, budget.limits, at)
    return exceeded(proposed, history, budget.limits, budget.known_services, at)


def under_way(connection: Connection, intent: Intent) -> bool:
    """Whether another action of the same name, or any to the same state of such an object, began
    in the same cluster and has no outcome; serialised as `over` is.

    The agent's own undo waits for nothing (promise 11).
    """
    locks.hold(connection, locks.Space.BUDGET, ["budget"])
    name, cluster = intent.action.name, _cluster(intent.action)
    others = select(intents.c.body).where(
        intents.c.state == IntentState.EXECUTING.value, intents.c.id != intent.id
    )
    begun = [read(IntentBody, row.body).action for row in connection.execute(others)]
    return any(
        (other.name is name and name is not ActionName.RESTORE) or _same_effect(intent.action, other)
        for other in begun
        if _cluster(other) == cluster
    )


def _cluster(action: Action) -> str:
    return "" if action.target is None else action.target.cluster


def _same_effect(one: Action, other: Action) -> bool:
    """Whether both bring an object of the same kind to the same state."""
    if one.target is None or other.target is None or one.reaches is None:
        return False
    return (one.target.kind, one.reaches) == (other.target.kind, other.reaches)


def _recent(connection: Connection, key: ServiceKey, limits: Limits, at: datetime) -> History:
    """What began within the window in the service's cluster, and on the service as far back as it matters."""
    cluster = limits.clusters.of(key.environment)
    return History(
        window=_window(connection, limits, cluster, at),
        service=_of_service(connection, key, at - limits.look_back),
        cluster=_tried(connection, limits, cluster, at),
        service_closed_at=guardrails.circuit_closed_at(connection, key) if limits.service_breaker else None,
        cluster_closed_at=guardrails.circuit_closed_at(connection, cluster or None)
        if limits.cluster_breaker
        else None,
    )


def _in_cluster(limits: Limits, cluster: str) -> ColumnElement[bool]:
    """The environment of an intent is in that cluster."""
    if cluster:
        return intents.c.environment.in_(sorted(limits.clusters.environments_of(cluster)))
    return intents.c.environment.not_in(sorted(limits.clusters.environments))


def _window(connection: Connection, limits: Limits, cluster: str, at: datetime) -> tuple[Touch, ...]:
    """The newest actions, up to the budget of the cluster: beyond it no action may begin.

    Actions dated so far ahead that no limit counts them are not among them.
    """
    columns, length = intents.c, limits.window
    rows = connection.execute(
        select(columns.id, columns.environment, columns.service, columns.namespace, columns.started_at)
        .where(
            columns.started_at.is_not(None),
            columns.started_at > at - length,
            columns.started_at <= at + max(length, FAR_AHEAD),
            columns.undoes.is_(None),
            columns.namespace.is_not(None),
            *((_in_cluster(limits, cluster),) if limits.clusters.environments else ()),
        )
        .order_by(columns.started_at.desc())
        .limit(limits.per_cluster)
    )
    return tuple(
        Touch(
            intent_id=IntentId(row.id),
            key=ServiceKey(environment=row.environment, service=row.service),
            namespace=row.namespace,
            began_at=row.started_at,
        )
        for row in rows
    )


def _tried(connection: Connection, limits: Limits, cluster: str, at: datetime) -> tuple[Tried, ...]:
    """The inputs of the cluster's breaker: enough ended actions to open it, and the running ones."""
    breaker = limits.cluster_breaker
    if breaker is None:
        return ()
    latest = intents.c.started_at <= at + max(breaker.remembers, FAR_AHEAD)
    began = _began(at - limits.look_back, *_RESULT).where(latest)
    if limits.clusters.environments:
        began = began.where(_in_cluster(limits, cluster))
    ended = or_(incidents.c.closed_at.is_not(None), _UNDONE)
    rows = [
        *connection.execute(began.where(ended).limit(breaker.failures)),
        *connection.execute(began.where(not_(ended)).limit(_UNDER_WAY)),
    ]
    return tuple(_each_tried(connection, rows, _ends_of(rows)))


def _began(since: datetime, *of_incident: ColumnElement[Any]) -> Select[Any]:
    return (
        select(
            intents.c.id,
            intents.c.incident_id,
            intents.c.environment,
            intents.c.service,
            intents.c.started_at,
            intents.c.sequence,
            cast(intents.c.outcome, Text).label("outcome"),
            *of_incident,
            _UNDONE.label("undone"),
        )
        .join(incidents, incidents.c.id == intents.c.incident_id)
        .where(
            intents.c.started_at.is_not(None),
            intents.c.started_at > since,
            intents.c.undoes.is_(None),
            intents.c.namespace.is_not(None),
        )
        .order_by(intents.c.started_at.desc(), intents.c.id.desc())
    )


def _each_tried(
    connection: Connection, rows: Sequence[Row[Any]], ends: Mapping[str, _VerdictOfIncident]
) -> list[Tried]:
    results = _results(connection, rows, ends)
    found = []
    for row in rows:
        kind = None if row.outcome is None else read_text(_KindOfOutcome, row.outcome).kind
        result = results[row.incident_id]
        found.append(
            Tried(
                intent_id=row.id,
                incident_id=IncidentId(row.incident_id),
                began_at=row.started_at,
                helped=helped(kind, result, sequence=row.sequence, undone=row.undone),
            )
        )
    return found


def _ends_of(rows: Sequence[Row[Any]]) -> dict[str, _VerdictOfIncident]:
    """By incident, from rows with its body."""
    bodies = {row.incident_id: row.incident_body for row in rows}
    return {one: read_text(_VerdictOfIncident, body) for one, body in bodies.items()}


def _results(
    connection: Connection, rows: Sequence[Row[Any]], ends: Mapping[str, _VerdictOfIncident]
) -> dict[str, IncidentResult]:
    """How the incidents of these intents ended, by id."""
    judged = {
        one: end.verdict.intent_id
        for one, end in ends.items()
        if end.verdict is not None and end.verdict.kind is VerdictKind.RECOVERED
    }
    wanted = sorted({each for each in judged.values() if each is not None})
    sequences: dict[str | None, int] = {}
    if wanted:
        found = select(intents.c.id, intents.c.sequence).where(intents.c.id.in_(wanted))
        sequences = {row.id: row.sequence for row in connection.execute(found)}
    return {
        row.incident_id: IncidentResult(
            closed=IncidentState(row.incident_state).closed,
            recovered_after=sequences.get(
                judged.get(row.incident_id), _without_verdict(row, ends[row.incident_id])
            ),
        )
        for row in rows
    }


def _without_verdict(row: Row[Any], end: _VerdictOfIncident) -> int | None:
    """An older version did not record which action a recovery followed: assume the first.

    No action gets credit for a service that recovered by itself after the escalation.
    """
    recovered = IncidentState(row.incident_state) is IncidentState.RECOVERED
    return 0 if recovered and end.recovered_at is None else None


def _of_service(connection: Connection, key: ServiceKey, since: datetime) -> tuple[PastAction, ...]:
    rows = connection.execute(
        select(intents, *_RESULT)
        .join(incidents, incidents.c.id == intents.c.incident_id)
        .where(
            intents.c.environment == key.environment,
            intents.c.service == key.service,
            intents.c.started_at.is_not(None),
            intents.c.started_at > since,
            intents.c.namespace.is_not(None),
        )
        .order_by(intents.c.started_at, intents.c.incident_id, intents.c.sequence)
    ).all()
    return _past(rows, _results(connection, rows, _ends_of(rows)))


def _past(rows: Sequence[Row[Any]], results: Mapping[str, IncidentResult]) -> tuple[PastAction, ...]:
    undone = {row.undoes for row in rows}
    found = []
    for row in rows:
        body = read(IntentBody, row.body)
        action, outcome = body.action, read_optional(Outcome, row.outcome)
        if action.target is None:
            continue
        kind = None if outcome is None else outcome.kind
        found.append(
            PastAction(
                intent_id=IntentId(row.id),
                incident_id=IncidentId(row.incident_id),
                key=ServiceKey(environment=row.environment, service=row.service),
                namespace=row.namespace,
                action=action.name,
                target=action.target,
                parameters=in_words(action),
                plan_hash=body.decision.plan_hash,
                cause=None if row.cause is None else _cause(row.cause),
                evidence=row.evidence,
                began_at=row.started_at,
                outcome=kind,
                helped=helped(kind, results[row.incident_id], sequence=row.sequence, undone=row.id in undone),
                leaves=action.leaves,
                reaches=action.reaches,
                undoes=None if row.undoes is None else IntentId(row.undoes),
            )
        )
    return tuple(found)


def _cause(value: str) -> Cause | None:
    """A cause that only a later version knows counts as none on record."""
    return next((cause for cause in Cause if cause.value == value), None)

"""Counts and ages of the agent's own work, in one statement and over indexes.

One statement for all of them: scrapes run concurrently with intake, and each round trip to the database
waits for a thread and for the interpreter's lock.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    null,
    select,
    union_all,
)

from app.agent.audit.figures import FIGURES_WINDOW, AgentFigures
from app.agent.models import (
    ApprovalState,
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    OutcomeKind,
)
from app.store.database.repository import Repository, reads
from app.store.database.tables import (
    AFTER_KNOWN,
    AT_ONCE,
    UtcDateTime,
    approvals,
    brakes,
    claims,
    incidents,
    intake_ledger,
    intents,
    postings,
    sample_ledger,
    signals,
    workers,
)

Kind = TypeVar("Kind", bound=StrEnum)


class SqlFigures(Repository):
    """`FiguresRepository` over SQL."""

    @reads
    def figures(
        self, connection: Connection, now: datetime, budget_window: timedelta = FIGURES_WINDOW
    ) -> AgentFigures:
        found: dict[str, dict[str, _Figure]] = defaultdict(dict)
        for figure, kind, number, oldest in connection.execute(
            _all(), {"now": now, "since": now - FIGURES_WINDOW, "budget_since": now - budget_window}
        ):
            found[figure][kind] = _Figure(number, oldest)

        def one(figure: str) -> _Figure:
            return found[figure].get("", _NONE)

        return AgentFigures(
            at=now,
            accepted_signals=one("accepted").number + one("accepted narrow").number,
            pending_signals=one("pending").number,
            oldest_pending_signal_at=one("pending").oldest,
            open_incidents=_by(IncidentState, found["open"]),
            ended_incidents=_by(IncidentState, found["ended"]),
            due_incidents=one("due").number,
            oldest_due_incident_at=one("due").oldest,
            executing_actions=one("executing").number,
            finished_actions=_by(OutcomeKind, found["finished"]),
            decisions=_by(DecisionKind, found["decisions"]),
            budgeted_actions=one("budgeted").number,
            pending_approvals=one("approvals").number,
            oldest_pending_approval_at=one("approvals").oldest,
            failing_postings=one("failing").number,
            kill_switch_engaged=bool(one("kill switch").number),
            live_workers=one("workers").number,
        )


class _Figure(NamedTuple):
    number: int
    oldest: datetime | None


_NONE = _Figure(0, None)


@functools.cache
def _all() -> Any:
    """Every figure as rows of its name, a kind (empty where it has none), a count and the oldest time.

    Built once: to build it costs more than to execute it.
    """
    since = bindparam("since", type_=UtcDateTime)
    counted = (intents.c.undoes.is_(None), intents.c.namespace.is_not(None))
    outcome = intents.c.outcome["kind"].as_string()
    return union_all(
        _row(
            "pending",
            signals.c.disposition == _constant(DispositionKind.PENDING),
            oldest=signals.c.received_at,
        ),
        _row("accepted", number=func.coalesce(func.sum(intake_ledger.c.accepted), 0)),
        _row("accepted narrow", number=func.coalesce(func.sum(sample_ledger.c.accepted), 0)),
        _row("open", incidents.c.closed_at.is_(None), kind=incidents.c.state),
        _row("ended", incidents.c.closed_at >= since, kind=incidents.c.state),
        _due(),
        _row("executing", intents.c.state == _constant(IntentState.EXECUTING)),
        _row(
            "finished",
            intents.c.started_at >= since,
            *counted,
            intents.c.state == _constant(IntentState.FINISHED),
            kind=outcome,
        ),
        _row("decisions", intents.c.decided_at >= since, intents.c.undoes.is_(None), kind=intents.c.decision),
        _row("budgeted", intents.c.started_at >= bindparam("budget_since", type_=UtcDateTime), *counted),
        _row(
            "approvals",
            approvals.c.state == _constant(ApprovalState.PENDING),
            oldest=approvals.c.requested_at,
        ),
        _row("failing", postings.c.failures > 0),
        _row("kill switch", brakes.c.name == "kill_switch", brakes.c.engaged),
        _row("workers", number=func.count(workers.c.number)),
    )


def _row(
    figure: str,
    *wanted: ColumnElement[bool],
    kind: ColumnElement[Any] | None = None,
    number: ColumnElement[Any] | None = None,
    oldest: ColumnElement[Any] | None = None,
) -> Select[Any]:
    columns = (
        literal(figure, Text).label("figure"),
        (literal("", Text) if kind is None else cast(kind, Text)).label("kind"),
        cast(func.count() if number is None else number, BigInteger).label("number"),
        (cast(null(), UtcDateTime) if oldest is None else func.min(oldest)).label("oldest"),
    )
    query = select(*columns).where(*wanted)
    return query if kind is None else query.group_by(kind)


def _constant(value: StrEnum) -> ColumnElement[str]:
    """As part of the statement: a partial index is used only where its condition is known."""
    return literal_column(f"'{value.value}'", Text)


def _due() -> Select[Any]:
    """Due and unclaimed incidents. `due_at` of a new or answered incident is not a real time."""
    held = exists().where(claims.c.incident_id == incidents.c.id, claims.c.owner.is_not(None))
    since = case(
        (incidents.c.due_at == AFTER_KNOWN, incidents.c.opened_at),
        (incidents.c.due_at == AT_ONCE, None),
        else_=incidents.c.due_at,
    )
    return _row(
        "due",
        incidents.c.closed_at.is_(None),
        incidents.c.due_at <= bindparam("now", type_=UtcDateTime),
        ~held,
        oldest=since,
    )


def _by(kinds: type[Kind], found: Mapping[str, _Figure]) -> Mapping[Kind, int]:
    """Every kind with its count, zeros included: the first event of a new series would show no increase."""
    return {each: found.get(each.value, _NONE).number for each in kinds}

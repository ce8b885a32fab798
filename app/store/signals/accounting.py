"""The audit of accepted signals: totals, discrepancies, and repairs by the sweep (promise 9).

Everything is read in one snapshot. The sum is counted over indexes; discrepancies
are searched over indexes that are empty in a healthy store, or among the
newest, unless the audit is deep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Row,
    Select,
    and_,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.sql.expression import TextClause

from app.agent.audit.accounting import (
    OVERDUE_AFTER,
    AuditQuestion,
    Discrepancies,
    Discrepancy,
    DiscrepancyKind,
    Repairs,
    SignalAudit,
    UnevenDay,
)
from app.agent.freshness.clock_jumps import LONGEST_REST
from app.agent.ids import IncidentId
from app.agent.models import ApprovalState, DispositionKind, IncidentState
from app.agent.timeline import chain_start, first_broken
from app.store import timeline as journal
from app.store.database.notify import ring
from app.store.database.repository import Repository, reads, writes
from app.store.database.tables import (
    approvals,
    claims,
    incidents,
    intake_ledger,
    intents,
    mendings,
    samples,
    signal_tally,
    signals,
    timeline,
)
from app.store.signals import ledger
from app.store.signals.narrow import sample_records
from app.store.signals.narrow import samples as samples_of
from app.store.signals.records import FORGETTABLE, NOT_QUEUED, WAITING

NAMED = 100
NEWEST_INCIDENTS = 1_000
NEWEST_DUPLICATES = 10_000

_PAGE = 500
_KEPT = text("signals.disposition IN ('opened', 'joined', 'pending')")
_ADRIFT = text(
    "((signals.disposition IN ('opened', 'joined') AND signals.incident_id IS NULL)"
    " OR (signals.disposition = 'deduplicated' AND signals.duplicate_of IS NULL))"
)
_EXECUTING = text("intents.state = 'executing'")
_UNLEDGERED = text("NOT signals.ledgered")
_MENDED = text(
    "INSERT INTO mendings (kind, mended, last_at) VALUES (:kind, :mended, :at)"
    " ON CONFLICT (kind) DO UPDATE SET mended = mendings.mended + excluded.mended, last_at = excluded.last_at"
).bindparams(at=mendings.c.last_at.type)


class SqlAccounting(Repository):
    """`AccountingRepository` over SQL."""

    @reads
    def audit(self, connection: Connection, question: AuditQuestion) -> SignalAudit:
        since = question.since
        unledgered = _by_day(connection, since, [_UNLEDGERED])
        present = _by_day(connection, since, [_KEPT]) + _by_day(connection, since, [FORGETTABLE])
        accepted: Counter[date] = Counter()
        for row in connection.execute(_ledger(since)):
            accepted[row.day] += int(row.accepted)
        for (day, _), count in unledgered.items():
            accepted[day] += count
        forgotten = _forgotten(connection, since)
        accepted += sample_records.accepted(connection, since)
        present += _as_ignored(sample_records.present(connection, since))
        forgotten += _as_ignored(sample_records.forgotten(connection, since))
        accounted: Counter[date] = Counter()
        for (day, _), count in (present + forgotten).items():
            accounted[day] += count
        return SignalAudit(
            since=since,
            accepted=accepted.total(),
            unledgered=unledgered.total(),
            present=_by_kind(present),
            forgotten=_by_kind(forgotten),
            uneven_days=tuple(
                UnevenDay(day=day, accepted=accepted[day], accounted=accounted[day])
                for day in sorted(accepted.keys() | accounted.keys())
                if accepted[day] != accounted[day]
            ),
            strays=_limited(_discrepancies(connection, question)),
            mended={row.kind: int(row.mended) for row in connection.execute(select(mendings))},
            deep=question.deep,
        )

    @reads
    def discrepancies(self, connection: Connection, question: AuditQuestion) -> Discrepancies:
        return _limited(_discrepancies(connection, question))

    @writes
    def repair(self, connection: Connection, now: datetime) -> Repairs:
        entered = ledger.enter_later(connection)
        found = connection.execute(
            select(incidents.c.id)
            .where(_overdue(now))
            .order_by(incidents.c.id)
            .limit(NAMED)
            .with_for_update(skip_locked=True, of=incidents)
        ).scalars()
        woken = tuple(IncidentId(one) for one in found)
        if woken:
            connection.execute(
                update(incidents)
                .where(incidents.c.id.in_(woken))
                .values(due_at=now, nudges=incidents.c.nudges + 1)
            )
            ring(connection)
        for kind, count in (("entered", entered), ("woken", len(woken))):
            if count:
                connection.execute(_MENDED, {"kind": kind, "mended": count, "at": now})
        return Repairs(entered=entered, woken=woken)


# ---------------------------------------------------------------- the sum


def _ledger(since: date | None) -> Select[Any]:
    counted = select(intake_ledger.c.day, func.sum(intake_ledger.c.accepted).label("accepted"))
    if since is not None:
        counted = counted.where(intake_ledger.c.day >= since)
    return counted.group_by(intake_ledger.c.day)


def _by_day(
    connection: Connection, since: date | None, conditions: list[TextClause]
) -> Counter[tuple[date, str]]:
    """How many rows arrived on each day, by disposition."""
    arrived = signals.c.received_at
    utc = func.timezone("UTC", arrived) if connection.dialect.name == "postgresql" else arrived
    day = type_coerce(func.date(utc), Date).label("day")
    counted = select(day, signals.c.disposition, func.count().label("count")).where(*conditions)
    if since is not None:
        counted = counted.where(arrived >= _start(since))
    rows = connection.execute(counted.group_by(literal_column("1"), signals.c.disposition))
    return Counter({(row.day, row.disposition): row.count for row in rows})


def _forgotten(connection: Connection, since: date | None) -> Counter[tuple[date, str]]:
    tallied = select(signal_tally)
    if since is not None:
        tallied = tallied.where(signal_tally.c.day >= since)
    return Counter({(r.day, r.disposition): int(r.forgotten) for r in connection.execute(tallied)})


def _as_ignored(days: Counter[date]) -> Counter[tuple[date, str]]:
    """Of narrow samples, which all have this disposition."""
    return Counter({(day, DispositionKind.IGNORED.value): count for day, count in days.items()})


def _by_kind(counts: Counter[tuple[date, str]]) -> dict[DispositionKind, int]:
    found: Counter[DispositionKind] = Counter()
    for (_, disposition), count in counts.items():
        found[DispositionKind(disposition)] += count
    return dict(sorted(found.items()))


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


# ---------------------------------------------------------------- discrepancies


def _limited(found: Iterator[Discrepancy]) -> Discrepancies:
    named: list[Discrepancy] = []
    counts: Counter[DiscrepancyKind] = Counter()
    for discrepancy in found:
        counts[discrepancy.kind] += 1
        if counts[discrepancy.kind] <= NAMED:
            named.append(discrepancy)
    more = tuple(kind for kind, count in counts.items() if count > NAMED)
    return Discrepancies(found=tuple(named), more=more)


Search: TypeAlias = tuple[DiscrepancyKind, Select[Any], Callable[[Row[Any]], str]]
"""The name of a discrepancy, the rows with it, and the message for each."""


def _discrepancies(connection: Connection, question: AuditQuestion) -> Iterator[Discrepancy]:
    now = question.now
    for kind, wanted, detail in (
        _pending_too_long(now - question.pending_for),
        _naming_nothing(),
        _repeating_nothing(question),
        _not_claimed(now - OVERDUE_AFTER),
        _overdue_incidents(now),
        _executing_after_the_end(),
    ):
        for row in connection.execute(wanted.limit(NAMED + 1)):
            yield Discrepancy(kind=kind, id=row.id, detail=detail(row))
    yield from _without_origin_or_cut(connection, question)


def _pending_too_long(since: datetime) -> Search:
    wanted = select(signals.c.id, signals.c.received_at).where(
        WAITING, NOT_QUEUED, signals.c.received_at < since
    )
    return (
        DiscrepancyKind.PENDING_TOO_LONG,
        wanted.order_by(signals.c.received_at),
        lambda row: f"pending since {row.received_at.isoformat()}",
    )


def _naming_nothing() -> Search:
    def detail(row: Row[Any]) -> str:
        what = "signal" if row.disposition == DispositionKind.DEDUPLICATED.value else "incident"
        return f"{row.disposition}, without {what}"

    wanted = select(signals.c.id, signals.c.disposition).where(_ADRIFT).order_by(signals.c.number)
    return DiscrepancyKind.NAMES_NOTHING, wanted, detail


def _repeating_nothing(question: AuditQuestion) -> Search:
    """Every one when deep, otherwise among the newest."""
    repeats = select(signals.c.id, signals.c.duplicate_of).where(
        FORGETTABLE, literal_column("signals.disposition") == literal_column("'deduplicated'")
    )
    if question.since is not None:
        repeats = repeats.where(signals.c.received_at >= _start(question.since))
    if not question.deep:
        repeats = repeats.order_by(signals.c.received_at.desc()).limit(NEWEST_DUPLICATES)
    looked_at, first = repeats.subquery(), signals.alias()
    return (
        DiscrepancyKind.REPEATS_NOTHING,
        select(looked_at.c.id, looked_at.c.duplicate_of)
        .select_from(
            looked_at.outerjoin(first, first.c.id == looked_at.c.duplicate_of).outerjoin(
                samples, samples.c.number == samples_of.number_in(looked_at.c.duplicate_of)
            )
        )
        .where(first.c.id.is_(None), samples.c.number.is_(None), looked_at.c.duplicate_of.is_not(None)),
        lambda row: f"repeats {row.duplicate_of}, which is missing",
    )


def _not_claimed(since: datetime) -> Search:
    return (
        DiscrepancyKind.WITHOUT_DRIVER,
        select(incidents.c.id, incidents.c.state, incidents.c.due_at)
        .select_from(incidents.outerjoin(claims, claims.c.incident_id == incidents.c.id))
        .where(incidents.c.closed_at.is_(None), incidents.c.held_by.is_(None), incidents.c.due_at < since)
        # An incident is due long ago, too, when it just opened with an old program: since then counts.
        .where(incidents.c.opened_at < since)
        .where(or_(claims.c.incident_id.is_(None), claims.c.expires_at < since))
        .order_by(incidents.c.due_at),
        lambda row: f"{row.state}, due since {row.due_at.isoformat()}, not claimed by a worker",
    )


def _overdue_incidents(now: datetime) -> Search:
    wanted = select(incidents.c.id, incidents.c.state, incidents.c.due_at).where(_overdue(now))
    return (
        DiscrepancyKind.OVERDUE,
        wanted.order_by(incidents.c.due_at),
        lambda row: f"{row.state}, not scheduled before {row.due_at.isoformat()}",
    )


def _overdue(now: datetime) -> ColumnElement[bool]:
    """Open, at rest, and due later than anything that it waits for."""
    held = exists().where(claims.c.incident_id == incidents.c.id, claims.c.owner.is_not(None))
    asked = exists().where(
        approvals.c.incident_id == incidents.c.id,
        approvals.c.state == ApprovalState.PENDING.value,
        approvals.c.expires_at >= incidents.c.due_at,
    )
    waits_for_people = incidents.c.state == IncidentState.AWAITING_APPROVAL.value
    return and_(
        incidents.c.closed_at.is_(None),
        incidents.c.held_by.is_(None),
        incidents.c.due_at > now,
        or_(and_(waits_for_people, ~asked), and_(~waits_for_people, incidents.c.due_at > now + LONGEST_REST)),
        ~held,
    )


def _executing_after_the_end() -> Search:
    return (
        DiscrepancyKind.EXECUTING_AFTER_END,
        select(intents.c.id, incidents.c.id.label("incident_id"), incidents.c.state)
        .select_from(intents.join(incidents, incidents.c.id == intents.c.incident_id))
        .where(_EXECUTING, incidents.c.closed_at.is_not(None)),
        lambda row: f"executing, and incident {row.incident_id} ended {row.state}",
    )


def _without_origin_or_cut(connection: Connection, question: AuditQuestion) -> Iterator[Discrepancy]:
    """Incidents without an origin or with an altered timeline: all when deep, else the newest."""
    left: int | None = None if question.deep else NEWEST_INCIDENTS
    cursor: Row[Any] | None = None
    while left is None or left > 0:
        page = _page(connection, question.since, cursor)
        for row in page if left is None else page[:left]:
            yield from _of_incident(connection, row, deep=question.deep)
        if len(page) < _PAGE:
            return
        cursor = page[-1]
        left = None if left is None else left - len(page)


def _page(connection: Connection, since: date | None, after: Row[Any] | None) -> list[Row[Any]]:
    """Incidents, newest first, each with the last entry of its timeline and what would come behind it.

    The parts are asked for incident by incident, by index: a join would tempt the
    database to read whole tables.
    """
    opened = select(signals.c.number).where(
        signals.c.incident_id == incidents.c.id,
        literal_column("signals.disposition") == literal_column("'opened'"),
    )
    entry = timeline.c.incident_id == incidents.c.id
    last = select(timeline.c.hash).where(entry, timeline.c.sequence == incidents.c.timeline_length - 1)
    beyond = select(timeline.c.sequence).where(entry, timeline.c.sequence == incidents.c.timeline_length)
    wanted: Select[Any] = (
        select(
            incidents.c.id,
            incidents.c.opened_at,
            incidents.c.triggers,
            incidents.c.timeline_length,
            incidents.c.timeline_head,
            last.scalar_subquery().label("last_hash"),
            beyond.scalar_subquery().label("beyond"),
            opened.limit(1).scalar_subquery().label("opened"),
        )
        .order_by(incidents.c.opened_at.desc(), incidents.c.id.desc())
        .limit(_PAGE)
    )
    if since is not None:
        wanted = wanted.where(incidents.c.opened_at >= _start(since))
    if after is not None:
        wanted = wanted.where(
            or_(
                incidents.c.opened_at < after.opened_at,
                and_(incidents.c.opened_at == after.opened_at, incidents.c.id < after.id),
            )
        )
    return list(connection.execute(wanted).all())


def _of_incident(connection: Connection, row: Row[Any], *, deep: bool) -> Iterator[Discrepancy]:
    lacks = [
        name
        for name, there in (
            ("signal that opened it", row.opened),
            ("trigger", row.triggers),
            ("timeline", row.timeline_length),
        )
        if not there
    ]
    for name in lacks:
        yield Discrepancy(kind=DiscrepancyKind.WITHOUT_ORIGIN, id=row.id, detail=f"has no {name}")
    head = row.last_hash if row.timeline_length else chain_start(IncidentId(row.id))
    if row.beyond is not None or head != row.timeline_head:
        what = "goes on behind" if row.beyond is not None else "does not end with"
        detail = f"its timeline {what} entry {row.timeline_length - 1}, the last one that was written"
        yield Discrepancy(kind=DiscrepancyKind.TIMELINE_CUT, id=row.id, detail=detail)
    if deep:
        broken = first_broken(IncidentId(row.id), journal.entries(connection, IncidentId(row.id)))
        if broken is not None:
            detail = f"its timeline was altered at entry {broken}"
            yield Discrepancy(kind=DiscrepancyKind.TIMELINE_ALTERED, id=row.id, detail=detail)

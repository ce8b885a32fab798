"""Signals as rows: every accepted one with its disposition; also the changes among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.sql import ColumnElement

from app.agent.identity.people import Sender
from app.agent.ids import IncidentId, ServiceKey, SignalId
from app.agent.models import Disposition, DispositionKind, Incident, Signal, SignalKind
from app.redaction import redacted
from app.store.database.codec import read_optional, read_payload, storable_text
from app.store.database.tables import changes as change_rows
from app.store.database.tables import signals
from app.store.signals import ledger
from app.store.signals.bulk import BulkInsert
from app.store.signals.given import GivenStatement, columns_of

BATCH = 500
"""Rows that one transaction expires or deletes at most: other writers wait for no more than that."""
# Written out, so that no planner prepares for more rows.
_BATCH: ColumnElement[int] = literal_column(str(BATCH))

# Written out, as the partial indexes have them: with values bound later, no planner may use those.
FORGETTABLE = text("signals.disposition IN ('ignored', 'deduplicated', 'expired')")
WAITING = text("signals.disposition = 'pending'")
QUEUED = "queued: "
"""How the reason of a pending signal begins whose incident waits for others of its sender to end."""
NOT_QUEUED = text(f"signals.reason NOT LIKE '{QUEUED}%'")

_OUTCOME = ("id", "dedup_key", "disposition", "reason", "incident_id", "duplicate_of")
_NAMED_OUTCOME = ", ".join(f"signals.{name}" for name in _OUTCOME)
_BY_ID = GivenStatement(
    f"SELECT {_NAMED_OUTCOME} FROM {{texts}} CROSS JOIN signals WHERE signals.id = given.value",  # noqa: S608 - constants
    [signals.c[name] for name in _OUTCOME],
    lock="FOR KEY SHARE OF signals",
)
_BY_KEY = GivenStatement(
    f"SELECT {_NAMED_OUTCOME} FROM {{texts}} CROSS JOIN signals"  # noqa: S608 - constants
    " WHERE signals.dedup_key = given.value AND signals.duplicate_of IS NULL",
    [signals.c[name] for name in _OUTCOME],
    lock="FOR KEY SHARE OF signals",
)
_KNOWN = GivenStatement(
    "SELECT signals.dedup_key FROM {texts} CROSS JOIN signals"
    " WHERE signals.dedup_key = given.value AND signals.duplicate_of IS NULL",
    [signals.c.dedup_key],
)
_PENDING = GivenStatement(
    f"SELECT {columns_of(signals)} FROM {{services}} CROSS JOIN signals"  # noqa: S608 - constants
    " WHERE signals.service = given.service AND signals.environment = given.environment"
    " AND signals.disposition = 'pending' ORDER BY signals.number",
    [*signals.c],
    lock="FOR UPDATE OF signals",
)
_ADD = BulkInsert(
    signals,
    [
        "id",
        "kind",
        "environment",
        "service",
        "source",
        "observed_at",
        "received_at",
        "dedup_key",
        "stale",
        "payload",
        "disposition",
        "reason",
        "incident_id",
        "duplicate_of",
        "ledgered",
        "sender",
    ],
)
_JOINED_LATER = "the breach it was part of is an incident"
_JOIN = (
    update(signals)
    .where(
        signals.c.service == bindparam("of_service"),
        signals.c.environment == bindparam("of_environment"),
        WAITING,
    )
    .values(disposition=DispositionKind.JOINED.value, reason=_JOINED_LATER, incident_id=bindparam("joins"))
)


# ---------------------------------------------------------------- writing


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A stored signal, and its disposition."""

    id: SignalId
    dedup_key: str
    disposition: Disposition


def known(connection: Connection, dedup_keys: Sequence[str]) -> frozenset[str]:
    """The keys among these that a stored signal has; locks nothing."""
    return frozenset(row.dedup_key for row in _KNOWN.texts(connection, dedup_keys))


def on_record(connection: Connection, given: Sequence[Signal]) -> tuple[Recorded, ...]:
    """The rows of these signals, and the first ones with their deduplication keys.

    `prune` does not delete them until this transaction ends.
    """
    rows = [
        *_BY_ID.texts(connection, [signal.id for signal in given]),
        *_BY_KEY.texts(connection, {storable_text(signal.dedup_key) for signal in given}),
    ]
    return tuple(
        Recorded(id=SignalId(row.id), dedup_key=row.dedup_key, disposition=disposition_of(row))
        for row in {row.id: row for row in rows}.values()
    )


def add(connection: Connection, decided: Sequence[tuple[Signal, Disposition]]) -> None:
    """Record signals with their dispositions, in this order."""
    reasons = {reason: storable_text(redacted(reason)) for reason in {one.reason for _, one in decided}}
    _ADD.run(connection, (_values(signal, became, reasons[became.reason]) for signal, became in decided))


def _values(signal: Signal, disposition: Disposition, reason: str) -> list[object]:
    """In the order of the columns of `_ADD`."""
    return [
        signal.id,
        signal.kind.value,
        signal.key.environment,
        signal.key.service,
        storable_text(signal.source),
        signal.observed_at,
        signal.received_at,
        storable_text(signal.dedup_key),
        signal.stale,
        signal.payload,
        disposition.kind.value,
        reason,
        disposition.incident_id,
        disposition.duplicate_of,
        True,
        signal.sender,
    ]


def join_pending(connection: Connection, incidents: Sequence[Incident | None]) -> None:
    """Let the pending signals of these incidents' services join them."""
    rows = [
        {
            "of_service": one.key.service,
            "of_environment": one.key.environment,
            "joins": one.id,
        }
        for one in incidents
        if one is not None
    ]
    if rows:
        connection.execute(_JOIN, rows)


def joined_later(incident: Incident) -> Disposition:
    """What becomes of a pending signal that joins an incident."""
    return Disposition(kind=DispositionKind.JOINED, reason=_JOINED_LATER, incident_id=incident.id)


def expire_pending(connection: Connection, older_than: datetime) -> int:
    """Expire pending signals received before that, at most `BATCH`; returns their number."""
    waiting = connection.execute(
        select(signals.c.number)
        .where(WAITING, NOT_QUEUED, signals.c.received_at < older_than)
        .order_by(signals.c.received_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).scalars()
    numbers = waiting.all()
    if numbers:
        connection.execute(
            update(signals)
            .where(signals.c.number.in_(numbers))
            .values(
                disposition=DispositionKind.EXPIRED.value,
                reason="no sample that came soon enough confirmed that the breach lasts",
            )
        )
    return len(numbers)


def prune_changes(connection: Connection, older_than: datetime) -> int:
    """Delete changes from before that, oldest first, at most `BATCH` of them; how many."""
    past = connection.execute(
        select(change_rows.c.number)
        .where(change_rows.c.at < older_than)
        .order_by(change_rows.c.at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).scalars()
    numbers = past.all()
    if numbers:
        connection.execute(delete(change_rows).where(change_rows.c.number.in_(numbers)))
    return len(numbers)


def prune(connection: Connection, older_than: datetime) -> int:
    """Delete at most `BATCH` old signals that ended without an incident, oldest first; return how many.

    A first signal stays as long as a duplicate of it. Deletions are counted.
    """
    again = signals.alias()
    repeated = exists().where(again.c.duplicate_of == signals.c.id)
    ended = connection.execute(
        select(signals.c.number)
        .where(FORGETTABLE, signals.c.received_at < older_than, signals.c.ledgered, ~repeated)
        .order_by(signals.c.received_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True, of=signals)
    ).scalars()
    numbers = ended.all()
    if not numbers:
        return 0
    if connection.dialect.name == "postgresql":
        # The database refuses to delete signals in transactions that do not account for them.
        connection.execute(text("SELECT set_config('heal.forgetting', 'accounted', true)"))
    # Asked again now that the rows are locked: a duplicate may have come in between.
    deleted = connection.execute(
        delete(signals)
        .where(signals.c.number.in_(numbers), ~repeated)
        .returning(signals.c.received_at, signals.c.disposition)
    )
    forgotten = [(row.received_at, row.disposition) for row in deleted]
    ledger.tally(connection, forgotten)
    return len(forgotten)


# ---------------------------------------------------------------- queued openings


def queues(connection: Connection) -> tuple[tuple[str, int], ...]:
    """Every sender with queued openings, and how many."""
    rows = connection.execute(
        select(signals.c.source, func.count().label("waiting"))
        .where(WAITING, signals.c.reason.startswith(QUEUED))
        .group_by(signals.c.source)
        .order_by(signals.c.source)
    )
    return tuple((row.source, int(row.waiting)) for row in rows)


def queued(connection: Connection, sender: str, limit: int) -> tuple[Signal, ...]:
    """The oldest queued openings of a sender, locked; those that a peer has locked are skipped."""
    rows = connection.execute(
        select(signals)
        .where(WAITING, signals.c.reason.startswith(QUEUED), signals.c.source == sender)
        .order_by(signals.c.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return tuple(signal_of(row) for row in rows)


def settle(connection: Connection, signal_id: SignalId, disposition: Disposition) -> None:
    """Give one signal another disposition."""
    connection.execute(
        update(signals)
        .where(signals.c.id == signal_id)
        .values(
            disposition=disposition.kind.value,
            reason=storable_text(disposition.reason),
            incident_id=disposition.incident_id,
        )
    )


# ---------------------------------------------------------------- reading


def pending(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, tuple[Signal, ...]]:
    """Pending signals by service in the order in which they were accepted, locked so that none expires."""
    found: dict[ServiceKey, tuple[Signal, ...]] = {}
    for row in _PENDING.services(connection, keys):
        signal = signal_of(row)
        found[signal.key] = (*found.get(signal.key, ()), signal)
    return found


def disposition_of(row: Row[Any]) -> Disposition:
    return Disposition(
        kind=DispositionKind(row.disposition),
        reason=row.reason,
        incident_id=None if row.incident_id is None else IncidentId(row.incident_id),
        duplicate_of=None if row.duplicate_of is None else SignalId(row.duplicate_of),
    )


def signal_of(row: Row[Any]) -> Signal:
    kind = SignalKind(row.kind)
    return Signal(
        id=SignalId(row.id),
        kind=kind,
        key=ServiceKey(environment=row.environment, service=row.service),
        source=row.source,
        observed_at=row.observed_at,
        received_at=row.received_at,
        dedup_key=row.dedup_key,
        stale=row.stale,
        payload=read_payload(kind, row.payload),
        sender=read_optional(Sender, row.sender),
    )

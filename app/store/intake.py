"""Durable intake: signals are recorded, decided and joined to incidents in one transaction (promise 9).

Everything about one service runs under that service's lock, so judging its
levels, finding its open incident and opening one are a single step, whatever
other workers do. The judgement itself is the caller's pure `IntakeDecider`.

A delivery of more than `PART` signals is recorded in parts, each a transaction of
its own, so that it never holds up the writer for longer than one part. The sender
is answered after the last one. If the process dies in between, the sender repeats
the delivery: what was recorded is recognised by its deduplication key, and where
the delivery has an idempotency key each part gives its first answer again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from app.agent.models import (
    Disposition,
    DispositionKind,
    Incident,
    IncidentId,
    IncidentState,
    ServiceKey,
    Signal,
    SignalId,
    SignalKind,
    Trigger,
)
from app.agent.ports import (
    Accepted,
    Dequeued,
    IntakeDecider,
    IntakeVerdict,
    Queued,
    RepeatDecider,
    ServiceLevels,
)
from app.errors import Invalid
from app.store import incidents, journal, ledger, locks, signals
from app.store.codec import read, storable_text
from app.store.narrative import opening_summary, pending_note, signal_note
from app.store.tables import changes, idempotency_keys, service_levels
from app.store.tables import signals as signal_rows

IDEMPOTENCY_KEPT = timedelta(hours=24)
PART = 20
"""Signals that one transaction records at most: that takes some twenty milliseconds."""
KEY_LIMIT_BYTES = 1024
"""Longest deduplication or idempotency key: both stand in indexes, whose entries are bounded."""

_ATTACHED = (DispositionKind.OPENED, DispositionKind.JOINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one call of `accept` brings."""

    signals: tuple[Signal, ...]
    decide: IntakeDecider
    dry_run: bool
    idempotency_key: str | None
    request_hash: str | None
    again: RepeatDecider | None = None

    @property
    def at(self) -> datetime:
        """When the delivery arrived: what the age of an idempotency key is measured against."""
        return max(signal.received_at for signal in self.signals)


def accept(connection: Connection, delivery: Delivery) -> tuple[Accepted, ...]:
    if not delivery.signals:
        return ()
    check_keys(delivery)
    before = recorded(connection, delivery)
    if before is not None:
        return before
    locks.hold(connection, locks.Space.SERVICE, {str(signal.key) for signal in delivery.signals})
    desk = _Desk(connection, delivery)
    answers = tuple(
        Accepted(signal_id=signal.id, disposition=desk.accept(signal)) for signal in delivery.signals
    )
    _keep(connection, delivery, answers)
    if desk.entered:
        ledger.enter(connection, delivery.signals[0].key, desk.entered)
    return answers


def parts(delivery: Delivery) -> Iterator[Delivery]:
    """The delivery in parts of at most `PART` signals; each has an idempotency key of its own.

    The key is a hash of the delivery's key and the part's place: no sender can
    give it, and a repetition of the delivery arrives at the same ones.
    """
    for start in range(0, len(delivery.signals), PART):
        key = delivery.idempotency_key
        if key is not None:
            key = "part " + hashlib.sha256(f"{start} {PART} {key}".encode("utf-8", "replace")).hexdigest()
        yield replace(delivery, signals=delivery.signals[start : start + PART], idempotency_key=key)


def recorded(connection: Connection, delivery: Delivery) -> tuple[Accepted, ...] | None:
    """The answer that this delivery got before, by its idempotency key; held until the transaction ends."""
    if delivery.idempotency_key is None:
        return None
    locks.hold(connection, locks.Space.IDEMPOTENCY, [delivery.idempotency_key])
    return _recorded_answer(connection, delivery, delivery.idempotency_key)


def record(connection: Connection, delivery: Delivery, answers: tuple[Accepted, ...]) -> None:
    """Keep the answer to a delivery whose parts are all recorded; the first one to get here stays."""
    if recorded(connection, delivery) is None:
        _keep(connection, delivery, answers)


def _keep(connection: Connection, delivery: Delivery, answers: tuple[Accepted, ...]) -> None:
    if delivery.idempotency_key is None:
        return
    connection.execute(
        insert(idempotency_keys).values(
            key=delivery.idempotency_key,
            request_hash=delivery.request_hash,
            recorded_at=delivery.at,
            answer=answers,
        )
    )


def open_from_pending(
    connection: Connection, key: ServiceKey, triggers: Sequence[Trigger], dry_run: bool, at: datetime
) -> IncidentId | None:
    """Open an incident from a service's pending signals, or let them join the open one; None without any."""
    locks.hold(connection, locks.Space.SERVICE, [str(key)])
    pending = signals.pending(connection, key)
    if not pending:
        return None
    incident = incidents.open_incident(connection, key)
    if incident is not None:
        fresh = bool(triggers) and not all(signal.stale for signal in pending)
        incident = incidents.add_triggers(connection, incident, triggers, fresh=fresh)
        incident = incidents.note_origin(connection, incident, pending)
        _join_pending(connection, incident, pending)
        return incident.id
    first, *others = pending
    stale = all(signal.stale for signal in pending)
    before = incidents.last_closed(connection, key)
    incident = _open(connection, key, triggers, stale=stale, dry_run=dry_run, at=_not_before(before, at))
    incident = incidents.note_origin(connection, incident, pending)
    journal.append(connection, incident.id, [signal_note(first, triggers, opened=True)])
    reason = "acted on before the breach had lasted"
    signals.settle_pending(connection, key, DispositionKind.OPENED, reason, incident.id, only=first.id)
    _join_pending(connection, incident, others)
    return incident.id


def open_queued(connection: Connection, decide: IntakeDecider, dry_run: bool, limit: int) -> Dequeued:
    """Every sender in turn gets its share of `limit`; a sender at its limit keeps its place."""
    queues, ended = signals.queues(connection), 0
    share = max(1, limit // max(1, len(queues)))
    for sender, _ in queues:
        waiting = signals.queued(connection, sender, share)
        locks.hold(connection, locks.Space.SERVICE, {str(signal.key) for signal in waiting})
        delivery = Delivery(
            signals=waiting, decide=decide, dry_run=dry_run, idempotency_key=None, request_hash=None
        )
        desk = _Desk(connection, delivery)
        for signal in waiting:
            if desk.again(signal).reason.startswith(signals.QUEUED):
                break
            ended += 1
    return Dequeued(
        ended=ended,
        queued=tuple(
            Queued(sender=sender, waiting=waiting, newest=incidents.newest_of_sender(connection, sender))
            for sender, waiting in signals.queues(connection)
        ),
    )


# ------------------------------------------------------------ one delivery


@dataclass(slots=True)
class _Desk:
    """Takes the signals of one delivery in turn, keeping what it has read of each service.

    That is safe while the services' locks and the incidents' row locks are held.
    """

    connection: Connection
    delivery: Delivery
    entered: list[datetime] = field(default_factory=list)
    """When each signal arrived that is now on record and was not before."""
    _levels: dict[ServiceKey, ServiceLevels | None] = field(default_factory=dict)
    _open: dict[ServiceKey, Incident | None] = field(default_factory=dict)
    _closed: dict[ServiceKey, Incident | None] = field(default_factory=dict)

    def accept(self, signal: Signal) -> Disposition:
        before = signals.same_observation(self.connection, signal)
        if before is not None and (before.id == signal.id or not self._true_once_more(signal, before)):
            return self._repeat(signal, before)
        if before is not None:  # its old key stays with the first one
            signal = replace(signal, dedup_key=f"{signal.id} again")
        disposition = self._decide(signal)
        self._record(signal, disposition)
        return disposition

    def again(self, signal: Signal) -> Disposition:
        """Decide a queued opening once more, as everything stands now."""
        # Out of the pending ones, which may join the incident that it opens.
        being = Disposition(kind=DispositionKind.IGNORED, reason="its incident is being opened")
        signals.settle(self.connection, signal.id, being)
        disposition = self._decide(signal)
        signals.settle(self.connection, signal.id, disposition)
        return disposition

    def _decide(self, signal: Signal) -> Disposition:
        key = signal.key
        self._look_up(key)
        verdict = self.delivery.decide(signal, self._levels[key], self._open[key], self._closed[key])
        if verdict.levels is not None:
            _store_levels(self.connection, key, verdict.levels, known=self._levels[key] is not None)
            self._levels[key] = verdict.levels
        if verdict.change is not None:
            change = verdict.change
            self.connection.execute(
                insert(changes).values(
                    at=change.at, environment=change.key.environment, service=change.key.service, body=change
                )
            )
        disposition = verdict.disposition
        if disposition.kind in _ATTACHED:
            disposition = self._attach(signal, verdict)
        return disposition

    def _look_up(self, key: ServiceKey) -> None:
        if key not in self._open:
            self._levels[key] = levels(self.connection, key)
            self._open[key] = incidents.open_incident(self.connection, key)
            self._closed[key] = incidents.last_closed(self.connection, key)

    def _true_once_more(self, signal: Signal, before: Row[Any]) -> bool:
        """What a repeat says of its service is remembered; True where it is to be decided as if new."""
        if self.delivery.again is None or signal.kind is not SignalKind.ALERT:
            return False
        key = signal.key
        self._look_up(key)
        incident = self._open[key]
        # It was ignored for the sake of an incident that has ended since: what holds now decides.
        ignored = before.disposition == DispositionKind.IGNORED and incident is None
        repeat = self.delivery.again(signal, self._levels[key], incident)
        if repeat is None:
            return ignored and self._closed[key] is not None
        _store_levels(self.connection, key, repeat.levels, known=self._levels[key] is not None)
        self._levels[key] = repeat.levels
        if incident is not None:  # what keeps a reason fresh was sent by somebody, too
            self._open[key] = incidents.note_origin(self.connection, incident, [signal])
        return repeat.anew or (ignored and self._closed[key] is not None)

    def _record(self, signal: Signal, disposition: Disposition) -> None:
        signals.add(self.connection, signal, disposition)
        self.entered.append(signal.received_at)

    def _repeat(self, signal: Signal, before: Row[Any]) -> Disposition:
        """The very same signal gets its first answer again; another one is recorded as a duplicate."""
        if before.id == signal.id:
            return signals.disposition_of(before)
        disposition = Disposition(
            kind=DispositionKind.DEDUPLICATED,
            reason=f"the same observation as {before.id}",
            incident_id=None if before.incident_id is None else IncidentId(before.incident_id),
            duplicate_of=SignalId(before.id),
        )
        self._record(signal, disposition)
        return disposition

    def _attach(self, signal: Signal, verdict: IntakeVerdict) -> Disposition:
        """Open, queue or join, as the service stands now: at most one incident of it is ever open."""
        unknown_to = None
        if self._open[signal.key] is None and not incidents.is_known(self.connection, signal.key):
            unknown_to = storable_text(signal.source)
            most = verdict.open_limit
            if most is not None and incidents.open_of_sender(self.connection, unknown_to, most) >= most:
                reason = f"{signals.QUEUED}{signal.source} has {most} incidents open; opened as they end"
                return Disposition(kind=DispositionKind.PENDING, reason=reason)
        pending = signals.pending(self.connection, signal.key) if verdict.release_pending else ()
        incident = self._open[signal.key]
        opened = incident is None
        if incident is None:
            incident = _open(
                self.connection,
                signal.key,
                verdict.triggers,
                stale=signal.stale,
                dry_run=self.delivery.dry_run,
                at=_not_before(self._closed[signal.key], signal.received_at),
                unknown_to=unknown_to,
            )
        else:
            fresh = bool(verdict.triggers) and not signal.stale
            incident = incidents.add_triggers(self.connection, incident, verdict.triggers, fresh=fresh)
        incident = incidents.note_origin(self.connection, incident, [signal, *pending])
        self._open[signal.key] = incident
        journal.append(self.connection, incident.id, [signal_note(signal, verdict.triggers, opened=opened)])
        _join_pending(self.connection, incident, pending)
        return Disposition(
            kind=DispositionKind.OPENED if opened else DispositionKind.JOINED,
            reason=verdict.disposition.reason,
            incident_id=incident.id,
        )


def _open(
    connection: Connection,
    key: ServiceKey,
    triggers: Sequence[Trigger],
    *,
    stale: bool,
    dry_run: bool,
    at: datetime,
    unknown_to: str | None = None,
) -> Incident:
    distinct = tuple(dict.fromkeys(triggers))
    incident = Incident(
        id=IncidentId(f"inc_{uuid4().hex}"),
        key=key,
        state=IncidentState.OPEN,
        opened_at=at,
        triggers=distinct,
        stale=stale,
        dry_run=dry_run,
        summary=opening_summary(key, distinct),
    )
    incidents.create(connection, incident, unknown_to=unknown_to)
    return incident


def _not_before(closed: Incident | None, at: datetime) -> datetime:
    """A service's incidents never overlap, though a signal may have waited while the last one closed."""
    return at if closed is None or closed.closed_at is None else max(at, closed.closed_at)


def _join_pending(connection: Connection, incident: Incident, pending: Sequence[Signal]) -> None:
    if not pending:
        return
    journal.append(connection, incident.id, [pending_note(pending, incident.opened_at)])
    reason = "the breach it was part of is an incident"
    signals.settle_pending(connection, incident.key, DispositionKind.JOINED, reason, incident.id)


# ------------------------------------------------------------ keys


def check_keys(delivery: Delivery) -> None:
    """Raise `Invalid` for a deduplication or idempotency key that no index can hold."""
    keys = [("dedup_key", signal.dedup_key) for signal in delivery.signals]
    if delivery.idempotency_key is not None:
        keys.append(("idempotency key", delivery.idempotency_key))
    for name, value in keys:
        if len(value.encode("utf-8", "replace")) > KEY_LIMIT_BYTES:
            raise Invalid(f"{name} is longer than {KEY_LIMIT_BYTES} bytes; use a hash of it")


def _recorded_answer(connection: Connection, delivery: Delivery, key: str) -> tuple[Accepted, ...] | None:
    """The answer given to this key within the last day; also forgets keys that are older."""
    cutoff = delivery.at - IDEMPOTENCY_KEPT
    aged = (
        select(idempotency_keys.c.key)
        .where(idempotency_keys.c.recorded_at < cutoff)
        .order_by(idempotency_keys.c.recorded_at)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    expired = or_(
        idempotency_keys.c.key.in_(aged),
        and_(idempotency_keys.c.key == key, idempotency_keys.c.recorded_at < cutoff),
    )
    connection.execute(delete(idempotency_keys).where(expired))
    row = connection.execute(select(idempotency_keys).where(idempotency_keys.c.key == key)).one_or_none()
    if row is None:
        return None
    if row.request_hash != delivery.request_hash:
        raise Invalid("this Idempotency-Key was used for another request; use a new key for a new request")
    return read(tuple[Accepted, ...], row.answer)


# ------------------------------------------------------------ levels


def levels(connection: Connection, key: ServiceKey) -> ServiceLevels | None:
    row = connection.execute(
        select(service_levels.c.body).where(
            service_levels.c.environment == key.environment, service_levels.c.service == key.service
        )
    ).one_or_none()
    return None if row is None else read(ServiceLevels, row.body)


def _store_levels(connection: Connection, key: ServiceKey, new: ServiceLevels, *, known: bool) -> None:
    if known:
        connection.execute(
            update(service_levels)
            .where(service_levels.c.environment == key.environment, service_levels.c.service == key.service)
            .values(body=new)
        )
        return
    connection.execute(
        insert(service_levels).values(environment=key.environment, service=key.service, body=new)
    )


def pending_services(connection: Connection, service: str, environment: str | None) -> tuple[ServiceKey, ...]:
    """Services of that name with pending signals or levels on record, in order."""
    waiting = select(signal_rows.c.environment).where(signal_rows.c.service == service, signals.WAITING)
    measured = select(service_levels.c.environment).where(service_levels.c.service == service)
    environments = connection.execute(waiting.union(measured)).scalars()
    return tuple(
        ServiceKey(environment=found, service=service)
        for found in sorted(environments)
        if environment in {None, found}
    )

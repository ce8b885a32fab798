"""Durable intake: signals are recorded, decided and joined to incidents in one transaction (promise 9).

Everything about one service runs under that service's lock, so judging its
levels, finding its open incident and opening one are a single step, whatever
other workers do. The judgement itself is the caller's pure `IntakeDecider`.

A delivery of many signals, or about many services, is recorded in parts, each a
transaction of its own, so that it never holds up the writer for longer than one
part. Signals of one service follow each other in the parts, because a transaction
reads and writes a service, its incident and its timeline once, however many of its
signals it records. The sender is answered after the last part. If the process dies
in between, the sender repeats the delivery: what was recorded is recognised by its
deduplication key, and where the delivery has an idempotency key each part gives its
first answer again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, pairwise
from uuid import uuid4

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from app.agent.freshness.memory import newly_merged
from app.agent.ids import IncidentId, ServiceKey, SignalId
from app.agent.models import (
    Change,
    Disposition,
    DispositionKind,
    Incident,
    IncidentState,
    Note,
    Signal,
    SignalKind,
    Trigger,
)
from app.agent.ports.signals import (
    Accepted,
    Dequeued,
    IntakeDecider,
    IntakeVerdict,
    Queued,
    RepeatDecider,
    ServiceLevels,
)
from app.errors import Invalid
from app.store import incidents, timeline
from app.store.database import locks
from app.store.database.codec import read, storable_text
from app.store.database.tables import changes, idempotency_keys, service_levels
from app.store.database.tables import signals as signal_rows
from app.store.notes import (
    merged_note,
    opening_summary,
    pending_note,
    signal_note,
)
from app.store.signals import ledger
from app.store.signals import records as signals

IDEMPOTENCY_KEPT = timedelta(hours=24)
PART = 50
"""Signals that one transaction records at most."""
PART_SERVICES = 10
"""Services that one transaction of a large delivery concerns at most: with `PART` it takes some 20 ms."""
KEY_LIMIT_BYTES = 1024
"""Longest deduplication or idempotency key: both stand in indexes, whose entries are bounded."""

_ATTACHED = (DispositionKind.OPENED, DispositionKind.JOINED)

_INSERT_LEVELS = insert(service_levels).values(
    environment=bindparam("of_environment"), service=bindparam("of_service"), body=bindparam("body")
)
_UPDATE_LEVELS = (
    update(service_levels)
    .where(
        service_levels.c.environment == bindparam("of_environment"),
        service_levels.c.service == bindparam("of_service"),
    )
    .values(body=bindparam("body"))
)


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
    transaction = _IntakeTransaction(connection, delivery)
    transaction.look_up(delivery.signals)
    answers = tuple(
        Accepted(signal_id=signal.id, disposition=transaction.accept(signal)) for signal in delivery.signals
    )
    transaction.write()
    _keep(connection, delivery, answers)
    if transaction.entered:
        ledger.enter(connection, delivery.signals[0].key, transaction.entered)
    return answers


def by_service(delivery: Delivery) -> tuple[int, ...]:
    """The places of the signals with those of one service side by side, each service's in their order."""
    places: dict[ServiceKey, list[int]] = {}
    for place, signal in enumerate(delivery.signals):
        places.setdefault(signal.key, []).append(place)
    return tuple(chain.from_iterable(places.values()))


def parts(delivery: Delivery) -> tuple[Delivery, ...]:
    """The delivery in parts of at most `PART` signals about at most `PART_SERVICES` services.

    Only the part of a delivery that needs no second one has the delivery's own idempotency
    key. The key of others is a hash of it and the part's place: no sender can give it, and
    a repetition of the delivery arrives at the same ones.
    """
    cuts, services = [0], set[ServiceKey]()
    for place, signal in enumerate(delivery.signals):
        services.add(signal.key)
        if place - cuts[-1] == PART or len(services) > PART_SERVICES:
            cuts.append(place)
            services = {signal.key}
    if len(cuts) == 1:
        return (delivery,)
    return tuple(
        replace(
            delivery,
            signals=delivery.signals[start:end],
            idempotency_key=_key_of_part(delivery.idempotency_key, start, end),
        )
        for start, end in pairwise([*cuts, len(delivery.signals)])
    )


def _key_of_part(key: str | None, start: int, end: int) -> str | None:
    if key is None:
        return None
    return "part " + hashlib.sha256(f"{start} {end} {key}".encode("utf-8", "replace")).hexdigest()


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
        joined = incidents.add_triggers(incident, triggers, fresh=fresh)
        incidents.store_joined(connection, incident, incidents.note_origin(joined, pending))
        timeline.append(connection, incident.id, [pending_note(pending, incident.opened_at)])
        _join_pending(connection, incident)
        return incident.id
    first, *others = pending
    stale = all(signal.stale for signal in pending)
    before = incidents.last_closed(connection, key)
    incident = _open(connection, key, triggers, stale=stale, dry_run=dry_run, at=_not_before(before, at))
    incidents.store_joined(connection, incident, incidents.note_origin(incident, pending))
    notes = [signal_note(first, triggers, opened=True)]
    if others:
        notes.append(pending_note(others, incident.opened_at))
    timeline.append(connection, incident.id, notes)
    reason = "acted on before the breach had lasted"
    signals.settle_pending(connection, key, DispositionKind.OPENED, reason, incident.id, only=first.id)
    _join_pending(connection, incident)
    return incident.id


def open_queued(connection: Connection, decide: IntakeDecider, dry_run: bool, limit: int) -> Dequeued:
    """Every sender in turn gets its share of `limit`; a sender at its limit keeps its place."""
    # Counting them reads every queued signal, so that it is done once.
    queues, ended = dict(signals.queues(connection)), 0
    share = max(1, limit // max(1, len(queues)))
    for sender in tuple(queues):
        waiting = signals.queued(connection, sender, share)
        locks.hold(connection, locks.Space.SERVICE, {str(signal.key) for signal in waiting})
        delivery = Delivery(
            signals=waiting, decide=decide, dry_run=dry_run, idempotency_key=None, request_hash=None
        )
        transaction = _IntakeTransaction(connection, delivery)
        for signal in waiting:
            if signal.id not in transaction.joined:
                if transaction.again(signal).reason.startswith(signals.QUEUED):
                    break
                queues[sender] -= 1
            ended += 1
        transaction.write()
        for other in transaction.joined.values():
            queues[other] = queues.get(other, 0) - 1
    return Dequeued(
        ended=ended,
        queued=tuple(
            Queued(sender=sender, waiting=left, newest=incidents.newest_of_sender(connection, sender))
            for sender, left in sorted(queues.items())
            if left > 0
        ),
    )


# ------------------------------------------------------------ one delivery


@dataclass(slots=True, kw_only=True)
class _Service:
    """One service within a transaction: as it is on record, and as it stands after what was decided."""

    stored_levels: ServiceLevels | None
    levels: ServiceLevels | None
    stored: Incident | None
    """The open incident on record."""
    incident: Incident | None
    """The open incident."""
    closed: Incident | None
    """The incident that closed last."""
    none_pending: bool = False
    """No signal of it is pending."""
    notes: list[Note] = field(default_factory=list)
    """For the timeline of the open incident, and not written yet."""


@dataclass(slots=True)
class _IntakeTransaction:
    """Takes the signals of one transaction in turn, keeping what it has read of each service.

    What it decides is written by `write`, once for each service and incident. Both
    are safe while the services' locks and the incidents' row locks are held.
    """

    connection: Connection
    delivery: Delivery
    entered: list[datetime] = field(default_factory=list)
    """When each signal arrived that is now on record and was not before."""
    joined: dict[SignalId, str] = field(default_factory=dict)
    """Queued openings that joined an incident with others of their service, and their senders."""
    _same: dict[SignalId, signals.Recorded] = field(default_factory=dict)
    _first: dict[str, signals.Recorded] = field(default_factory=dict)
    """By deduplication key."""
    _services: dict[ServiceKey, _Service] = field(default_factory=dict)
    _open_of_sender: dict[str, int] = field(default_factory=dict)
    _decided: list[tuple[Signal, Disposition]] = field(default_factory=list)
    _changes: list[Change] = field(default_factory=list)

    def look_up(self, given: Sequence[Signal]) -> None:
        """Read which of these signals, and of their observations, are on record."""
        for found in signals.on_record(self.connection, given):
            self._remember(found)

    def accept(self, signal: Signal) -> Disposition:
        before = self._same.get(signal.id) or self._first.get(storable_text(signal.dedup_key))
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
        if disposition.kind is DispositionKind.PENDING:
            self._service(signal.key).none_pending = False
        return disposition

    def write(self) -> None:
        """Put on record what was decided and is not yet."""
        self._write_signals()
        _store_changes(self.connection, self._changes)
        self._changes.clear()
        _store_levels(self.connection, self._services)
        for one in self._services.values():
            if one.stored is not None and one.incident is not None:
                incidents.store_joined(self.connection, one.stored, one.incident)
        for one in self._services.values():
            if one.incident is not None and one.notes:
                timeline.append(self.connection, one.incident.id, one.notes)
            one.stored, one.stored_levels, one.notes = one.incident, one.levels, []

    def _write_signals(self) -> None:
        signals.add(self.connection, self._decided)
        self._decided.clear()

    def _decide(self, signal: Signal) -> Disposition:
        one = self._service(signal.key)
        verdict = self.delivery.decide(signal, one.levels, one.incident, one.closed)
        if verdict.levels is not None:
            _keep_levels(one, verdict.levels, signal.received_at)
        if verdict.change is not None:
            self._changes.append(verdict.change)
        disposition = verdict.disposition
        if disposition.kind in _ATTACHED:
            disposition = self._attach(signal, one, verdict)
        return disposition

    def _service(self, key: ServiceKey) -> _Service:
        """The service, read the first time."""
        if key not in self._services:
            known, incident = levels(self.connection, key), incidents.open_incident(self.connection, key)
            self._services[key] = _Service(
                stored_levels=known,
                levels=known,
                stored=incident,
                incident=incident,
                closed=incidents.last_closed(self.connection, key),
            )
        return self._services[key]

    def _true_once_more(self, signal: Signal, before: signals.Recorded) -> bool:
        """What a repeat says of its service is remembered; True where it is to be decided as if new."""
        if self.delivery.again is None or signal.kind is not SignalKind.ALERT:
            return False
        one = self._service(signal.key)
        # It was ignored for the sake of an incident that has ended since: what holds now decides.
        ignored = before.disposition.kind is DispositionKind.IGNORED and one.incident is None
        repeat = self.delivery.again(signal, one.levels, one.incident)
        if repeat is None:
            return ignored and one.closed is not None
        _keep_levels(one, repeat.levels, signal.received_at)
        if one.incident is not None:  # what keeps a reason fresh was sent by somebody, too
            one.incident = incidents.note_origin(one.incident, [signal])
        return repeat.anew or (ignored and one.closed is not None)

    def _record(self, signal: Signal, disposition: Disposition) -> None:
        self._decided.append((signal, disposition))
        self._remember(
            signals.Recorded(id=signal.id, dedup_key=storable_text(signal.dedup_key), disposition=disposition)
        )
        if disposition.kind is DispositionKind.PENDING:
            self._service(signal.key).none_pending = False
        self.entered.append(signal.received_at)

    def _remember(self, found: signals.Recorded) -> None:
        self._same[found.id] = found
        if found.disposition.duplicate_of is None:
            self._first[found.dedup_key] = found

    def _repeat(self, signal: Signal, before: signals.Recorded) -> Disposition:
        """The very same signal gets its first answer again; another one is recorded as a duplicate."""
        if before.id == signal.id:
            return before.disposition
        disposition = Disposition(
            kind=DispositionKind.DEDUPLICATED,
            reason=f"the same observation as {before.id}",
            incident_id=before.disposition.incident_id,
            duplicate_of=before.id,
        )
        self._record(signal, disposition)
        return disposition

    def _attach(self, signal: Signal, one: _Service, verdict: IntakeVerdict) -> Disposition:
        """Open, queue or join, as the service stands now: at most one incident of it is ever open."""
        key, incident = signal.key, one.incident
        unknown_to = None
        if incident is None and not incidents.is_known(self.connection, key):
            unknown_to = storable_text(signal.source)
            most = verdict.open_limit
            if most is not None and self._opened_by(unknown_to, most) >= most:
                reason = f"{signals.QUEUED}{signal.source} has {most} incidents open; opened as they end"
                return Disposition(kind=DispositionKind.PENDING, reason=reason)
        pending = self._take_pending(key, one) if verdict.release_pending else ()
        opened = incident is None
        if incident is None:
            incident = _open(
                self.connection,
                key,
                verdict.triggers,
                stale=signal.stale,
                dry_run=self.delivery.dry_run,
                at=_not_before(one.closed, signal.received_at),
                unknown_to=unknown_to,
            )
            one.stored = incident
            if unknown_to in self._open_of_sender:
                self._open_of_sender[unknown_to] += 1
        else:
            fresh = bool(verdict.triggers) and not signal.stale
            incident = incidents.add_triggers(incident, verdict.triggers, fresh=fresh)
        one.incident = incidents.note_origin(incident, [signal, *pending])
        one.notes.append(signal_note(signal, verdict.triggers, opened=opened))
        if pending:
            one.notes.append(pending_note(pending, incident.opened_at))
            self._join(pending, incident)
        return Disposition(
            kind=DispositionKind.OPENED if opened else DispositionKind.JOINED,
            reason=verdict.disposition.reason,
            incident_id=incident.id,
        )

    def _join(self, pending: Sequence[Signal], incident: Incident) -> None:
        """The pending signals join the incident: a later duplicate of one is answered with it."""
        joined = _join_pending(self.connection, incident)
        for found in [self._same[signal.id] for signal in pending if signal.id in self._same]:
            self._remember(replace(found, disposition=joined))

    def _opened_by(self, sender: str, most: int) -> int:
        """How many incidents of unknown services a sender has open; counted up to `most`, once."""
        if sender not in self._open_of_sender:
            self._open_of_sender[sender] = incidents.open_of_sender(self.connection, sender, most)
        return self._open_of_sender[sender]

    def _take_pending(self, key: ServiceKey, one: _Service) -> tuple[Signal, ...]:
        """The service's pending signals, for the caller to join; read again only after one was added."""
        if one.none_pending:
            return ()
        self._write_signals()
        pending = signals.pending(self.connection, key)
        one.none_pending = True
        self.joined.update((signal.id, signal.source) for signal in pending)
        return pending


def _keep_levels(one: _Service, new: ServiceLevels, at: datetime) -> None:
    """Keep the levels, with a note the first time that alerts are merged while an incident is open."""
    before, one.levels = one.levels, new
    if one.incident is None:
        return
    known = () if before is None else before.reasons
    merged = newly_merged(known, new.reasons, one.incident.opened_at)
    if merged:
        one.notes.append(merged_note(merged, at))


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


def _join_pending(connection: Connection, incident: Incident) -> Disposition:
    """Let the service's pending signals join the incident; the disposition that each has then."""
    reason = "the breach it was part of is an incident"
    signals.settle_pending(connection, incident.key, DispositionKind.JOINED, reason, incident.id)
    return Disposition(kind=DispositionKind.JOINED, reason=reason, incident_id=incident.id)


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


def _store_levels(connection: Connection, services: Mapping[ServiceKey, _Service]) -> None:
    """Write what differs from what is on record."""
    changed = [
        {"of_environment": key.environment, "of_service": key.service, "body": one.levels}
        for key, one in services.items()
        if one.levels is not None and one.levels is not one.stored_levels
    ]
    known = {(key.environment, key.service) for key, one in services.items() if one.stored_levels is not None}
    rows = [row for row in changed if (row["of_environment"], row["of_service"]) in known]
    new_rows = [row for row in changed if (row["of_environment"], row["of_service"]) not in known]
    if rows:
        connection.execute(_UPDATE_LEVELS, rows)
    if new_rows:
        connection.execute(_INSERT_LEVELS, new_rows)


def _store_changes(connection: Connection, found: Sequence[Change]) -> None:
    if found:
        connection.execute(
            insert(changes),
            [
                {"at": one.at, "environment": one.key.environment, "service": one.key.service, "body": one}
                for one in found
            ],
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

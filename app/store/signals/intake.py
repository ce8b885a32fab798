"""Durable intake: signals are recorded, decided and joined to incidents in one transaction (promise 9).

Everything about one service runs under that service's lock, so judging its
levels, finding its open incident and opening one are a single step, whatever
other workers do. The judgement itself is the caller's pure `IntakeDecider`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, insert

from app.agent.freshness.memory import newly_merged
from app.agent.ids import ServiceKey, SignalId
from app.agent.models import Change, Disposition, DispositionKind, Incident, Note, Signal, SignalKind
from app.agent.ports.store.signals import Accepted, IntakeVerdict, ServiceLevels
from app.store import timeline
from app.store.database import locks
from app.store.database.codec import storable_text
from app.store.database.tables import changes
from app.store.notes import merged_note, pending_note, signal_note
from app.store.signals import deliveries, ledger, openings
from app.store.signals import records as signals
from app.store.signals.deliveries import Delivery
from app.store.signals.levels import levels, store_levels

_ATTACHED = (DispositionKind.OPENED, DispositionKind.JOINED)


def accept(connection: Connection, delivery: Delivery) -> tuple[Accepted, ...]:
    if not delivery.signals:
        return ()
    deliveries.check_keys(delivery)
    before = deliveries.recorded(connection, delivery)
    if before is not None:
        return before
    locks.hold(connection, locks.Space.SERVICE, {str(signal.key) for signal in delivery.signals})
    transaction = IntakeTransaction(connection, delivery)
    transaction.look_up(delivery.signals)
    answers = tuple(
        Accepted(signal_id=signal.id, disposition=transaction.accept(signal)) for signal in delivery.signals
    )
    transaction.write()
    deliveries.keep(connection, delivery, answers)
    if transaction.entered:
        ledger.enter(connection, delivery.signals[0].key, transaction.entered)
    return answers


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
class IntakeTransaction:
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
        """Decide a queued opening again on the current state."""
        # Out of the pending ones, which may join the incident that it opens.
        being = Disposition(kind=DispositionKind.IGNORED, reason="its incident is being opened")
        signals.settle(self.connection, signal.id, being)
        disposition = self._decide(signal)
        signals.settle(self.connection, signal.id, disposition)
        if disposition.kind is DispositionKind.PENDING:
            self._service(signal.key).none_pending = False
        return disposition

    def write(self) -> None:
        """Store the decisions that are not stored yet."""
        self._write_signals()
        _store_changes(self.connection, self._changes)
        self._changes.clear()
        store_levels(
            self.connection,
            {key: (one.stored_levels, one.levels) for key, one in self._services.items()},
        )
        for one in self._services.values():
            if one.stored is not None and one.incident is not None:
                openings.store_joined(self.connection, one.stored, one.incident)
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
            known, incident = levels(self.connection, key), openings.open_incident(self.connection, key)
            self._services[key] = _Service(
                stored_levels=known,
                levels=known,
                stored=incident,
                incident=incident,
                closed=openings.last_closed(self.connection, key),
            )
        return self._services[key]

    def _true_once_more(self, signal: Signal, before: signals.Recorded) -> bool:
        """Store what a repeated signal reports on its service; True if it must be decided like a new one."""
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
            one.incident = openings.note_origin(one.incident, [signal])
        return repeat.fires_again or (ignored and one.closed is not None)

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
        if incident is None and not openings.is_known(self.connection, key):
            unknown_to = storable_text(signal.source)
            most = verdict.open_limit
            if most is not None and self._opened_by(unknown_to, most) >= most:
                reason = f"{signals.QUEUED}{signal.source} has {most} incidents open; opened as they end"
                return Disposition(kind=DispositionKind.PENDING, reason=reason)
        pending = self._take_pending(key, one) if verdict.release_pending else ()
        opened = incident is None
        if incident is None:
            incident = openings.open_new(
                self.connection,
                key,
                verdict.triggers,
                stale=signal.stale,
                dry_run=self.delivery.dry_run,
                at=openings.not_before(one.closed, signal.received_at),
                unknown_to=unknown_to,
            )
            one.stored = incident
            if unknown_to in self._open_of_sender:
                self._open_of_sender[unknown_to] += 1
        else:
            fresh = bool(verdict.triggers) and not signal.stale
            incident = openings.add_triggers(incident, verdict.triggers, fresh=fresh)
        one.incident = openings.note_origin(incident, [signal, *pending])
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
        joined = signals.join_pending(self.connection, incident)
        for found in [self._same[signal.id] for signal in pending if signal.id in self._same]:
            self._remember(replace(found, disposition=joined))

    def _opened_by(self, sender: str, most: int) -> int:
        """How many incidents of unknown services a sender has open; counted up to `most`, once."""
        if sender not in self._open_of_sender:
            self._open_of_sender[sender] = openings.open_of_sender(self.connection, sender, most)
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


def _store_changes(connection: Connection, found: Sequence[Change]) -> None:
    if found:
        connection.execute(
            insert(changes),
            [
                {"at": one.at, "environment": one.key.environment, "service": one.key.service, "body": one}
                for one in found
            ],
        )

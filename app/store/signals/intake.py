"""Durable intake: signals are recorded, decided and joined to incidents in one transaction (promise 9).

Deliveries that arrive together are one set. A few statements read the records of their signals and
services, each signal is decided in turn as if it were alone, and a few statements write the decisions. All
work on one service runs under the lock of that service, so evaluating its levels, finding its open incident
and opening one are a single step, regardless of other workers. The caller's pure `IntakeDecider` makes the
decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from msgspec import structs
from sqlalchemy import Connection, insert

from app.agent.freshness.memory import newly_merged
from app.agent.ids import ServiceKey, SignalId
from app.agent.intake.posted import HEALTHY
from app.agent.models import Change, Disposition, DispositionKind, Incident, Signal, SignalKind
from app.agent.ports.store.signals import Accepted, HealthySamples, IntakeVerdict, ServiceLevels
from app.store.database import locks
from app.store.database.codec import storable_text
from app.store.database.tables import changes
from app.store.notes import merged_note, pending_note, signal_note
from app.store.signals import deliveries, ledger, openings, services
from app.store.signals import records as signals
from app.store.signals.deliveries import Answer, Delivery
from app.store.signals.levels import Remembered, end_runs
from app.store.signals.narrow import lane, samples
from app.store.signals.narrow.lane import PostedDelivery
from app.store.signals.services import Service

_ATTACHED = (DispositionKind.OPENED, DispositionKind.JOINED)


Recorded: TypeAlias = Answer | HealthySamples
"""The answer to one delivery of a set."""


def accept(connection: Connection, given: Sequence[Delivery | PostedDelivery]) -> tuple[Recorded, ...]:
    """The answers to deliveries of which no two have the same idempotency key."""
    before: list[Recorded | None] = [*_answered_before(connection, given)]
    new = [one for one, answer in zip(given, before, strict=True) if answer is None]
    locks.hold(connection, locks.Space.SERVICE, {str(key) for one in new for key in _services_of(one)})
    taken, known = lane.take(connection, new)
    left = [one for one, answer in zip(new, taken, strict=True) if answer is None]
    ordinary = iter(_accept_new(connection, [_ordinary(one) for one in left], known))
    answers = iter([next(ordinary) if answer is None else answer for answer in taken])
    return tuple(next(answers) if answer is None else answer for answer in before)


def _answered_before(
    connection: Connection, given: Sequence[Delivery | PostedDelivery]
) -> list[Answer | None]:
    """What those deliveries were answered whose idempotency keys are on record."""
    keyed = [one for one in given if isinstance(one, Delivery) and one.idempotency_key is not None]
    recorded = deliveries.recorded(connection, keyed) if keyed else {}
    return [
        recorded.get(one.idempotency_key)
        if isinstance(one, Delivery) and one.idempotency_key is not None
        else None
        for one in given
    ]


def _services_of(one: Delivery | PostedDelivery) -> Iterator[ServiceKey]:
    if isinstance(one, Delivery):
        return (signal.key for signal in one.signals)
    return (sample.key for sample in one.posted.samples)


def _ordinary(one: Delivery | PostedDelivery) -> Delivery:
    return one if isinstance(one, Delivery) else one.ordinary()


def _accept_new(
    connection: Connection, given: Sequence[Delivery], known: Mapping[ServiceKey, Remembered]
) -> list[tuple[Accepted, ...]]:
    """The answers to deliveries whose services are locked; `known` are records read before."""
    everything = [signal for one in given for signal in one.signals]
    if not everything:
        return [() for _ in given]
    transaction = IntakeTransaction(connection, known)
    transaction.look_up(everything)
    answers = [
        tuple(
            Accepted(signal_id=signal.id, disposition=transaction.accept(signal, one))
            for signal in one.signals
        )
        for one in given
    ]
    transaction.write()
    deliveries.keep(connection, list(zip(given, answers, strict=True)))
    if transaction.entered:
        ledger.enter(connection, everything[0].key, transaction.entered)
    return answers


@dataclass(slots=True)
class IntakeTransaction:
    """Takes the signals of one transaction in turn, and keeps the data read for each service.

    `write` writes the decisions, once for each service and incident. Both are safe while the services'
    locks and the incidents' row locks are held.
    """

    connection: Connection
    read: Mapping[ServiceKey, Remembered] = field(default_factory=dict)
    """The records that this transaction has already read."""
    entered: list[datetime] = field(default_factory=list)
    """When each signal arrived that is now on record and was not before."""
    joined: dict[SignalId, str] = field(default_factory=dict)
    """Queued openings that joined an incident with others of their service, and their senders."""
    _same: dict[SignalId, signals.Recorded] = field(default_factory=dict)
    _first: dict[str, signals.Recorded] = field(default_factory=dict)
    """By deduplication key."""
    _services: dict[ServiceKey, Service] = field(default_factory=dict)
    _known: set[ServiceKey] | None = None
    """Services that the agent has observed itself; None until they are read."""
    _pending: dict[ServiceKey, tuple[Signal, ...]] | None = None
    """Signals on record that wait, by service; None while they were not read."""
    _on_record: int | None = None
    """Services on record before this transaction; None while they were not counted."""
    _added: set[ServiceKey] = field(default_factory=set)
    """Services that this transaction adds to them."""
    _open_of_sender: dict[str, int] = field(default_factory=dict)
    """On record before this transaction."""
    _opened_of_sender: dict[str, int] = field(default_factory=dict)
    """By this transaction."""
    _decided: list[tuple[Signal, Disposition]] = field(default_factory=list)
    _changes: list[Change] = field(default_factory=list)

    def look_up(self, given: Sequence[Signal]) -> None:
        """Read the records of these signals, of their observations and of their services."""
        for found in signals.on_record(self.connection, given):
            self._remember(found)
        self.look_up_services(given)
        self._look_up_samples(given)

    def _look_up_samples(self, given: Sequence[Signal]) -> None:
        """Read those samples on record in narrow rows that these signals may repeat."""
        wanted: dict[ServiceKey, list[datetime]] = {}
        for signal in given:
            if samples.may_repeat(signal) and self._services[signal.key].newest_sample is not None:
                wanted.setdefault(signal.key, []).append(signal.observed_at)
        for key, moments in wanted.items():
            newest = self._services[key].newest_sample
            for found in samples.observed(self.connection, key, newest, moments):
                self._remember(signals.Recorded(id=found.id, dedup_key=found.dedup_key, disposition=HEALTHY))

    def look_up_services(self, given: Sequence[Signal]) -> None:
        """Read the services of these signals."""
        keys = dict.fromkeys(signal.key for signal in given)
        new = [key for key in keys if key not in self._services]
        self._services |= services.read(self.connection, new, self.read)

    def accept(self, signal: Signal, delivery: Delivery) -> Disposition:
        before = self._same.get(signal.id) or self._first.get(storable_text(signal.dedup_key))
        if before is not None and (
            before.id == signal.id or not self._true_once_more(signal, before, delivery)
        ):
            return self._repeat(signal, before)
        if before is not None:  # its old key stays with the first one
            signal = replace(signal, dedup_key=f"{signal.id} again")
        disposition = self._decide(signal, delivery)
        self._record(signal, disposition)
        return disposition

    def again(self, signal: Signal, delivery: Delivery) -> Disposition:
        """Decide a queued opening again on the current state."""
        # Out of the pending ones, which may join the incident that it opens.
        being = Disposition(kind=DispositionKind.IGNORED, reason="its incident is being opened")
        signals.settle(self.connection, signal.id, being)
        if self._pending is not None:
            others = self._pending.get(signal.key, ())
            self._pending[signal.key] = tuple(one for one in others if one.id != signal.id)
        disposition = self._decide(signal, delivery)
        self.write()
        signals.settle(self.connection, signal.id, disposition)
        if disposition.kind is DispositionKind.PENDING:
            self._services[signal.key].none_pending, self._pending = False, None
        return disposition

    def write(self) -> None:
        """Store the decisions that are not stored yet."""
        self._write_signals()
        _store_changes(self.connection, self._changes)
        self._changes.clear()
        services.write_levels(self.connection, [*self._services.values()])

    def _write_signals(self) -> None:
        """With the incidents that they name."""
        every = [*self._services.values()]
        services.write_incidents(self.connection, every)
        signals.join_pending(self.connection, [one.incident for one in every if one.joined_pending])
        signals.add(self.connection, self._decided)
        end_runs(
            self.connection,
            {signal.key for signal, _ in self._decided if signal.kind is SignalKind.METRIC},
        )
        self._decided.clear()
        for one in every:
            one.joined_pending = False

    def _decide(self, signal: Signal, delivery: Delivery) -> Disposition:
        one = self._services[signal.key]
        verdict = delivery.decide(signal, one.levels, one.incident, one.closed)
        if verdict.service_limit is not None and not self._has_room(one, verdict.service_limit):
            reason = (
                f"not evaluated: {verdict.service_limit} services are on record, the limit of MAX_SERVICES"
            )
            return Disposition(kind=DispositionKind.IGNORED, reason=reason)
        if verdict.levels is not None:
            _keep_levels(one, verdict.levels, signal.received_at)
        if verdict.change is not None:
            self._changes.append(verdict.change)
        disposition = verdict.disposition
        if disposition.kind in _ATTACHED:
            disposition = self._attach(signal, one, verdict, delivery)
        return disposition

    def _true_once_more(self, signal: Signal, before: signals.Recorded, delivery: Delivery) -> bool:
        """Store the effect of a repeated signal on its service; True if it must be decided like a new one."""
        if delivery.again is None or signal.kind is not SignalKind.ALERT:
            return False
        one = self._services[signal.key]
        # It was ignored for the sake of an incident that has ended since: what holds now decides.
        ignored = before.disposition.kind is DispositionKind.IGNORED and one.incident is None
        repeat = delivery.again(signal, one.levels, one.incident)
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
            one = self._services[signal.key]
            one.none_pending, one.added_pending = False, True
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

    def _attach(
        self, signal: Signal, one: Service, verdict: IntakeVerdict, delivery: Delivery
    ) -> Disposition:
        """Open, queue or join, by the state of the service: it has at most one open incident."""
        incident, unknown_to = one.incident, None
        if incident is None and not self._is_known(one.key):
            unknown_to = storable_text(signal.source)
            most = verdict.open_limit
            if most is not None and self._opened_by(unknown_to, most) >= most:
                reason = f"{signals.QUEUED}{signal.source} has {most} incidents open; opened as they end"
                return Disposition(kind=DispositionKind.PENDING, reason=reason)
        pending = self._take_pending(one) if verdict.release_pending else ()
        opened = incident is None
        if incident is None:
            incident = openings.new_incident(
                one.key,
                verdict.triggers,
                stale=signal.stale,
                dry_run=delivery.dry_run,
                at=openings.not_before(one.closed, signal.received_at),
            )
            one.opened(incident, unknown_to, [signal, *pending])
            if unknown_to is not None:
                self._opened_of_sender[unknown_to] = self._opened_of_sender.get(unknown_to, 0) + 1
        else:
            fresh = bool(verdict.triggers) and not signal.stale
            incident = openings.add_triggers(incident, verdict.triggers, fresh=fresh)
        one.incident = openings.note_origin(incident, [signal, *pending])
        one.notes.append(signal_note(signal, verdict.triggers, opened=opened))
        if pending:
            one.notes.append(pending_note(pending, incident.opened_at))
            self._join(pending, one, incident)
        return Disposition(
            kind=DispositionKind.OPENED if opened else DispositionKind.JOINED,
            reason=verdict.disposition.reason,
            incident_id=incident.id,
        )

    def _join(self, pending: Sequence[Signal], one: Service, incident: Incident) -> None:
        """The pending signals join the incident: a later duplicate of one is answered with it."""
        one.joined_pending = True
        joined = signals.joined_later(incident)
        for found in [self._same[signal.id] for signal in pending if signal.id in self._same]:
            self._remember(structs.replace(found, disposition=joined))

    def _is_known(self, key: ServiceKey) -> bool:
        """Whether the agent has observed the service; read once, for every service of the transaction."""
        if self._known is None:
            self._known = services.known(self.connection, self._services)
        return key in self._known

    def _has_room(self, one: Service, most: int) -> bool:
        """Whether the service is on record, or may be added; those on record are counted once."""
        if one.levels is not None or one.incident is not None or one.closed is not None:
            return True
        if one.key in self._added or self._is_known(one.key):
            return True
        if self._on_record is None:
            self._on_record = services.count(self.connection, most)
        if self._on_record + len(self._added) >= most:
            return False
        self._added.add(one.key)
        return True

    def _opened_by(self, sender: str, most: int) -> int:
        """How many incidents of unknown services a sender has open; counted up to `most`, once."""
        if sender not in self._open_of_sender:
            self._open_of_sender[sender] = openings.open_of_sender(self.connection, sender, most)
        return self._open_of_sender[sender] + self._opened_of_sender.get(sender, 0)

    def _take_pending(self, one: Service) -> tuple[Signal, ...]:
        """The service's pending signals, for the caller to join; read again only after one was added."""
        if one.none_pending:
            return ()
        if self._pending is None:
            waiting = [key for key, each in self._services.items() if not each.none_pending]
            self._pending = signals.pending(self.connection, waiting)
        if one.added_pending:
            self._write_signals()
            self._pending |= signals.pending(self.connection, [one.key])
            one.added_pending = False
        pending = self._pending.get(one.key, ())
        one.none_pending = True
        self.joined.update((signal.id, signal.source) for signal in pending)
        return pending


def _keep_levels(one: Service, new: ServiceLevels, at: datetime) -> None:
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

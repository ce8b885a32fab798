"""Signals over SQL: intake, and the records of their services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from operator import itemgetter

from sqlalchemy import Connection, select

from app.agent.ids import IncidentId, ServiceKey, SignalId
from app.agent.intake.posted import HEALTHY, signals_of
from app.agent.models import (
    POLLED,
    Change,
    Disposition,
    DispositionKind,
    MetricSample,
    PostedSamples,
    Signal,
    SignalKind,
    SliSample,
    Trigger,
)
from app.agent.ports.store.signals import (
    Accepted,
    Dequeued,
    HealthySamples,
    IntakeDecider,
    Queued,
    RepeatDecider,
    SampleRules,
    SamplesAnswer,
    ServiceLevels,
    SignalRecord,
)
from app.errors import Invalid, PartlyRecorded, TransientError
from app.store.database import locks
from app.store.database.codec import read
from app.store.database.port import Database
from app.store.database.repository import MOST_BATCHES, Repository, reads, writes
from app.store.database.tables import changes, service_levels, signals
from app.store.notes import pending_note, signal_note
from app.store.signals import deliveries, openings, records, services
from app.store.signals.deliveries import Delivery
from app.store.signals.gathering import Gathering
from app.store.signals.intake import IntakeTransaction
from app.store.signals.levels import levels, newest_sample
from app.store.signals.narrow import sample_records, samples
from app.store.signals.narrow.lane import PostedDelivery

PARTS_AT_ONCE = 2
"""Parts of large deliveries in progress: operators wait only for these, not for all deliveries."""
SAMPLES_SHOWN = 1_000
CHANGES_SHOWN = 500
_ATTACHED = [DispositionKind.OPENED.value, DispositionKind.JOINED.value]


class SqlSignals(Repository):
    """`SignalRepository` over SQL."""

    def __init__(self, database: Database, *, narrow_samples: bool = False) -> None:
        super().__init__(database)
        self._narrow = narrow_samples
        self._large = asyncio.Semaphore(PARTS_AT_ONCE)
        """Held for each part of a large delivery."""
        self._gathering = Gathering(self)

    async def accept(
        self,
        signals: Sequence[Signal],
        decide: IntakeDecider,
        *,
        again: RepeatDecider | None = None,
        dry_run: bool,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> tuple[Accepted, ...]:
        delivery = Delivery(
            signals=tuple(signals),
            decide=decide,
            again=again,
            dry_run=dry_run,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        if not delivery.signals:
            return ()
        deliveries.check(delivery)
        if len(deliveries.parts(delivery)) == 1:
            return _as_signals(await self._gathering.accept(delivery))
        return await self._accept_in_parts(delivery)

    async def accept_samples(
        self, posted: PostedSamples, rules: SampleRules, *, dry_run: bool
    ) -> SamplesAnswer:
        if not posted.samples:
            return ()
        if len(posted.samples) > deliveries.PART:
            signals = signals_of(posted)
            return await self.accept(signals, rules, again=rules.again, dry_run=dry_run)
        return await self._gathering.accept(PostedDelivery(posted, rules, dry_run, self._narrow))

    def post_samples(
        self,
        posted: PostedSamples,
        rules: SampleRules,
        *,
        dry_run: bool,
        done: Callable[[SamplesAnswer | Exception], None],
    ) -> None:
        self._gathering.post(PostedDelivery(posted, rules, dry_run, self._narrow), done)

    async def _accept_in_parts(self, delivery: Delivery) -> tuple[Accepted, ...]:
        """One transaction for each part, so that others get their turn between two parts.

        Raises `PartlyRecorded` where the store stops answering between two of them.
        """
        recorded = await self.database.write(lambda connection: deliveries.recorded(connection, [delivery]))
        for answer in recorded.values():
            if isinstance(answer, Invalid):
                raise answer
            return answer
        places = deliveries.by_service(delivery)
        sorted_out = replace(delivery, signals=tuple(delivery.signals[place] for place in places))
        answers: list[Accepted] = []
        try:
            for part in deliveries.parts(sorted_out):
                async with self._large:
                    answers += _as_signals(await self._gathering.accept(part))
            in_order = tuple(
                answer for _, answer in sorted(zip(places, answers, strict=True), key=lambda pair: pair[0])
            )
            await self.database.write(lambda connection: deliveries.record(connection, delivery, in_order))
        except TransientError as error:
            if not answers:
                raise
            raise PartlyRecorded(
                str(error), recorded=len(answers), total=len(delivery.signals), retry_after=error.retry_after
            ) from error
        return in_order

    @reads
    def get(self, connection: Connection, signal_id: SignalId) -> SignalRecord | None:
        number = samples.number_of(signal_id)
        sample = None if number is None else samples.get(connection, number)
        if sample is not None:
            return SignalRecord(signal=sample, disposition=HEALTHY)
        row = connection.execute(select(signals).where(signals.c.id == signal_id)).one_or_none()
        return (
            None
            if row is None
            else SignalRecord(signal=records.signal_of(row), disposition=records.disposition_of(row))
        )

    @reads
    def known(self, connection: Connection, dedup_keys: Sequence[str]) -> frozenset[str]:
        return records.known(connection, dedup_keys)

    @reads
    def of_incident(self, connection: Connection, incident_id: IncidentId, limit: int) -> tuple[Signal, ...]:
        if limit < 1:
            return ()
        attached = select(signals).where(
            signals.c.incident_id == incident_id, signals.c.disposition.in_(_ATTACHED)
        )
        first = connection.execute(attached.order_by(signals.c.number).limit(1)).all()
        newest = connection.execute(attached.order_by(signals.c.number.desc()).limit(limit)).all()[::-1]
        if newest and newest[0].number != first[0].number:
            newest = [first[0], *newest[1:]]
        return tuple(records.signal_of(row) for row in newest)

    @reads
    def pending_services(
        self, connection: Connection, service: str, environment: str | None
    ) -> tuple[ServiceKey, ...]:
        waiting = select(signals.c.environment).where(signals.c.service == service, records.WAITING)
        measured = select(service_levels.c.environment).where(service_levels.c.service == service)
        environments = connection.execute(waiting.union(measured)).scalars()
        return tuple(
            ServiceKey(environment=found, service=service)
            for found in sorted(environments)
            if environment in {None, found}
        )

    @reads
    def levels(self, connection: Connection, key: ServiceKey) -> ServiceLevels | None:
        return levels(connection, key)

    @writes
    def open_from_pending(
        self,
        connection: Connection,
        key: ServiceKey,
        triggers: Sequence[Trigger],
        *,
        dry_run: bool,
        at: datetime,
    ) -> IncidentId | None:
        locks.hold(connection, locks.Space.SERVICE, [str(key)])
        pending = records.pending(connection, [key]).get(key)
        if not pending:
            return None
        service = services.read(connection, [key])[key]
        incident, first = service.incident, pending[0]
        stale = all(signal.stale for signal in pending)
        if incident is not None:
            incident = openings.add_triggers(incident, triggers, fresh=bool(triggers) and not stale)
            service.notes.append(pending_note(pending, incident.opened_at))
        else:
            incident = openings.new_incident(
                key, triggers, stale=stale, dry_run=dry_run, at=openings.not_before(service.closed, at)
            )
            service.opened(incident, None, pending)
            service.notes.append(signal_note(first, triggers, opened=True))
            if pending[1:]:
                service.notes.append(pending_note(pending[1:], incident.opened_at))
        opened = service.stored is None
        service.incident = openings.note_origin(incident, pending)
        services.write_incidents(connection, [service])
        if opened:
            reason = "acted on before the breach had lasted"
            became = Disposition(kind=DispositionKind.OPENED, reason=reason, incident_id=incident.id)
            records.settle(connection, first.id, became)
        records.join_pending(connection, [incident])
        return incident.id

    @writes
    def open_queued(
        self, connection: Connection, decide: IntakeDecider, *, dry_run: bool, limit: int
    ) -> Dequeued:
        """Every sender in turn gets its share of `limit`; a sender at its limit keeps its place."""
        # Counting them reads every queued signal, so that it is done once.
        queues, ended = dict(records.queues(connection)), 0
        share = max(1, limit // max(1, len(queues)))
        for sender in tuple(queues):
            waiting = records.queued(connection, sender, share)
            locks.hold(connection, locks.Space.SERVICE, {str(signal.key) for signal in waiting})
            delivery = Delivery(signals=waiting, decide=decide, dry_run=dry_run)
            transaction = IntakeTransaction(connection)
            transaction.look_up_services(waiting)
            for signal in waiting:
                if signal.id not in transaction.joined:
                    if transaction.again(signal, delivery).reason.startswith(records.QUEUED):
                        break
                    queues[sender] -= 1
                ended += 1
            transaction.write()
            for other in transaction.joined.values():
                queues[other] = queues.get(other, 0) - 1
        return Dequeued(
            ended=ended,
            queued=tuple(
                Queued(sender=sender, waiting=left, newest=openings.newest_of_sender(connection, sender))
                for sender, left in sorted(queues.items())
                if left > 0
            ),
        )

    async def expire_pending(self, older_than: datetime) -> int:
        return await self.in_batches(partial(records.expire_pending, older_than=older_than), records.BATCH)

    async def prune(self, older_than: datetime) -> int:
        pruned = await self.in_batches(partial(records.prune, older_than=older_than), records.BATCH)
        pruned += await self._prune_samples(older_than)
        return pruned + await self.in_batches(
            partial(records.prune_changes, older_than=older_than), records.BATCH
        )

    async def _prune_samples(self, older_than: datetime) -> int:
        """As `in_batches`; a batch that finds nothing to delete among older rows does not count."""
        total = batches = 0
        after: int | None = 0
        while after is not None and batches < MOST_BATCHES:
            prune = partial(sample_records.prune, older_than=older_than, after=after)
            done, after = await self.database.write(prune)
            total += done
            batches += done > 0
        return total

    @reads
    def samples(self, connection: Connection, key: ServiceKey, since: datetime) -> tuple[SliSample, ...]:
        rows = connection.execute(
            select(signals.c.observed_at, signals.c.payload, signals.c.source)
            .where(
                signals.c.environment == key.environment,
                signals.c.service == key.service,
                signals.c.kind == SignalKind.METRIC.value,
                signals.c.observed_at >= since,
                signals.c.duplicate_of.is_(None),
            )
            .order_by(signals.c.observed_at.desc(), signals.c.number.desc())
            .limit(SAMPLES_SHOWN)
        ).all()
        found = [
            (row.observed_at, read(MetricSample, row.payload), row.source == POLLED) for row in reversed(rows)
        ]
        newest = newest_sample(connection, key)
        chain = samples.since(connection, newest, since, SAMPLES_SHOWN)
        found += [(at, sample, False) for at, sample in reversed(chain)]
        found.sort(key=itemgetter(0))
        return tuple(
            SliSample(
                at=at,
                error_rate=sample.error_rate,
                p95_latency_ms=sample.p95_latency_ms,
                request_rate=sample.request_rate,
                measured=measured,
            )
            for at, sample, measured in found[-SAMPLES_SHOWN:]
        )

    @reads
    def changes(
        self, connection: Connection, since: datetime, *, of: ServiceKey | None = None
    ) -> tuple[Change, ...]:
        wanted = select(changes.c.body).where(changes.c.at >= since)
        if of is not None:
            wanted = wanted.where(changes.c.environment == of.environment, changes.c.service == of.service)
        rows = connection.execute(
            wanted.order_by(changes.c.at.desc(), changes.c.number.desc()).limit(CHANGES_SHOWN)
        )
        return tuple(read(Change, row.body) for row in rows)


def _as_signals(answer: SamplesAnswer) -> tuple[Accepted, ...]:
    return answer.accepted() if isinstance(answer, HealthySamples) else answer

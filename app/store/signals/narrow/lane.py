"""The healthy lane: posted samples that are recorded by one narrow row each, before everything else of a set.

A delivery takes the lane if each of its samples is healthy, newer than all records of its service, and
about a recorded service (see `HealthyRun`). The lane decides nothing about any other delivery: it takes the
ordinary path as if there were no lane. Every later delivery of the set about one of its services follows
it, so that the deliveries about one service keep their order.

A process whose store keeps no narrow rows (see `store_over`) has no lane. On PostgreSQL there is no lane
while a process of an older program is running.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from sqlalchemy import Connection

from app.agent.identity.people import Sender
from app.agent.ids import ServiceKey, SignalId
from app.agent.intake.posted import HEALTHY, HealthyRun, run_of, signals_of
from app.agent.models import PostedSample, PostedSamples
from app.agent.ports.store.signals import HealthySamples, SampleRules
from app.store.database.codec import dumps
from app.store.signals.deliveries import Delivery
from app.store.signals.ledger import SHARDS
from app.store.signals.levels import Remembered, advance, remembered
from app.store.signals.narrow import sample_records, samples, shared
from app.store.signals.postgresql_driver import is_postgresql

_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class PostedDelivery:
    """Samples that one request posted."""

    posted: PostedSamples
    rules: SampleRules
    dry_run: bool
    narrow: bool
    """Whether narrow rows may be written for it."""
    _ordinary: Delivery | None = None

    @property
    def size(self) -> int:
        """How many samples it has."""
        return len(self.posted.samples)

    def ordinary(self) -> Delivery:
        """The same samples as signals, which keep their ids when they are recorded again."""
        if self._ordinary is None:
            self._ordinary = Delivery(
                signals=signals_of(self.posted),
                decide=self.rules,
                again=self.rules.again,
                dry_run=self.dry_run,
            )
        return self._ordinary


def take(
    connection: Connection, given: Sequence[Delivery | PostedDelivery]
) -> tuple[list[HealthySamples | None], dict[ServiceKey, Remembered]]:
    """Record those deliveries of a set that take the lane: their answers, and None in the place of others.

    Also returns the records of the services that were read. The caller holds the locks of all services.
    """
    posted = [one for one in given if isinstance(one, PostedDelivery) and one.narrow]
    if not posted:
        return [None] * len(given), {}
    keys = {sample.key: None for one in posted for sample in one.posted.samples}
    if is_postgresql(connection):
        found = shared.read(connection, keys, sum(one.size for one in posted))
        if found.numbers is None:
            return [None] * len(given), found.known
        _begin_runs(found.known, found.of_signals)
        lane = _Lane(connection, found.known, found.numbers)
    else:
        lane = _Lane(connection, _known(connection, keys))
    answers = [lane.answer(one) for one in given]
    lane.write()
    return answers, lane.known


@dataclass(slots=True)
class _Lane:
    """The deliveries of one transaction, in turn."""

    connection: Connection
    known: dict[ServiceKey, Remembered]
    numbers: Sequence[int] | None = None
    """For new rows, where several processes share the database; at least as many as may be needed."""
    taken: list[tuple[PostedSamples, list[SignalId]]] = field(default_factory=list)
    """With the ids of their signals, which are given out at the end."""
    left: set[ServiceKey] = field(default_factory=set)
    """Services of deliveries that take the ordinary path."""

    def answer(self, one: Delivery | PostedDelivery) -> HealthySamples | None:
        if isinstance(one, Delivery):
            self.left.update(signal.key for signal in one.signals)
            return None
        posted = one.posted
        runs = self._runs(posted, one.rules) if one.narrow else None
        if runs is None:
            self.left.update(sample.key for sample in posted.samples)
            return None
        for run, sample in zip(runs, posted.samples, strict=True):
            run.take(sample, posted.received_at)
        ids: list[SignalId] = []
        self.taken.append((posted, ids))
        return HealthySamples(ids, HEALTHY)

    def _runs(self, posted: PostedSamples, rules: SampleRules) -> list[HealthyRun] | None:
        """The run of each sample if all of them take the lane; nothing is changed yet."""
        runs: list[HealthyRun] = []
        newest: dict[ServiceKey, datetime] = {}
        for sample in posted.samples:
            key = sample.key
            run = self.known[key].run
            if run is None or key in self.left:
                return None
            if key not in newest:
                run.judge_by(rules.slo)
            elif sample.observed_at <= newest[key]:
                return None
            if not run.takes(sample, posted.received_at):
                return None
            newest[key] = sample.observed_at
            runs.append(run)
        return runs

    def write(self) -> None:
        """Store the taken samples, and the levels after them."""
        if not self.taken:
            return
        numbers = self.numbers
        if numbers is None:
            many = sum(len(posted.samples) for posted, _ in self.taken)
            numbers = samples.next_numbers(self.connection, many)
        free = iter(numbers)
        rows: list[list[object]] = []
        touched: dict[ServiceKey, Remembered] = {}
        for posted, ids in self.taken:
            received_at, sender = samples.micros_of(posted.received_at), _written(posted.sender)
            for sample in posted.samples:
                one = touched[sample.key] = self.known[sample.key]
                number = next(free)
                ids.append(samples.id_of(number))
                rows.append(_row(number, one.newest_sample, sample, posted, received_at, sender))
                one.newest_sample = number
        for one in touched.values():
            if one.run is not None:
                one.levels, one.newest_at = one.run.after(), samples.micros_of(one.run.newest)
        first = self.taken[0][0].samples[0].key
        shard = zlib.crc32(str(first).encode("utf-8", "replace")) % SHARDS
        arrivals = [(posted.received_at, len(posted.samples)) for posted, _ in self.taken]
        if self.numbers is not None:
            shared.write(self.connection, rows, touched.items(), shard, sample_records.by_day(arrivals))
            return
        samples.add(self.connection, rows)
        advance(self.connection, touched.items())
        sample_records.enter(self.connection, shard, arrivals)


def _known(connection: Connection, keys: Collection[ServiceKey]) -> dict[ServiceKey, Remembered]:
    """What is on record of the services, each with a run if healthy samples of it may take the lane."""
    known = remembered(connection, keys)
    new = [key for key in keys if known[key].run is None and known[key].levels is not None]
    if new:
        _begin_runs({key: known[key] for key in new}, samples.observed_in_signals(connection, new))
    return known


def _begin_runs(known: Mapping[ServiceKey, Remembered], signals: Mapping[ServiceKey, datetime]) -> None:
    """Give each service its run, from the newest of its rows and the newest of its `signals` on."""
    for key, one in known.items():
        if one.levels is not None:
            newest = _LONG_AGO if one.newest_at is None else samples.moment_of(one.newest_at)
            one.run = run_of(one.levels, max(newest, signals.get(key, newest)))


def _row(
    number: int,
    previous: int | None,
    sample: PostedSample,
    posted: PostedSamples,
    received_at: int,
    sender: str | None,
) -> list[object]:
    """In the order of the columns of `samples.add`."""
    flags = samples.STALE if posted.received_at - sample.observed_at > posted.stale_after else 0
    if sample.crash_looping is not None:
        flags |= samples.NOT_CRASH_LOOPING
    return [
        number,
        previous,
        sample.key.environment,
        sample.key.service,
        samples.micros_of(sample.observed_at),
        received_at,
        sample.error_rate,
        sample.p95_latency_ms,
        flags,
        sender,
    ]


@lru_cache(maxsize=1024)
def _written(sender: Sender | None) -> str | None:
    return None if sender is None else dumps(sender)

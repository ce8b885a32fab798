"""Deliveries of signals: their parts, and the repeated answers for idempotency keys.

A delivery of many signals, or about many services, is recorded in parts, each in its own transaction, so
that it never blocks the writer for longer than one part. Signals of one service follow each other in the
parts, because a transaction reads and writes a service, its incident and its timeline once, regardless of
the number of signals. The sender gets the answer after the last part. If the process dies in between, the
sender repeats the delivery: recorded signals are recognised by their deduplication keys, and if the
delivery has an idempotency key, each part gives its first answer again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import TypeAlias

from sqlalchemy import Connection, and_, delete, insert, or_, select

from app.agent.ids import ServiceKey
from app.agent.models import Signal
from app.agent.ports.store.signals import Accepted, IntakeDecider, RepeatDecider
from app.errors import Invalid
from app.store.database import locks
from app.store.database.codec import read
from app.store.database.tables import idempotency_keys

IDEMPOTENCY_KEPT = timedelta(hours=24)
PART = 100
"""Signals that one part of a delivery has at most."""
PART_SERVICES = 100
"""Services that one part of a delivery concerns at most: with `PART` it takes some 20 ms."""
KEY_LIMIT_BYTES = 1024
"""Longest deduplication or idempotency key: both stand in indexes, whose entries are bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one call of `accept` brings."""

    signals: tuple[Signal, ...]
    decide: IntakeDecider
    dry_run: bool
    idempotency_key: str | None = None
    request_hash: str | None = None
    again: RepeatDecider | None = None

    @property
    def size(self) -> int:
        """How many signals it has."""
        return len(self.signals)

    @property
    def at(self) -> datetime:
        """When the delivery arrived: the reference for the age of an idempotency key."""
        return max(signal.received_at for signal in self.signals)


def by_service(delivery: Delivery) -> tuple[int, ...]:
    """The positions of the signals, grouped by service, in their order within each service."""
    places: dict[ServiceKey, list[int]] = {}
    for place, signal in enumerate(delivery.signals):
        places.setdefault(signal.key, []).append(place)
    return tuple(chain.from_iterable(places.values()))


def parts(delivery: Delivery) -> tuple[Delivery, ...]:
    """The delivery in parts of at most `PART` signals about at most `PART_SERVICES` services.

    Only the part of a delivery that needs no second one has the delivery's own idempotency key. The key of
    other parts is a hash of it and the position of the part: no sender can send it, and a repetition of the
    delivery gives the same keys.
    """
    if len(delivery.signals) <= min(PART, PART_SERVICES):
        return (delivery,)
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


Answer: TypeAlias = tuple[Accepted, ...] | Invalid
"""The answer to a delivery: its signals, or the reason why its key cannot be used."""


def recorded(connection: Connection, given: Sequence[Delivery]) -> dict[str, Answer]:
    """What deliveries with these idempotency keys were answered, or are refused with; held until the end."""
    by_key = {one.idempotency_key: one for one in given if one.idempotency_key is not None}
    if not by_key:
        return {}
    locks.hold(connection, locks.Space.IDEMPOTENCY, by_key)
    return _recorded_answers(connection, by_key)


def record(connection: Connection, delivery: Delivery, answers: tuple[Accepted, ...]) -> None:
    """Store the answer to a delivery whose parts are all recorded; the first stored answer is kept."""
    if not recorded(connection, [delivery]):
        keep(connection, [(delivery, answers)])


def keep(connection: Connection, answered: Sequence[tuple[Delivery, tuple[Accepted, ...]]]) -> None:
    """Keep the answers to those deliveries that have an idempotency key."""
    rows = [
        {
            "key": delivery.idempotency_key,
            "request_hash": delivery.request_hash,
            "recorded_at": delivery.at,
            "answer": answers,
        }
        for delivery, answers in answered
        if delivery.idempotency_key is not None
    ]
    if rows:
        connection.execute(insert(idempotency_keys), rows)


def check(delivery: Delivery) -> None:
    """Raise `Invalid` for a time without a zone, and for a key that no index can hold."""
    for signal in delivery.signals:
        for at in (signal.observed_at, signal.received_at):
            if at.tzinfo is not UTC and (at.tzinfo is None or at.utcoffset() is None):
                raise Invalid(f"a value cannot be stored: the time {at.isoformat()} has no zone")
    keys = [("dedup_key", signal.dedup_key) for signal in delivery.signals]
    if delivery.idempotency_key is not None:
        keys.append(("idempotency key", delivery.idempotency_key))
    for name, value in keys:
        if len(value) * 4 > KEY_LIMIT_BYTES and len(value.encode("utf-8", "replace")) > KEY_LIMIT_BYTES:
            raise Invalid(f"{name} is longer than {KEY_LIMIT_BYTES} bytes; use a hash of it")


def _recorded_answers(connection: Connection, by_key: Mapping[str, Delivery]) -> dict[str, Answer]:
    """The answers given to these keys within the last day; also forgets keys that are older."""
    cutoff = max(one.at for one in by_key.values()) - IDEMPOTENCY_KEPT
    aged = (
        select(idempotency_keys.c.key)
        .where(idempotency_keys.c.recorded_at < cutoff)
        .order_by(idempotency_keys.c.recorded_at)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    expired = or_(
        idempotency_keys.c.key.in_(aged),
        and_(idempotency_keys.c.key.in_([*by_key]), idempotency_keys.c.recorded_at < cutoff),
    )
    connection.execute(delete(idempotency_keys).where(expired))
    rows = connection.execute(select(idempotency_keys).where(idempotency_keys.c.key.in_([*by_key])))
    return {
        row.key: read(tuple[Accepted, ...], row.answer)
        if row.request_hash == by_key[row.key].request_hash
        else Invalid("this Idempotency-Key was used for another request; use a new key for a new request")
        for row in rows
    }

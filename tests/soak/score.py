"""What happens in a soak, and when: every message, every breakage, every kill, from one seed.

A score is a value: the same seed and size give the same one. Times are seconds
from the beginning; timestamps inside messages are fixed once the beginning is
known, so that a repeated message is the same to the byte.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from tests import sizes
from tests.soak.wire import ENVIRONMENT, Breakage

DEPLOYS, METRICS = "/events/deploy", "/events/metric"

BATCH = 5
"""Most entries of one request."""

REST_SECONDS = 20.0
"""A service that was broken is left alone for this long."""

MEND_AFTER_SECONDS = 14.0
"""By then a person has put right what no action of the agent can."""

MEDDLED_SHARE = 0.15
"""Of the other breakages, those that a person mends while the agent is at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a soak is; each figure can be set by an environment variable, such as SOAK_SIGNALS."""

    seed: int = 4
    services: int = 200
    signals: int = 10_000
    seconds: int = 150
    """How long signals are sent, things break and processes are killed."""
    kills: int = 32
    breakages: int = 200
    workers: int = 4
    apis: int = 2
    senders: int = 32

    @classmethod
    def from_environment(cls, **changes: int) -> Size:
        """The defaults, or the size of a change (`tests.sizes`), with `changes`; the environment wins."""
        given = {
            field.name: int(os.environ[name])
            for field in fields(cls)
            if (name := f"SOAK_{field.name.upper()}") in os.environ
        }
        return replace(cls(), **{**sizes.soak_changes(), **changes, **given})


class Manner(StrEnum):
    """How a message relates to the truth and to time."""

    PLAIN = "plain"
    BATCHED = "batched"
    DUPLICATE = "duplicate"
    """The very same observations again, under another idempotency key."""
    LATE = "late"
    """An hour old: stale on arrival."""
    EARLY = "early"
    """From the future, by less than is tolerated."""
    REORDERED = "reordered"
    """Older than what was reported before."""
    SKEWED = "skewed"
    """By a sender whose clock is off by up to two minutes, either way."""
    IMPOSSIBLE = "impossible"
    """From too far in the future: must be refused, and leave no trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request, or that many messages of a stream."""

    at: float
    path: str
    entries: tuple[dict[str, Any], ...]
    """Bodies without their timestamp."""
    moments: tuple[float, ...]
    """The timestamp of each entry, as seconds from the beginning."""
    manner: Manner
    key: str
    """The idempotency key, the same for every attempt."""

    def bodies(self, beginning: datetime) -> list[dict[str, Any]]:
        """The entries as they are sent."""
        return [
            {**entry, "timestamp": (beginning + timedelta(seconds=moment)).isoformat()}
            for entry, moment in zip(self.entries, self.moments, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An action of people on the world: break a service, or repair it."""

    at: float
    service: str
    breakage: Breakage | None
    number: int


class Trouble(StrEnum):
    """What happens to the parts that the agent's processes share."""

    DATABASE_RESTARTED = "database restarted"
    DATABASE_CRASHED = "database crashed"
    STREAM_KILLED = "stream killed"
    """Kafka's broker or Redis, by kill -9."""
    WORKER_JOINS = "worker joins"
    WORKER_LEAVES = "worker leaves"
    """A regular leave: both share the work again."""
    WORKERS_RESTARTED = "workers restarted in turn"
    """Every worker, one after the other, by SIGTERM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One fault, and how long it takes its part away."""

    at: float
    down_seconds: float
    trouble: Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    size: Size
    messages: tuple[Message, ...]
    """In the order of their times."""
    happenings: tuple[Happening, ...]
    kills: tuple[float, ...]
    victims: tuple[float, ...]
    """For each kill a number 0..1 that picks the victim among the processes there are."""
    outages: tuple[Outage, ...]

    @property
    def entries(self) -> int:
        """How many signals must be accepted in the end."""
        return sum(len(m.entries) for m in self.messages if m.manner is not Manner.IMPOSSIBLE)


_TROUBLES = (
    (0.15, Trouble.STREAM_KILLED),
    (0.25, Trouble.DATABASE_RESTARTED),
    (0.4, Trouble.WORKER_JOINS),
    (0.5, Trouble.DATABASE_RESTARTED),
    (0.6, Trouble.STREAM_KILLED),
    (0.65, Trouble.WORKER_LEAVES),
    (0.8, Trouble.DATABASE_CRASHED),
)
"""When, as a share of the soak; one that a soak has no part for is left out."""


def compose(size: Size) -> Score:
    """The score of a seed."""
    dice = random.Random(size.seed)  # noqa: S311 - a reproducible run, no secret
    happenings = tuple(sorted(_happenings(size, dice), key=lambda h: h.at))
    messages = sorted(_messages(size, dice, happenings), key=lambda m: m.at)
    gap = (size.seconds - 8) / max(1, size.kills)
    kills = tuple(4 + gap * (number + dice.uniform(0.05, 0.95)) for number in range(size.kills))
    return Score(
        size=size,
        messages=tuple(messages),
        happenings=happenings,
        kills=kills,
        victims=tuple(dice.random() for _ in kills),
        outages=tuple(
            Outage(at=size.seconds * share, down_seconds=dice.uniform(0.5, 2.0), trouble=trouble)
            for share, trouble in _TROUBLES
        ),
    )


def _happenings(size: Size, dice: random.Random) -> Iterator[Happening]:
    free_at = dict.fromkeys(_services(size), 0.0)
    last = max(2.0, size.seconds - MEND_AFTER_SECONDS)
    for number in range(2, size.breakages + 2):
        at = 1 + (last - 1) * (number - 2) / max(1, size.breakages)
        free = [service for service, since in free_at.items() if since <= at]
        if not free:
            continue
        service = dice.choice(free)
        free_at[service] = at + REST_SECONDS
        breakage = dice.choice(list(Breakage))
        yield Happening(at=at, service=service, breakage=breakage, number=number)
        if breakage is Breakage.UPSTREAM:
            yield Happening(at=at + MEND_AFTER_SECONDS, service=service, breakage=None, number=number)
        elif dice.random() < MEDDLED_SHARE:
            mended_at = at + dice.uniform(1.5, 6)
            yield Happening(at=mended_at, service=service, breakage=None, number=number)


def _messages(size: Size, dice: random.Random, happenings: tuple[Happening, ...]) -> list[Message]:
    """First the reports of breakages, then other messages of every kind until there are enough entries."""
    found: list[Message] = []
    for happening in happenings:
        if happening.breakage is not None:
            found += _told_of(happening, dice)
    left = size.signals - sum(len(m.entries) for m in found)
    while left > 0:
        message = _small_talk(size, dice, found, most=left)
        found.append(message)
        if message.manner is not Manner.IMPOSSIBLE:
            left -= len(message.entries)
    return found


def _told_of(happening: Happening, dice: random.Random) -> Iterator[Message]:
    """A pipeline reports its release, and a measuring sender reports the result."""
    service, version = happening.service, str(happening.number)
    if happening.breakage is not Breakage.CONFIG:
        yield _message(dice, happening.at, DEPLOYS, [_deploy(service, version, "started")])
        if dice.random() < 0.8:
            at = happening.at + dice.uniform(0.5, 2.0)
            yield _message(dice, at, DEPLOYS, [_deploy(service, version, "failed")])
    for number in range(dice.randint(1, 3)):
        at = happening.at + 1.5 + number * dice.uniform(0.5, 1.5)
        yield _message(dice, at, METRICS, [_metric(service, dice, sick=True)])


def _small_talk(size: Size, dice: random.Random, before: list[Message], most: int) -> Message:
    at = dice.uniform(0.5, size.seconds)
    service = dice.choice(_services(size))
    chance = dice.random()
    if chance < 0.12:
        return _again(dice, dice.choice(before), most)
    if chance < 0.20:
        shift, manner = -3600 + dice.uniform(-600, 600), Manner.LATE
    elif chance < 0.26:
        shift, manner = dice.uniform(60, 240), Manner.EARLY
    elif chance < 0.34:
        shift, manner = -dice.uniform(2, 30), Manner.REORDERED
    elif chance < 0.42:
        shift, manner = dice.uniform(-120, 120), Manner.SKEWED
    elif chance < 0.43:
        shift, manner = 7200.0, Manner.IMPOSSIBLE
    elif chance < 0.70:
        several = [
            _metric(dice.choice(_services(size)), dice, sick=dice.random() < 0.01)
            for _ in range(min(most, dice.randint(2, BATCH)))
        ]
        return _message(dice, at, METRICS, several, manner=Manner.BATCHED)
    else:
        shift, manner = 0.0, Manner.PLAIN
    if dice.random() < 0.1:
        status = dice.choice(("started", "succeeded", "succeeded", "cancelled", "failed"))
        entry = _deploy(service, str(dice.randint(2, 9_999)), status)
        return _message(dice, at, DEPLOYS, [entry], shift=shift, manner=manner)
    entry = _metric(service, dice, sick=dice.random() < 0.02)
    return _message(dice, at, METRICS, [entry], shift=shift, manner=manner)


def _again(dice: random.Random, first: Message, most: int) -> Message:
    """At the same moment as the first, or some seconds after."""
    kept = min(most, len(first.entries))
    manner = Manner.IMPOSSIBLE if first.manner is Manner.IMPOSSIBLE else Manner.DUPLICATE
    return replace(
        first,
        at=first.at + dice.choice((0.0, dice.uniform(0.5, 8))),
        entries=first.entries[:kept],
        moments=first.moments[:kept],
        manner=manner,
        key=_key(dice),
    )


def _message(
    dice: random.Random,
    at: float,
    path: str,
    entries: list[dict[str, Any]],
    *,
    shift: float = 0.0,
    manner: Manner = Manner.PLAIN,
) -> Message:
    # No two observations share a microsecond by accident: only duplicates are the same.
    moments = tuple(at + shift + dice.uniform(0, 0.01) for _ in entries)
    return Message(at=at, path=path, entries=tuple(entries), moments=moments, manner=manner, key=_key(dice))


def _deploy(service: str, version: str, status: str) -> dict[str, Any]:
    return {"service": service, "environment": ENVIRONMENT, "version": version, "status": status}


def _metric(service: str, dice: random.Random, *, sick: bool) -> dict[str, Any]:
    rate = dice.uniform(0.2, 0.8) if sick else dice.uniform(0, 0.01)
    return {
        "service": service,
        "environment": ENVIRONMENT,
        "error_rate": round(rate, 6),
        "p95_latency_ms": round(dice.uniform(50, 150), 3),
    }


def _key(dice: random.Random) -> str:
    return f"soak-{dice.getrandbits(96):024x}"


def _services(size: Size) -> list[str]:
    return [f"svc-{number:03d}" for number in range(size.services)]

"""The senders of reports, and the answers they received: the ledger of promise 9.

A client repeats what was not acknowledged, as monitoring systems, pipelines and
streams do: with an idempotency key, without one (a new request with the same
content), or as the very same stream message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from random import Random

from app.agent.ids import ServiceKey, SignalId
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Alert,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    MetricSample,
    Payload,
    PostedSample,
    PostedSamples,
    Signal,
    Trigger,
)
from app.agent.ports.store.signals import Accepted, HealthySamples
from app.errors import AgentError, TransientError
from tests.simulation.faults import Kind
from tests.simulation.host import Ground
from tests.simulation.hostile import SEVERITIES
from tests.simulation.scenario import Illness, Scenario
from tests.simulation.scheduler import moment
from tests.simulation.world import BAD, SICK_ERROR_RATE, Ailment, service_key

CLIENT_TIMEOUT_SECONDS = 15.0
MAX_TRIES = 12


class Door(StrEnum):
    """How a client repeats itself."""

    KEYED = "keyed"
    PLAIN = "plain"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """One report at a moment."""

    at: float
    observed: float
    key: ServiceKey
    payload: Payload
    kinds: tuple[Kind, ...] = ()
    """The misfortunes that telling it now amounts to."""


@dataclass(kw_only=True)
class Ledger:
    """Every answer that a client heard."""

    acknowledged: list[tuple[float, str | None, tuple[Accepted, ...]]] = field(default_factory=list)
    """When, under which idempotency key, and what."""
    refused: int = 0
    unheard: int = 0


class Client:
    """Delivers what it has until it hears an answer."""

    def __init__(self, ground: Ground, dice: Random, ledger: Ledger) -> None:
        self._ground = ground
        self._dice = dice
        self._ledger = ledger
        self._number = 0

    async def deliver(self, tellings: Sequence[Telling]) -> None:
        """One request, by a door of its choice, repeated as that door repeats."""
        self._number += 1
        door = self._dice.choice(tuple(Door))
        name = f"{self._ground.tape.now():.3f}-{self._number}-{self._dice.random():.6f}"
        for kind in {kind: None for telling in tellings for kind in telling.kinds}:
            self._ground.tape.fault(kind, "people")
        again = self._dice.random() < 0.15
        if again:
            self._ground.tape.fault(Kind.DUPLICATE, "people", name)
        for round_number in range(2 if again else 1):
            await self._until_heard(door, name, tellings, repeated=round_number > 0)

    async def _until_heard(
        self, door: Door, name: str, tellings: Sequence[Telling], *, repeated: bool
    ) -> None:
        for attempt in range(MAX_TRIES):
            if attempt or repeated:
                self._ground.tape.fault(_REPEATED[door], "people", name)
            if await self._try(door, name, tellings):
                return
            await asyncio.sleep(self._dice.uniform(0.5, 6.0))

    async def _try(self, door: Door, name: str, tellings: Sequence[Telling]) -> bool:
        living = self._ground.living
        if not living:
            return False
        host = self._dice.choice(living)
        signals = [self._signal(door, name, n, telling) for n, telling in enumerate(tellings)]
        key = name if door is Door.KEYED else None
        posted = _posted(signals) if door is Door.PLAIN else None
        if posted is not None:
            call = host.spawn(_accepted(host.agent.intake, posted))
        else:
            request_hash = None if key is None else "h"
            call = host.spawn(
                host.agent.intake.accept(signals, idempotency_key=key, request_hash=request_hash)
            )
        await asyncio.wait({call}, timeout=CLIENT_TIMEOUT_SECONDS)
        if not call.done() or call.cancelled():
            self._ledger.unheard += 1
            return False
        error = call.exception()
        if error is None:
            self._ledger.acknowledged.append((self._ground.tape.now(), key, call.result()))
            return True
        if isinstance(error, AgentError):
            self._ledger.refused += 1
            return not isinstance(error, TransientError) or self._dice.random() < 0.1
        if isinstance(error, Exception):
            raise error
        self._ledger.unheard += 1
        return False

    def _signal(self, door: Door, name: str, number: int, telling: Telling) -> Signal:
        """What the door makes of a telling: a stream's message is the same signal every time."""
        made = new_signal(
            key=telling.key,
            source="stream" if door is Door.STREAM else "http",
            observed_at=moment(telling.observed),
            received_at=moment(self._ground.tape.now()),
            payload=telling.payload,
            stale_after=timedelta(seconds=900),
        )
        if isinstance(telling.payload, Alert):
            # As a connector of alerts has it: one alert with one start and status is one signal.
            alert = telling.payload
            status = "firing" if alert.firing else "resolved"
            made = replace(
                made,
                source="alertmanager",
                dedup_key=f"alert:{alert.fingerprint}:{alert.starts_at.isoformat()}:{status}",
            )
        if door is not Door.STREAM:
            return made
        return _with_id(made, SignalId(f"sig_{name}_{number}"))


_REPEATED = {
    Door.KEYED: Kind.RETRY_WITH_KEY,
    Door.PLAIN: Kind.RETRY_WITHOUT_KEY,
    Door.STREAM: Kind.REDELIVERED,
}


def _posted(signals: Sequence[Signal]) -> PostedSamples | None:
    """What the fast door makes of a request that holds samples only."""
    samples = [
        PostedSample(
            key=one.key,
            observed_at=one.observed_at,
            error_rate=one.payload.error_rate,
            p95_latency_ms=one.payload.p95_latency_ms,
            crash_looping=one.payload.crash_looping,
        )
        for one in signals
        if isinstance(one.payload, MetricSample)
    ]
    if len(samples) < len(signals):
        return None
    return PostedSamples(samples, signals[0].received_at, timedelta(seconds=900), None)


async def _accepted(intake: Intake, posted: PostedSamples) -> tuple[Accepted, ...]:
    answer = await intake.accept_samples(posted)
    return answer.accepted() if isinstance(answer, HealthySamples) else answer


def _with_id(signal: Signal, signal_id: SignalId) -> Signal:
    return replace(signal, id=signal_id)


def requests_of(dice: Random, scenario: Scenario) -> list[list[Telling]]:
    """All reports of a seed, in order; now and then several in one request."""
    keys = [service_key(number) for number in range(scenario.services)]
    tellings: list[Telling] = []
    for illness in scenario.illnesses:
        tellings += _tellings_of(dice, keys[illness.service], illness)
    for key in keys:
        tellings += _noise(dice, key, scenario.faults_until)
    found: list[list[Telling]] = []
    for telling in sorted(tellings, key=lambda one: one.at):
        if found and len(found[-1]) < 4 and telling.at - found[-1][0].at < 3 and dice.random() < 0.3:
            found[-1].append(telling)
        else:
            found.append([telling])
    return found


def _tellings_of(dice: Random, key: ServiceKey, illness: Illness) -> list[Telling]:
    """What is said about a service that fell ill: alerts, conditions, a pipeline, samples."""
    said: list[tuple[float, float, Payload]] = []
    ailment, began = illness.ailment, illness.at
    noticed = began + dice.uniform(4, 20)
    if dice.random() < 0.8:
        said.append((noticed, noticed, _alert(dice, noticed, key)))
    if ailment is Ailment.LEAK:
        said.append((noticed, noticed, _condition(Condition.OOM_KILLED)))
    if ailment is Ailment.BAD_RELEASE:
        said.append((noticed, noticed, _condition(Condition.CRASH_LOOP_BACK_OFF)))
    if ailment in (Ailment.BAD_RELEASE, Ailment.SLOW_RELEASE) and dice.random() < 0.5:
        failed = Deploy(version=BAD.partition(":")[2], status=DeployStatus.FAILED)
        said.append((noticed, began, failed))
    for number in range(dice.choice((2, 5, 8))):
        at = began + 1 + number * dice.uniform(2, 6)
        said.append((at, at, MetricSample(error_rate=SICK_ERROR_RATE, p95_latency_ms=95.0)))
    tellings = [Telling(at=at, observed=seen, key=key, payload=what) for at, seen, what in said]
    return [_disturbed(dice, telling) for telling in tellings]


def _noise(dice: Random, key: ServiceKey, until: float) -> list[Telling]:
    """What is said about services that are well, and old news."""
    found = []
    for _ in range(dice.randint(0, 3)):
        at = dice.uniform(1, until)
        payload: Payload = dice.choice(
            (
                MetricSample(error_rate=0.001, p95_latency_ms=90.0),
                MetricSample(error_rate=0.2),
                ConfigChange(summary="somebody raised a limit"),
                Deploy(version="unknown", status=DeployStatus.SUCCEEDED),
            )
        )
        found.append(Telling(at=at, observed=at, key=key, payload=payload))
    if dice.random() < 0.1:
        at = dice.uniform(1, until)
        old = Deploy(version="0", status=DeployStatus.FAILED)
        found.append(Telling(at=at, observed=at - 5000, key=key, payload=old, kinds=(Kind.STALE,)))
    return found


def _disturbed(dice: Random, telling: Telling) -> Telling:
    """Reported later than what came after it."""
    if dice.random() >= 0.15:
        return telling
    return replace(telling, at=telling.at + dice.uniform(5, 30), kinds=(*telling.kinds, Kind.REORDERED))


def _alert(dice: Random, at: float, key: ServiceKey) -> Alert:
    number = dice.getrandbits(32)
    labels = {
        "alertname": "HighErrorRate",
        "namespace": key.environment,
        "service": key.service,
        "severity": SEVERITIES[number % 2],
    }
    return Alert(
        name="HighErrorRate",
        firing=True,
        fingerprint=f"{number:08x}",
        starts_at=moment(at),
        trigger=Trigger.HIGH_ERROR_RATE,
        labels=tuple(sorted(labels.items())),
    )


def _condition(condition: Condition) -> ClusterCondition:
    return ClusterCondition(condition=condition, present=True, message="3 of 3 pods")

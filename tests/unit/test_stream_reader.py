"""The reader of streams over the real intake and store: what is acknowledged is durable, nothing blocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.audit.accounting import AuditQuestion
from app.agent.intake import Intake, IntakeRules
from app.agent.models import Deploy, DispositionKind, Signal
from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted, SignalRecord, SignalRepository
from app.agent.ports.streams import StreamProgress
from app.agent.slo import SloThresholds
from app.connectors.streams.envelope import read_message
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import Forbidden, Invalid, PermanentError, TransientError
from app.store import open_store
from app.testing import DEFAULT_START, VirtualClock
from app.wire.events import MAX_ENTRIES
from app.workers.stream_reader import StreamLimits, StreamReader, signal_id_at
from tests.contract.memory_stream import MemoryStream, MemoryTopic
from tests.unit.loopback import loopback, reply

SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(seconds=60),
    reopen_after=timedelta(hours=1),
)
LIMITS = StreamLimits(
    stale_after=timedelta(minutes=15), max_future=timedelta(minutes=5), max_bytes=200_000, batch=50
)


PATIENCE_SECONDS = 120.0


def deploy(service: str = "payments-api", version: str = "1.0", at: datetime = DEFAULT_START) -> bytes:
    return json.dumps(
        {
            "type": "deploy",
            "service": service,
            "environment": "prod",
            "version": version,
            "status": "failed",
            "timestamp": at.isoformat(),
        }
    ).encode()


class Doors:
    """The store's door for signals, with a fault before or after what really happens."""

    def __init__(self, signals: SignalRepository) -> None:
        self._signals = signals
        self.before: Callable[[Sequence[Signal]], Exception | None] = lambda _: None
        self.after: Callable[[Sequence[Signal]], Exception | None] = lambda _: None
        self.calls: list[int] = []

    async def accept(self, signals: Sequence[Signal], *args: Any, **kwargs: Any) -> tuple[Accepted, ...]:
        self.calls.append(len(signals))
        await asyncio.sleep(0)
        if (error := self.before(signals)) is not None:
            raise error
        accepted = await self._signals.accept(signals, *args, **kwargs)
        if (error := self.after(signals)) is not None:
            raise error
        return accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signals, name)


class Bell:
    """A runner without an audience."""

    async def wake(self, incident_id: str) -> None:
        await asyncio.sleep(0)


@dataclass
class Desk:
    """A reader with everything around it."""

    clock: VirtualClock
    topic: MemoryTopic
    store: Store
    doors: Doors = field(init=False)

    def __post_init__(self) -> None:
        self.doors = Doors(self.store.signals)

    def reader(self, limits: StreamLimits = LIMITS, schemas: SchemaRegistry | None = None) -> StreamReader:
        intake = Intake(signals=self.doors, rules=IntakeRules(slo=SLO), runner=Bell(), dry_run=True)
        return StreamReader(
            stream=MemoryStream(self.topic),
            source="memory",
            intake=intake,
            clock=self.clock,
            limits=limits,
            schemas=schemas,
        )

    async def read(self) -> StreamProgress:
        """One reader reads until nothing is waiting, then stops."""
        reader = self.reader()
        task = asyncio.create_task(reader.run())
        await self.until(lambda: not self.topic.waiting or task.done())
        assert not task.done()
        await stopped(task)
        return reader.progress

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let virtual time pass while a task waits for it, and real time for the database."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                await asyncio.sleep(0.001)
                if self.clock.sleeping and not holds():
                    await self.clock.advance(0.25)

    async def record(self, number: int, index: int = 0) -> SignalRecord | None:
        return await self.store.signals.get(signal_id_at(f"memory:{self.topic.name}/{number}", index))

    async def rows(self) -> int:
        question = AuditQuestion(now=self.clock.now(), pending_for=timedelta(days=1))
        return sum((await self.store.accounting.audit(question)).present.values())


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = VirtualClock()
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    yield Desk(clock=clock, topic=MemoryTopic(clock=clock), store=store)
    await store.close()


def failing(*errors: Exception) -> Callable[[Sequence[Signal]], Exception | None]:
    left = list(errors)
    return lambda _: left.pop(0) if left else None


# ------------------------------------------------------------------ the ordinary course


async def test_messages_become_signals_with_the_ends_of_http(desk: Desk) -> None:
    """A failed deploy opens an incident, a second joins it; each signal is found under its derived id."""
    desk.topic.append(deploy(version="1.0"), key="prod/payments-api")
    desk.topic.append(deploy(version="1.1"))

    progress = await desk.read()

    first, second = await desk.record(0), await desk.record(1)
    assert first is not None
    assert second is not None
    assert first.disposition.kind is DispositionKind.OPENED
    assert second.disposition.kind is DispositionKind.JOINED
    assert first.signal.source == "memory"
    assert first.signal.payload == Deploy(version="1.0", status=first.signal.payload.status)  # type: ignore[union-attr]  # a deploy
    assert desk.topic.log == ["ack 0", "ack 1"]
    assert (progress.accepted, progress.acknowledged, progress.rejected) == (2, 2, 0)
    assert progress.blocked_since is None
    assert desk.doors.calls == [2]


async def test_lag_is_reported(desk: Desk) -> None:
    """The reader keeps what the stream says of its lag; not knowing it stops nothing."""
    reader = desk.reader()
    desk.topic.append(deploy())
    await reader.read_once()
    assert (reader.progress.lag, reader.progress.lag_at) == (0, desk.clock.now())


async def test_a_transaction_is_bounded(desk: Desk) -> None:
    """Messages that hold long lists are not all put into one transaction."""
    entry = {"type": "metric", "service": "a", "environment": "prod", "error_rate": 0.0}
    for minute in range(3):
        times = [f"2026-02-20T16:{minute:02}:{second % 60:02}.{second}Z" for second in range(600)]
        desk.topic.append(json.dumps([{**entry, "timestamp": time} for time in times]).encode())

    await desk.read()

    assert desk.doors.calls == [600, 600, 600]
    assert max(desk.doors.calls) <= MAX_ENTRIES
    assert await desk.record(2, 599) is not None


# ------------------------------------------------------------------ again and again


async def test_a_lost_answer_of_the_store_adds_no_row(desk: Desk) -> None:
    """A batch stored again because the answer was lost is the same signals, with their first ends."""
    desk.topic.append(deploy())
    desk.doors.after = failing(TransientError("the commit's answer was lost"), TransientError("and again"))

    progress = await desk.read()

    record = await desk.record(0)
    assert record is not None
    assert record.disposition.kind is DispositionKind.OPENED
    assert desk.doors.calls == [1, 1, 1]
    assert await desk.rows() == 1
    assert (progress.accepted, progress.acknowledged) == (1, 1)


async def test_a_redelivered_message_adds_no_row(desk: Desk) -> None:
    """What a reader accepted and never acknowledged is, for the next reader, the very same signal."""
    desk.topic.append(deploy())
    reader = desk.reader()
    desk.doors.after = failing(TransientError("the commit's answer was lost"))
    task = asyncio.create_task(reader.read_once())
    await desk.until(lambda: reader.progress.blocked_since is not None)
    await stopped(task)
    await reader.stream.close()
    assert (await desk.rows(), desk.topic.log) == (1, [])

    progress = await desk.read()

    assert (await desk.rows(), desk.topic.log) == (1, ["ack 0"])
    assert progress.redelivered == 1


async def test_equal_messages_are_two_signals_with_one_effect(desk: Desk) -> None:
    """A producer that sends twice is heard twice; the second is a duplicate of the first."""
    desk.topic.append(deploy())
    desk.topic.append(deploy())

    await desk.read()

    second = await desk.record(1)
    assert second is not None
    assert second.disposition.kind is DispositionKind.DEDUPLICATED
    assert second.disposition.duplicate_of == signal_id_at(f"memory:{desk.topic.name}/0", 0)


@pytest.mark.parametrize("first_step", range(0, 60, 4))
async def test_a_shutdown_anywhere_only_repeats(desk: Desk, first_step: int) -> None:
    """Readers cut off after any number of steps leave every message finished once, and none lost."""
    for number in range(6):
        desk.topic.append(deploy(version=f"1.{number}") if number != 3 else b"poison")

    for steps in range(first_step, first_step + 4):
        task = asyncio.create_task(desk.reader(LIMITS).run())
        for _ in range(steps):
            await asyncio.sleep(0)
        await stopped(task)
        assert desk.topic.held == {}
    if desk.topic.waiting:
        await desk.read()

    assert await desk.rows() == 5
    assert [message.body for message, _ in desk.topic.letters] == [b"poison"]
    assert desk.topic.log == ["ack 0", "ack 1", "ack 2", "reject 3", "ack 4", "ack 5"]


# ------------------------------------------------------------------ poison


async def test_poison_holds_up_no_other_message(desk: Desk) -> None:
    """What is no event goes to the dead letters with the reason, in its turn; the others are accepted."""
    bodies = [deploy(version="a"), b"{", deploy(version="b"), b'{"type":"deploy"}', deploy(version="c")]
    for body in bodies:
        desk.topic.append(body)

    progress = await desk.read()

    assert desk.topic.log == ["ack 0", "reject 1", "ack 2", "reject 3", "ack 4"]
    reasons = [reason for _, reason in desk.topic.letters]
    assert "at line 1" in reasons[0]
    assert "is missing" in reasons[1]
    assert (progress.acknowledged, progress.rejected) == (3, 2)


async def test_what_the_store_refuses_is_rejected_alone(desk: Desk) -> None:
    """A refused batch is tried one by one: only the message that the store refuses is rejected."""
    for version in "abcd":
        desk.topic.append(deploy(version=version))
    desk.doors.before = lambda signals: (
        Invalid("the database rejected a value")
        if any(isinstance(s.payload, Deploy) and s.payload.version == "c" for s in signals)
        else None
    )

    await desk.read()

    assert desk.topic.log == ["ack 0", "ack 1", "reject 2", "ack 3"]
    assert desk.topic.letters[0][1] == "rejected by the store: the database rejected a value"
    assert await desk.rows() == 3


async def test_what_seems_to_kill_readers_is_not_read_again(desk: Desk) -> None:
    """A message that was handed out too often is rejected unread, and says how often that was."""
    desk.topic.append(deploy())
    for _ in range(LIMITS.max_deliveries):
        await MemoryStream(desk.topic).take(1)
        desk.topic.held.clear()

    await desk.read()

    assert desk.doors.calls == []
    assert desk.topic.letters[0][1] == (
        "it was handed out 10 times and never acknowledged: it may crash its readers"
    )


async def test_a_fault_of_the_agents_own_holds_up_no_other_message(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should reading a message ever fail in an unforeseen way, that message is kept aside and reported."""
    really = read_message

    def faulty(message: Any, **kwargs: Any) -> Any:
        if b"bug" in message.body:
            raise ZeroDivisionError
        return really(message, **kwargs)

    monkeypatch.setattr("app.workers.stream_reader.read_message", faulty)
    desk.topic.append(deploy(version="bug"))
    desk.topic.append(deploy())

    await desk.read()

    assert desk.topic.log == ["reject 0", "ack 1"]
    assert desk.topic.letters[0][1] == "internal error: reading it failed with ZeroDivisionError"


# ------------------------------------------------------------------ outages


@pytest.mark.parametrize(
    "error",
    [TransientError("no connection"), Forbidden("no right"), PermanentError("no table"), RuntimeError("bug")],
)
async def test_a_store_that_fails_is_retried(desk: Desk, error: Exception) -> None:
    """Whatever keeps the store from taking signals, nothing is acknowledged, rejected or dropped."""
    desk.topic.append(deploy())
    desk.doors.before = lambda _: error
    reader = desk.reader()
    task = asyncio.create_task(reader.run())

    began = desk.clock.now()
    await desk.clock.advance(3600)

    assert desk.topic.log == []
    assert reader.progress.blocked_since == began
    assert "storing signals" in reader.progress.error
    assert 100 < len(desk.doors.calls) < 200  # patient, and yet soon back

    desk.doors.before = lambda _: None
    await desk.until(lambda: desk.topic.log == ["ack 0"])
    assert reader.progress.blocked_since is None
    await stopped(task)


async def test_the_lag_is_measured_while_the_store_is_down(desk: Desk) -> None:
    """What arrives meanwhile counts: an alert rule watches it."""
    desk.topic.append(deploy())
    desk.doors.before = lambda _: TransientError("no connection")
    reader = desk.reader()
    task = asyncio.create_task(reader.run())
    await desk.clock.advance(60)
    before = reader.progress.lag
    assert before is not None
    for number in range(3):
        desk.topic.append(deploy(version=f"2.{number}"))
    await desk.clock.advance(600)
    assert reader.progress.lag == before + 3
    await stopped(task)


async def test_waiting_makes_a_signal_stale(desk: Desk) -> None:
    """What was fresh when it was read, and is accepted after an outage of an hour, leads to no action."""
    desk.topic.append(deploy(at=desk.clock.now()))
    desk.doors.before = lambda _: TransientError("no connection")
    task = asyncio.create_task(desk.reader().run())
    await desk.clock.advance(3600)
    desk.doors.before = lambda _: None

    await desk.until(lambda: not desk.topic.waiting)
    await stopped(task)

    record = await desk.record(0)
    assert record is not None
    assert record.signal.stale


async def test_a_store_that_says_when_is_asked_then(desk: Desk) -> None:
    """A wait that the other side names is kept."""
    desk.topic.append(deploy())
    desk.doors.before = failing(TransientError("busy", retry_after=timedelta(seconds=20)))
    began = desk.clock.now()

    await desk.read()

    assert desk.clock.now() - began >= timedelta(seconds=20)
    assert len(desk.doors.calls) == 2


async def test_a_stream_that_fails_is_retried(desk: Desk) -> None:
    """While the stream is out of reach nothing is lost: what is durable is acknowledged when it is back."""
    desk.topic.append(deploy(version="a"))
    desk.topic.append(b"poison")

    def goes_away(_: Sequence[Signal]) -> None:
        desk.topic.outage = "the server is gone"

    desk.doors.after = goes_away
    reader = desk.reader()
    task = asyncio.create_task(reader.run())
    await desk.clock.advance(60)
    assert desk.topic.log == []
    assert reader.progress.error == "acknowledging: the server is gone"

    desk.doors.after = lambda _: None
    desk.topic.outage = ""
    await desk.until(lambda: desk.topic.log == ["ack 0", "reject 1"])
    desk.topic.outage = "gone again"
    await desk.clock.advance(60)
    assert reader.progress.error == "reading the stream: gone again"
    desk.topic.outage = ""
    desk.topic.append(deploy(version="b"))
    await desk.until(lambda: not desk.topic.waiting)
    await stopped(task)

    assert await desk.rows() == 2


# ------------------------------------------------------------------ schemas

FLAT = json.dumps({"type": "record", "name": "Deploy", "fields": [{"name": "service", "type": "string"}]})
FRAMED = b"\0\0\0\0\7\2a"


async def test_a_registry_that_fails_is_retried(desk: Desk) -> None:
    """An Avro message waits for its schema; without the registry's word it is not judged."""
    desk.topic.append(FRAMED)
    async with loopback(reply(503, {})) as server:
        schemas = SchemaRegistry(url=server.url, timeout_seconds=5)
        reader = desk.reader(schemas=schemas)
        task = asyncio.create_task(reader.read_once())
        async with asyncio.timeout(120):
            while len(server.requests) < 3:
                await asyncio.sleep(0.001)
                await desk.clock.advance(1)
        assert desk.topic.log == []
        assert "asking for a schema" in reader.progress.error

        server.behaviour = reply(404, {"error_code": 40403})
        async with asyncio.timeout(120):
            while not task.done():
                await asyncio.sleep(0.001)
                await desk.clock.advance(30)
        await task
        await schemas.aclose()

    assert desk.topic.letters[0][1] == "the schema registry knows no schema 7"


async def test_a_record_is_read_by_its_schema(desk: Desk) -> None:
    """With the schema at hand an error in the event is reported, as for any other form."""
    desk.topic.append(FRAMED)
    async with loopback(reply(200, {"schema": FLAT})) as server:
        schemas = SchemaRegistry(url=server.url, timeout_seconds=5)
        await desk.reader(schemas=schemas).read_once()
        await schemas.aclose()

    assert "environment: is missing" in desk.topic.letters[0][1]

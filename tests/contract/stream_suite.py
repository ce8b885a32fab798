"""What every `SignalStream` must do, over a world that each kind of stream provides.

A world is a real server with one fresh stream and one group of consumers. The
reader in `app.workers.stream_reader` relies on exactly this: nothing is lost between
a sender and the store, whatever dies in between (promise 9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from app.agent.ports.streams import SignalStream, StreamMessage
from app.errors import TransientError

PATIENCE_SECONDS = 300.0
"""How long a test waits for what must happen; far more than it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One entry among the dead letters, as an operator finds it."""

    body: bytes
    key: str | None
    headers: Mapping[str, str]
    """Those of the original message at least."""
    reason: str
    entry: str
    """Where the original stands; a part of its `StreamMessage.position`, or all of it."""


class StreamWorld(Protocol):
    """One empty stream on a real server, and the group that reads it."""

    async def open(self) -> SignalStream:
        """One more consumer of the group; the world closes what a test leaves open."""
        ...

    async def append(
        self, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Return when the server has the message for good."""
        ...

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """All of them, oldest first."""
        ...

    async def unreachable(self) -> SignalStream:
        """A consumer of a server that is not there."""
        ...


@dataclass
class Taken:
    """What consumers handed out, in order."""

    messages: list[StreamMessage] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]


async def until(what: str, check: Callable[[], Awaitable[object]]) -> None:
    """Repeat `check`, which waits by itself, until it answers something true; fail when patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await check():
        assert time.monotonic() < deadline, f"timed out after {PATIENCE_SECONDS:g} s waiting for {what}"


async def take_in_time(stream: SignalStream, limit: int = 100) -> tuple[StreamMessage, ...]:
    """One `take`; a stream that is out of reach for the moment is an empty answer."""
    try:
        return await stream.take(limit)
    except TransientError:
        await asyncio.sleep(0.1)
        return ()


async def take_count(stream: SignalStream, count: int, limit: int = 100) -> list[StreamMessage]:
    """Take exactly `count` messages, at most `limit` in one call, however the broker splits its answers."""
    taken = Taken()

    async def enough() -> bool:
        taken.messages += await take_in_time(stream, min(limit, count - len(taken.messages)))
        return len(taken.messages) == count

    await until(f"{count} messages", enough)
    return taken.messages


async def take_rest(stream: SignalStream) -> list[StreamMessage]:
    """Everything that is still to come: acknowledged at once, until the stream says that nothing is left."""
    taken = Taken()

    async def nothing_left() -> bool:
        messages = await take_in_time(stream)
        await stream.acknowledge(messages)
        taken.messages += messages
        return not messages and await stream.lag() == 0

    await until("the end of the stream", nothing_left)
    return taken.messages


async def known_lag(stream: SignalStream) -> int:
    """The lag as soon as the stream can tell; there must be nothing left to take."""
    known: list[int] = []

    async def told() -> bool:
        known.extend(lag for lag in [await stream.lag()] if lag is not None)
        assert known or await take_in_time(stream) == ()
        return bool(known)

    await until("the lag to be known", told)
    return known[0]


class SignalStreamContract:
    """Subclass it as `TestSomething` and give it a `world` fixture with a fresh stream for each test."""

    async def test_a_message_arrives_as_it_was_sent(self, world: StreamWorld) -> None:
        """Body, key, headers and the time of arrival are handed over."""
        before = datetime.now(UTC) - timedelta(minutes=1)
        await world.append(b'{"a": 1}', key="prod/payments", headers={"content-type": "application/json"})
        [message] = await take_count(await world.open(), 1)
        assert message.body == b'{"a": 1}'
        assert message.key == "prod/payments"
        assert message.headers["content-type"] == "application/json"
        assert message.deliveries == 1
        assert message.appended_at is not None
        assert before < message.appended_at < datetime.now(UTC) + timedelta(minutes=1)

    async def test_any_bytes_arrive(self, world: StreamWorld) -> None:
        """A body need not be text, and may be empty."""
        bodies = [b"\xff\x00\xfe", b"", "ü".encode(), bytes(range(256))]
        for body in bodies:
            await world.append(body)
        stream = await world.open()
        assert sorted(message.body for message in await take_count(stream, 4)) == sorted(bodies)

    async def test_no_more_than_asked_for(self, world: StreamWorld) -> None:
        """A limit is kept, and nothing behind it is lost."""
        for number in range(7):
            await world.append(b"%d" % number, key="prod/payments")
        stream = await world.open()
        taken = Taken()

        async def all_there() -> bool:
            messages = await stream.take(2)
            assert len(messages) <= 2
            taken.messages += messages
            return len(taken.messages) >= 7

        await until("seven messages", all_there)
        assert taken.bodies == [b"%d" % number for number in range(7)]

    async def test_messages_of_a_key_keep_their_order(self, world: StreamWorld) -> None:
        """What was appended first under a key is handed out first."""
        for number in range(20):
            for service in ("a", "b", "c"):
                await world.append(b"%d" % number, key=f"prod/{service}")
        messages = await take_count(await world.open(), 60, limit=7)
        for service in ("a", "b", "c"):
            of_key = [int(one.body) for one in messages if one.key == f"prod/{service}"]
            assert of_key == list(range(20))

    async def test_what_was_acknowledged_is_over(self, world: StreamWorld) -> None:
        """After it no reader gets the message again."""
        for number in range(5):
            await world.append(b"%d" % number, key="prod/payments")
        first = await world.open()
        await first.acknowledge(await take_count(first, 5))
        await first.close()
        await world.append(b"new", key="prod/payments")
        second = await world.open()
        assert [message.body for message in await take_rest(second)] == [b"new"]

    async def test_what_was_not_acknowledged_comes_again(self, world: StreamWorld) -> None:
        """A consumer that leaves without acknowledging repeats the messages, in order, where they stood."""
        for number in range(5):
            await world.append(b"%d" % number, key="prod/payments")
        first = await world.open()
        taken = await take_count(first, 5)
        await first.acknowledge(taken[:2])
        await first.close()
        again = await take_count(await world.open(), 3)
        assert [one.position for one in again] == [one.position for one in taken[2:]]
        assert [one.body for one in again] == [b"2", b"3", b"4"]

    async def test_positions_name_one_message_each(self, world: StreamWorld) -> None:
        """Equal contents at different places have different positions."""
        for service in ("a", "b", "a", "b"):
            await world.append(b"same", key=f"prod/{service}")
        messages = await take_count(await world.open(), 4)
        assert len({message.position for message in messages}) == 4

    async def test_acknowledging_a_later_one_keeps_the_earlier(self, world: StreamWorld) -> None:
        """A message that was not acknowledged comes again, whatever was acknowledged behind it."""
        for number in range(4):
            await world.append(b"%d" % number, key="prod/payments")
        first = await world.open()
        taken = await take_count(first, 4)
        await first.acknowledge([taken[0], taken[3]])
        await first.close()
        again = {one.position for one in await take_count(await world.open(), 2)}
        assert {taken[1].position, taken[2].position} <= again
        assert taken[0].position not in again

    async def test_acknowledging_twice_is_harmless(self, world: StreamWorld) -> None:
        """So is acknowledging nothing at all, and giving up a share twice."""
        await world.append(b"once")
        stream = await world.open()
        taken = await take_count(stream, 1)
        await stream.acknowledge([])
        await stream.acknowledge(taken)
        await stream.acknowledge(taken)
        assert await take_rest(stream) == []
        await stream.close()
        await stream.close()

    async def test_a_rejected_message_stands_among_the_dead_letters(self, world: StreamWorld) -> None:
        """Whole, with the reason and its position; no reader gets it again, and no other message waits."""
        await world.append(b"good", key="prod/payments")
        await world.append(b"\xff bad", key="prod/payments", headers={"trace": "42"})
        await world.append(b"good too", key="prod/payments")
        first = await world.open()
        good, bad, good_too = await take_count(first, 3)
        await first.acknowledge([good])
        await first.reject(bad, "it is no signal: größer als nötig")
        await first.acknowledge([good_too])
        [letter] = await world.dead_letters()
        assert letter.body == b"\xff bad"
        assert letter.key == "prod/payments"
        assert letter.headers["trace"] == "42"
        assert letter.reason == "it is no signal: größer als nötig"
        assert letter.entry
        assert letter.entry in bad.position
        await first.close()
        assert await take_rest(await world.open()) == []

    async def test_rejecting_again_writes_no_second_letter(self, world: StreamWorld) -> None:
        """A caller that is not sure whether it rejected may do it again."""
        await world.append(b"bad")
        stream = await world.open()
        [bad] = await take_count(stream, 1)
        await stream.reject(bad, "no signal")
        await stream.reject(bad, "no signal")
        assert len(await world.dead_letters()) == 1

    async def test_a_message_under_work_can_be_rejected_by_the_next(self, world: StreamWorld) -> None:
        """What a consumer left behind is rejected by its successor like any other."""
        await world.append(b"bad")
        first = await world.open()
        await take_count(first, 1)
        await first.close()
        second = await world.open()
        [bad] = await take_count(second, 1)
        await second.reject(bad, "no signal")
        assert [letter.reason for letter in await world.dead_letters()] == ["no signal"]

    async def test_lag_counts_what_is_not_finished(self, world: StreamWorld) -> None:
        """Messages taken and not acknowledged still count; in the end the lag is zero."""
        for _ in range(5):
            await world.append(b"x", key="prod/payments")
        stream = await world.open()
        taken = await take_count(stream, 5)
        assert await known_lag(stream) == 5
        await stream.acknowledge(taken[:3])
        assert await stream.lag() == 2
        await stream.reject(taken[3], "no signal")
        await stream.acknowledge(taken[4:])
        assert await take_rest(stream) == []
        assert await stream.lag() == 0

    async def test_two_consumers_share_the_work(self, world: StreamWorld) -> None:
        """Both get some of it, and together they miss nothing."""
        streams = [await world.open(), await world.open()]
        sent: set[bytes] = set()
        shares: list[set[bytes]] = [set(), set()]

        async def serve(number: int) -> None:
            messages = await take_in_time(streams[number], 4)
            await streams[number].acknowledge(messages)
            shares[number].update(message.body for message in messages)

        async def both_work() -> bool:
            for _ in range(20):
                body = b"%d" % len(sent)
                await world.append(body, key=f"prod/{body.decode()}")
                sent.add(body)
            await asyncio.gather(serve(0), serve(1))
            return all(shares)

        async def all_done() -> bool:
            await asyncio.gather(serve(0), serve(1))
            return sent == shares[0] | shares[1]

        await until("both consumers to get something", both_work)
        await until("every message to be handed out", all_done)

    async def test_a_cancelled_take_loses_nothing(self, world: StreamWorld) -> None:
        """A reader that stops waiting may take again: it then gets what arrived meanwhile."""
        stream = await world.open()
        assert await take_in_time(stream) == ()
        waiting = asyncio.create_task(stream.take(10))
        for number in range(10):
            await world.append(b"%d" % number, key="prod/payments")
        waiting.cancel()
        early = [] if (await asyncio.wait({waiting}))[0] and waiting.cancelled() else list(waiting.result())
        found = early + await take_count(stream, 10 - len(early))
        assert [message.body for message in found] == [b"%d" % number for number in range(10)]

    async def test_a_server_out_of_reach_blocks_no_other(self, world: StreamWorld) -> None:
        """The error is reported as such, and meanwhile everything else in the process continues."""
        stream = await world.unreachable()
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        turning = asyncio.create_task(turn())
        with pytest.raises(TransientError):
            await stream.take(1)
        await stream.close()
        turning.cancel()
        assert turns > 1

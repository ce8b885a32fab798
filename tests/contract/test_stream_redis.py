"""What `RedisStream` promises, against a real Redis: nothing lost, whatever dies. Budget: 60 s."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.agent.ports.streams import StreamMessage
from app.connectors.streams.redis.address import RedisAddress, parse_redis_url
from app.connectors.streams.redis.stream import RedisStream, RedisTimes
from app.errors import AgentError, Forbidden, PermanentError, TransientError
from testbed.redis import RedisServer
from testbed.supervisor import Supervisor
from tests.contract.stream_suite import DeadLetter, SignalStreamContract

pytestmark = pytest.mark.real

QUICK = RedisTimes(
    wait=timedelta(seconds=0.05), answer=timedelta(seconds=5), dead_after=timedelta(seconds=0.3)
)
PATIENT = RedisTimes(wait=timedelta(seconds=0.05), dead_after=timedelta(hours=1))
DEADLINE_SECONDS = 120.0


# ------------------------------------------------------------------ set-up


@asynccontextmanager
async def running(directory: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A server of the test's own, for what would disturb others."""
    supervisor = Supervisor()
    try:
        server = RedisServer(supervisor=supervisor, directory=directory, options=options)
        server.start()
        yield server
    finally:
        supervisor.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that only use a stream of their own."""
    supervisor = Supervisor()
    try:
        server = RedisServer(supervisor=supervisor, directory=tmp_path_factory.mktemp("redis"))
        server.start()
        yield server
    finally:
        supervisor.close()


class Bench:
    """A stream of the test's own, its consumers, and a plain client beside them."""

    def __init__(self, server: RedisServer, redis: Any, stack: AsyncExitStack) -> None:
        self.stream = f"signals-{uuid4().hex}"
        self.server, self.redis, self._stack = server, redis, stack

    def address(self, more: str = "") -> RedisAddress:
        return parse_redis_url(f"{self.server.url}?stream={self.stream}&group=heal{more}")

    def consumer(self, times: RedisTimes = PATIENT, name: str | None = None, more: str = "") -> RedisStream:
        made = RedisStream(self.address(more), times=times, consumer=name)
        self._stack.push_async_callback(made.close)
        return made

    def silent_port(self) -> int:
        silent = socket.create_server(("127.0.0.1", 0))
        self._stack.callback(silent.close)
        port: int = silent.getsockname()[1]
        return port

    async def append(self, *bodies: str, entry: str = "*", **fields: str) -> list[str]:
        return [
            (await self.redis.xadd(self.stream, {"body": body, **fields}, id=entry)).decode()
            for body in bodies
        ]

    async def dies_with(self, name: str, count: int = 100) -> None:
        """Another consumer takes what is there and is never heard of again."""
        await self.redis.xreadgroup("heal", name, {self.stream: ">"}, count=count)

    async def blocked_client(self) -> str:
        """The id of the connection that waits for new entries, once there is one."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                for client in await self.redis.client_list():
                    if "b" in client["flags"]:
                        return str(client["id"])
                await asyncio.sleep(0.005)

    async def reconnected(self) -> None:
        """The plain client speaks to the server that runs now."""
        await self.redis.connection_pool.disconnect()
        await self.redis.ping()

    async def pending(self) -> int:
        return int((await self.redis.xpending(self.stream, "heal"))["pending"])

    async def has_been_idle(self, entry: str, span: timedelta) -> None:
        """As though its consumer had last been heard of so long ago."""
        (holder,) = await self.redis.xpending_range(self.stream, "heal", entry, entry, 1)
        idle = int(span.total_seconds() * 1000)
        await self.redis.xclaim(self.stream, "heal", holder["consumer"], 0, [entry], idle=idle, justid=True)

    async def renewed(self, entry: str) -> None:
        """Once the entry's consumer has been heard of again."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                (pending,) = await self.redis.xpending_range(self.stream, "heal", entry, entry, 1)
                if pending["time_since_delivered"] < DEADLINE_SECONDS * 1000:
                    return
                await asyncio.sleep(0.01)

    async def letters(self) -> list[dict[str, str]]:
        entries = await self.redis.xrange(f"{self.stream}:dead")
        return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]


@asynccontextmanager
async def bench_on(server: RedisServer) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        redis = Redis.from_url(server.url)
        stack.push_async_callback(redis.aclose)
        yield Bench(server, redis, stack)


@pytest.fixture
async def bench(shared_server: RedisServer) -> AsyncIterator[Bench]:
    async with bench_on(shared_server) as made:
        yield made


async def take_until(stream: RedisStream, count: int, limit: int = 100) -> list[StreamMessage]:
    """Take, through whatever outages, until so many messages came."""
    taken: list[StreamMessage] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(taken) < count:
            try:
                taken += await stream.take(limit)
            except TransientError:
                await asyncio.sleep(0.02)
    return taken


def bodies(messages: list[StreamMessage] | tuple[StreamMessage, ...]) -> list[str]:
    return [message.body.decode() for message in messages]


# ------------------------------------------------------------------ the contract of every stream


class RedisWorld:
    """A stream of the test's own, as the contract wants it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def open(self) -> RedisStream:
        return self._bench.consumer()

    async def append(
        self, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        named = {} if key is None else {"key": key}
        await self._bench.redis.xadd(self._bench.stream, {"body": body, **named, **(headers or {})})

    async def dead_letters(self) -> Sequence[DeadLetter]:
        letters = []
        for _, fields in await self._bench.redis.xrange(f"{self._bench.stream}:dead"):
            body = fields.pop(b"body")
            words = {name.decode(): value.decode() for name, value in fields.items()}
            letters.append(
                DeadLetter(
                    body=body,
                    key=words.pop("key", None),
                    headers=words,
                    reason=words["dead-reason"],
                    entry=words["dead-entry"],
                )
            )
        return letters

    async def unreachable(self) -> RedisStream:
        """Connections are taken and never answered, as behind a broken network."""
        port = self._bench.silent_port()
        times = RedisTimes(wait=timedelta(seconds=0.05), answer=timedelta(seconds=0.2))
        return RedisStream(parse_redis_url(f"redis://127.0.0.1:{port}"), times=times)


class TestRedisStream(SignalStreamContract):
    """Redis Streams keep the contract."""

    @pytest.fixture
    def world(self, bench: Bench) -> RedisWorld:
        return RedisWorld(bench)


# ------------------------------------------------------------------ reading


async def test_an_entry_becomes_a_message(bench: Bench) -> None:
    """Field `body` is the body, `key` the key, everything else a header; the server's time is reported."""
    stream = bench.consumer()
    (entry,) = await bench.append('{"a":1}', key="prod/payments-api", type="deploy")

    (message,) = await take_until(stream, 1)

    assert message.position.startswith(f"redis:{bench.stream}/{entry}#")
    assert (message.key, message.body, message.headers) == (
        "prod/payments-api",
        b'{"a":1}',
        {"type": "deploy"},
    )
    assert message.appended_at is not None
    assert message.deliveries == 1


async def test_hostile_fields_are_carried_not_choked_on(bench: Bench) -> None:
    """Entries without a body, with bytes that are no text and with made-up names are messages."""
    stream = bench.consumer()
    await bench.redis.xadd(bench.stream, {b"\xff": b"\xfe", "key": b"\xff"}, id="1-1")
    await bench.redis.xadd(bench.stream, {"body": b"\0\xff"}, id=f"{2**63}-0")

    first, second = await take_until(stream, 2)

    assert (first.body, first.key, first.headers, first.appended_at) == (
        b"",
        "\\xff",
        {"\\xff": "\\xfe"},
        None,
    )
    assert (second.body, second.appended_at) == (b"\0\xff", None)
    await stream.acknowledge([first, second])
    assert await bench.pending() == 0


async def test_consumers_share_the_work(bench: Bench) -> None:
    """Each entry goes to one consumer, in the order of the stream."""
    one, other = bench.consumer(), bench.consumer()
    await bench.append(*"abcd")

    first, second = await one.take(2), await other.take(10)

    assert (bodies(first), bodies(second)) == (["a", "b"], ["c", "d"])
    assert await one.take(10) == ()


async def test_what_was_there_before_the_first_start_is_read(bench: Bench) -> None:
    """The group begins at the first entry, not at the end of the stream."""
    await bench.append("early")

    assert bodies(await take_until(bench.consumer(), 1)) == ["early"]


async def test_a_quiet_stream_answers_nothing(bench: Bench) -> None:
    """Without entries `take` comes back empty instead of waiting for ever."""
    assert await bench.consumer().take(10) == ()


# ------------------------------------------------------------------ consumers that die, stall and leave


async def test_a_dead_consumers_entries_are_claimed(bench: Bench) -> None:
    """What a consumer took and never finished goes to another, and is counted."""
    stream = bench.consumer(QUICK)
    await stream.take(1)
    await bench.append("a", "b")
    await bench.dies_with("dead")
    await bench.append("new")

    new = await stream.take(10)
    await stream.acknowledge(new)
    left = await take_until(stream, 2)

    assert {m.body.decode(): m.deliveries for m in (*new, *left)} == {"new": 1, "a": 2, "b": 2}
    await stream.acknowledge(left)
    assert await bench.pending() == 0


async def test_an_acknowledged_entry_never_comes_again(bench: Bench) -> None:
    """Neither its consumer nor another gets it, however long they ask."""
    stream, other = bench.consumer(QUICK), bench.consumer(QUICK)
    await bench.append("a")
    await stream.acknowledge(await take_until(stream, 1))

    for _ in range(10):
        assert await other.take(10) == ()
        assert await stream.take(10) == ()


async def test_slow_work_is_not_taken_away(bench: Bench) -> None:
    """A consumer that lives renews what it holds, so that it never becomes old enough to be claimed."""
    slow, other = bench.consumer(QUICK), bench.consumer(PATIENT)
    (entry,) = await bench.append("a")
    held = await take_until(slow, 1)

    for _ in range(3):
        await bench.has_been_idle(entry, PATIENT.dead_after - timedelta(minutes=1))
        await bench.renewed(entry)
        assert await other.take(10) == ()

    await slow.acknowledge(held)
    assert await bench.pending() == 0


async def test_a_consumer_that_leaves_hands_back_at_once(bench: Bench) -> None:
    """After `close` another gets the entries without waiting, and no delivery is held against them."""
    leaving, staying = bench.consumer(), bench.consumer()
    await bench.append("a", "b")
    await take_until(leaving, 2)

    await leaving.close()
    taken = await take_until(staying, 2)

    assert bodies(taken) == ["a", "b"]
    assert [m.deliveries for m in taken] == [1, 1]


async def test_a_consumer_that_held_nothing_leaves_no_trace(bench: Bench) -> None:
    """A process that starts and stops regularly leaves no names behind in the group."""
    stream = bench.consumer(name="mine")
    await bench.append("a")
    await stream.acknowledge(await take_until(stream, 1))
    assert len(await bench.redis.xinfo_consumers(bench.stream, "heal")) == 1

    await stream.close()
    await stream.close()

    assert await bench.redis.xinfo_consumers(bench.stream, "heal") == []


async def test_names_of_the_dead_are_forgotten(bench: Bench) -> None:
    """Consumers that hold nothing and are long gone are removed; one that holds something never is."""
    stream = bench.consumer(
        RedisTimes(wait=timedelta(milliseconds=50), dead_after=timedelta(hours=1), forget_after=timedelta(0)),
        name="alive",
    )
    await stream.take(1)
    await bench.append("a")
    await bench.dies_with("with an entry")
    await bench.redis.xgroup_createconsumer(bench.stream, "heal", "with nothing")

    async with asyncio.timeout(DEADLINE_SECONDS):
        gone = 0
        while gone < 1:
            await asyncio.sleep(0.01)  # idle time is counted in whole milliseconds
            gone += await stream.forget_consumers()

    names = {c["name"] for c in await bench.redis.xinfo_consumers(bench.stream, "heal")}
    assert b"with an entry" in names
    assert b"with nothing" not in names
    assert await bench.pending() == 1


async def test_what_may_kill_readers_comes_alone(bench: Bench) -> None:
    """What was handed out twice and never finished comes one by one: then one death proves one guilty."""
    stream = bench.consumer(QUICK)
    await stream.take(1)
    await bench.append("a", "b", "c")
    await bench.dies_with("first")
    entries = [
        one["message_id"] for one in await bench.redis.xpending_range(bench.stream, "heal", "-", "+", 9)
    ]
    await bench.redis.xclaim(bench.stream, "heal", "second", 0, entries)

    taken: list[StreamMessage] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(taken) < 3:
            batch = await stream.take(10)
            assert len(batch) <= 1
            taken += batch
            await stream.acknowledge(batch)

    assert bodies(taken) == ["a", "b", "c"]
    assert [m.deliveries for m in taken] == [3, 3, 3]


# ------------------------------------------------------------------ answers that are lost


async def test_an_answer_lost_on_the_way_is_asked_for_again(bench: Bench) -> None:
    """Entries that Redis handed to us in an answer that never arrived come with the next `take`."""
    waiting = RedisTimes(wait=timedelta(seconds=DEADLINE_SECONDS), dead_after=timedelta(hours=1))
    stream = bench.consumer(waiting, name="mine")
    await bench.append("first")
    await stream.acknowledge(await stream.take(1))
    taking = asyncio.create_task(stream.take(1))
    blocked = await bench.blocked_client()

    await bench.redis.xgroup_createconsumer(bench.stream, "heal", "mine")
    async with bench.redis.pipeline(transaction=True) as at_once:
        at_once.client_kill_filter(_id=blocked)
        at_once.xadd(bench.stream, {"body": "a"})
        at_once.xreadgroup("heal", "mine", {bench.stream: ">"})  # the answer that is lost
        await at_once.execute()
    with pytest.raises(TransientError):
        await taking
    (message,) = await stream.take(1)

    assert (message.body, message.deliveries) == (b"a", 2)


async def test_cancelling_a_take_loses_nothing(bench: Bench) -> None:
    """However a shutdown falls into the reading, what was not handed out is handed out later, once."""
    stream = bench.consumer(QUICK)
    await bench.append(*(str(number) for number in range(60)))
    taken: list[StreamMessage] = []
    steps = 0

    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(taken) < 60:
            task = asyncio.create_task(stream.take(2))
            for _ in range(steps % 7):
                await asyncio.sleep(0.0002 if steps % 2 else 0)
            steps += 1
            if steps % 3:
                task.cancel()
            try:
                taken += await task
            except asyncio.CancelledError:
                continue
            await stream.acknowledge(taken[-2:])

    assert sorted(map(int, bodies(taken))) == list(range(60))
    assert await bench.pending() == 0


# ------------------------------------------------------------------ dead letters


async def test_a_rejected_entry_is_kept_with_its_reason(bench: Bench) -> None:
    """The dead letter has every field of the entry, where it stood and why; the entry is done with."""
    stream = bench.consumer()
    (entry,) = await bench.append("{", type="deploy", **{"dead-reason": "forged"})
    (message,) = await take_until(stream, 1)

    await stream.reject(message, "not JSON\nat line 1")
    await stream.reject(message, "told twice: the first answer was lost")

    (letter,) = await bench.letters()
    assert (letter["body"], letter["type"]) == ("{", "deploy")
    assert letter["dead-reason"] == "not JSON at line 1"
    assert (letter["dead-entry"], letter["dead-group"], letter["dead-deliveries"]) == (entry, "heal", "1")
    assert await bench.pending() == 0


async def test_a_dead_letter_that_cannot_be_written_acknowledges_nothing(bench: Bench) -> None:
    """When something else stands under the name of the dead letters the entry stays pending."""
    stream = bench.consumer()
    await bench.redis.set(f"{bench.stream}:dead", "in the way")
    await bench.append("{")
    (message,) = await take_until(stream, 1)

    with pytest.raises(PermanentError, match="WRONGTYPE"):
        await stream.reject(message, "poison")
    assert await bench.pending() == 1

    await bench.redis.delete(f"{bench.stream}:dead")
    await stream.reject(message, "poison")
    assert len(await bench.letters()) == 1


async def test_an_entry_with_thousands_of_fields_can_be_rejected(bench: Bench) -> None:
    """A dead letter keeps the first fields of an entry that has more than a script can carry."""
    stream = bench.consumer()
    await bench.redis.xadd(bench.stream, {f"f{number}": "x" for number in range(20_000)})
    (message,) = await take_until(stream, 1)

    await stream.reject(message, "no body")

    (letter,) = await bench.letters()
    assert letter["dead-reason"] == "no body"
    assert letter["f0"] == "x"


# ------------------------------------------------------------------ bounded length


async def test_only_what_every_group_has_finished_is_trimmed(bench: Bench) -> None:
    """What is unread or unacknowledged, in any group, is never removed; all the rest is."""
    stream = bench.consumer()
    await bench.append(*"abcdef")
    await bench.redis.xgroup_create(bench.stream, "audit", id="0")
    taken = await take_until(stream, 6)
    await stream.acknowledge(taken[:2] + taken[3:])
    await stream.trim()
    assert await bench.redis.xlen(bench.stream) == 6

    audited = await bench.redis.xreadgroup("audit", "auditor", {bench.stream: ">"}, count=4)
    await stream.trim()
    assert await bench.redis.xlen(bench.stream) == 6

    await bench.redis.xack(bench.stream, "audit", *(entry for entry, _ in audited[0][1]))
    await stream.trim()
    left = [fields[b"body"] for _, fields in await bench.redis.xrange(bench.stream)]
    assert left == [b"c", b"d", b"e", b"f"]  # c waits in ours; e and f are unread by the other

    await stream.acknowledge([taken[2]])
    await stream.trim()
    left = [fields[b"body"] for _, fields in await bench.redis.xrange(bench.stream)]
    assert left == [b"e", b"f"]


async def test_acknowledging_keeps_the_stream_short(bench: Bench) -> None:
    """Trimming happens by itself; `trim=no` leaves it to the operator."""
    stream, other = bench.consumer(), bench.consumer(more="&trim=no")
    await bench.append("a", "b")
    (first,), (second,) = await stream.take(1), await other.take(1)

    await other.acknowledge([second])
    assert await bench.redis.xlen(bench.stream) == 2
    await stream.acknowledge([first])
    assert await bench.redis.xlen(bench.stream) == 0


# ------------------------------------------------------------------ lag


async def test_lag_counts_unread_and_unacknowledged(bench: Bench) -> None:
    """It is nought without a stream, everything before the first read, and shrinks only by acknowledging."""
    stream = bench.consumer()
    assert await stream.lag() == 0
    await bench.append(*"abcd")
    assert await stream.lag() == 4

    taken = await stream.take(3)
    assert await stream.lag() == 4
    await stream.acknowledge(taken[:2])
    assert await stream.lag() == 2
    await stream.reject(taken[2], "poison")
    assert await stream.lag() == 1


async def test_lag_is_unknown_where_redis_does_not_say(bench: Bench) -> None:
    """After a deletion in the middle Redis gives no count, and none is made up."""
    stream = bench.consumer()
    await stream.take(1)
    entries = await bench.append(*"abcd")
    await stream.take(1)
    await bench.redis.xdel(bench.stream, entries[2])

    assert await stream.lag() is None


# ------------------------------------------------------------------ Redis in trouble


async def test_a_flush_begins_again_from_the_first_entry(tmp_path: Path) -> None:
    """With stream and group gone the group is made again; held messages end quietly, names may come again."""
    async with running(tmp_path) as server, bench_on(server) as bench:
        stream = bench.consumer()
        await bench.append("a", "x", entry="*")
        await bench.append("old", entry=f"{2**60}-1")
        old = await take_until(stream, 3)

        await bench.redis.flushall()
        await bench.append("new", "old", entry="*")
        await bench.append("new", entry=f"{2**60}-1")
        await bench.append("same", entry=f"{2**60}-2")
        await stream.acknowledge(old[:1])
        await stream.reject(old[1], "poison")
        new = await take_until(stream, 4)

        assert bodies(new) == ["new", "old", "new", "same"]
        assert not {m.position for m in old} & {m.position for m in new}
        assert await bench.letters() == []
        again = RedisStream(parse_redis_url(f"{server.url}?stream={bench.stream}&group=other"), times=QUICK)
        assert [m.position for m in await take_until(again, 4)] == [m.position for m in new]
        await again.close()


async def test_nothing_is_lost_over_a_kill_of_redis(tmp_path: Path) -> None:
    """Killed and restarted, Redis still knows what was read and what was not; meanwhile all is transient."""
    async with running(tmp_path) as server, bench_on(server) as bench:
        stream = bench.consumer(QUICK)
        await bench.append(*"abcd")
        taken = list(await stream.take(2))
        await stream.acknowledge(taken[:1])

        server.kill()
        with pytest.raises(TransientError):
            await stream.take(2)
        with pytest.raises(TransientError):
            await stream.acknowledge(taken[1:])
        with pytest.raises(TransientError):
            await stream.reject(taken[1], "poison")
        with pytest.raises(TransientError):
            await stream.lag()
        server.start()
        await bench.reconnected()

        await retried(lambda: stream.acknowledge(taken[1:]))
        assert bodies(await take_until(stream, 2)) == ["c", "d"]
        assert await bench.pending() == 2


async def retried(attempt: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                await attempt()
            except TransientError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_leaving_while_redis_is_down_is_quick_and_quiet(tmp_path: Path) -> None:
    """A shutdown does not hang on a server that is gone; what was held stays pending."""
    async with running(tmp_path) as server, bench_on(server) as bench:
        stream = bench.consumer(QUICK)
        await bench.append("a")
        await take_until(stream, 1)
        server.kill()

        await stream.close()
        server.start()

        assert bodies(await take_until(bench.consumer(QUICK), 1)) == ["a"]


async def test_a_replica_and_a_full_memory_pass(tmp_path: Path) -> None:
    """A server that takes no writes now is waited for: nothing is acknowledged, nothing rejected."""
    async with running(tmp_path) as server, bench_on(server) as bench:
        stream = bench.consumer(QUICK)
        await bench.append("a", "b")
        first, second = await take_until(stream, 2)

        await bench.redis.config_set("maxmemory", "1")
        with pytest.raises(TransientError, match="takes no writes"):
            await stream.reject(first, "poison")
        await bench.redis.config_set("maxmemory", "0")

        await bench.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(TransientError, match="takes no writes"):
            await stream.acknowledge([second])
        await bench.redis.execute_command("REPLICAOF", "NO", "ONE")

        await stream.reject(first, "poison")
        await stream.acknowledge([second])
        assert await bench.pending() == 0
        assert len(await bench.letters()) == 1


async def test_accounts(tmp_path: Path) -> None:
    """A wrong password or a missing right is reported as such, without the password; the right one works."""
    async with running(tmp_path, "--requirepass", "open sesame") as server:
        port = server.port
        for account in ("", ":wrong-secret@"):
            stream = RedisStream(parse_redis_url(f"redis://{account}127.0.0.1:{port}"), times=QUICK)
            with pytest.raises(Forbidden) as caught:
                await stream.take(1)
            assert "secret" not in str(caught.value)
            await stream.close()
        stream = RedisStream(parse_redis_url(f"redis://:open%20sesame@127.0.0.1:{port}"), times=QUICK)
        assert await stream.take(1) == ()
        await stream.close()


async def test_the_documented_rights_suffice(tmp_path: Path) -> None:
    """An account with exactly the rights of docs/redis.md reads, acknowledges, rejects, trims and leaves."""
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    (rights,) = (line.split() for line in page.splitlines() if "ACL SETUSER heal" in line)
    async with running(tmp_path) as server, bench_on(server) as bench:
        await bench.redis.execute_command(*rights)
        stream = RedisStream(parse_redis_url(f"redis://heal:password@127.0.0.1:{server.port}"), times=QUICK)
        bench.stream = "signals"
        assert await stream.take(1) == ()
        await bench.append("a", "b", "c")
        await bench.dies_with("dead", count=1)

        b, c = await take_until(stream, 2)
        await stream.reject(b, "poison")
        await stream.acknowledge([c])
        await stream.acknowledge(await take_until(stream, 1))

        assert await stream.lag() == 0
        await stream.trim()
        assert await bench.redis.xlen("signals") == 0
        assert await stream.forget_consumers() == 0
        await stream.close()
        names = {one["name"] for one in await bench.redis.xinfo_consumers("signals", "heal")}
        assert names == {b"dead"}
        with pytest.raises(RedisError):
            await Redis.from_url(f"redis://heal:password@127.0.0.1:{server.port}").get("other")


async def test_something_else_under_the_streams_name_is_no_stream(bench: Bench) -> None:
    """A key of another type is reported, and never skipped."""
    await bench.redis.set(bench.stream, "in the way")

    with pytest.raises(AgentError, match="WRONGTYPE"):
        await bench.consumer().take(1)


# ------------------------------------------------------------------ all of it at once


class Crowd:
    """Consumers that read one stream side by side through every outage, and what they finished."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.finished: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def join(self) -> None:
        self._tasks.append(asyncio.create_task(self._consume()))

    async def leave(self) -> None:
        """One consumer stops regularly."""
        task = self._tasks.pop(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=DEADLINE_SECONDS)
        assert done, "a consumer that was told to stop goes on"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._tasks:
            await self.leave()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.finished) < count:  # noqa: ASYNC110 - what is waited for is in other tasks' hands
                await asyncio.sleep(0.005)

    async def _consume(self) -> None:
        stream = self._bench.consumer(QUICK)
        try:
            while True:
                try:
                    for message in await stream.take(7):
                        self.finished.add(message.body.decode())  # durable, then acknowledged
                        if message.body == b"13":
                            await stream.reject(message, "poison")
                        else:
                            await stream.acknowledge([message])
                except TransientError:
                    await asyncio.sleep(0.02)
        finally:
            await stream.close()


async def test_every_entry_is_finished_over_kills_of_everything(tmp_path: Path) -> None:
    """Redis is killed and restarted, consumers die, leave and join: each entry is finished by one of them."""
    total = 400
    async with running(tmp_path) as server, bench_on(server) as bench, Crowd(bench) as crowd:

        async def produce() -> None:
            written = 0
            while written < total:
                try:
                    await bench.append(str(written))
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    written += 1

        for _ in range(3):
            crowd.join()
        producing = asyncio.create_task(produce())
        for threshold in (50, 150, 250):
            await crowd.until(threshold)
            with suppress(RedisError, OSError):
                await bench.dies_with("dead", count=5)
            server.kill()
            await crowd.leave()
            crowd.join()
            server.start()
        await producing
        await bench.reconnected()
        await crowd.until(total)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await bench.pending():  # noqa: ASYNC110 - Redis sends no notification
                await asyncio.sleep(0.02)

        assert crowd.finished == {str(number) for number in range(total)}
        assert [letter["body"] for letter in await bench.letters()] == ["13"]

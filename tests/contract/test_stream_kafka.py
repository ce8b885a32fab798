"""The Kafka stream against a real broker: the contract, and what only a real one can show. Budget: 180 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from app.agent.ports.streams import StreamMessage
from app.connectors.streams.kafka.address import parse_kafka_url
from app.connectors.streams.kafka.stream import KafkaStream, KafkaTimes
from app.errors import Forbidden, TransientError
from testbed import TestbedError
from testbed.kafka import KafkaBroker
from tests.contract.stream_suite import (
    DeadLetter,
    SignalStreamContract,
    take_count,
    take_in_time,
    take_rest,
    until,
)

pytestmark = pytest.mark.real

PARTITIONS = 4
Sendable = tuple[str | None, bytes, list[tuple[str, str | bytes | None]]]
"""Key, body and headers."""
QUICK = "session.timeout.ms=6000&heartbeat.interval.ms=500"
QUICK_TIMES = KafkaTimes(wait=timedelta(seconds=0.2), answer=timedelta(seconds=2))


class Sender:
    """A careful producer: it returns when the broker has acknowledged every message. Blocks."""

    def __init__(self, address: str, **settings: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": address, "acks": "all", "enable.idempotence": True, **settings}
        )

    def send(self, topic: str, messages: Sequence[Sendable]) -> None:
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refused.append(error)

        for key, body, headers in messages:
            self._producer.produce(topic, body, key=key, headers=headers, on_delivery=delivered)
        assert self._producer.flush(60) == 0
        assert refused == []


def read_all(address: str, topic: str, partitions: int = 1) -> list[Message]:
    """Everything that a topic holds now; blocks. Nothing where there is no such topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"look-{uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        if consumer.list_topics(topic, timeout=120).topics[topic].error is not None:
            return []
        consumer.subscribe([topic])
        found: list[Message] = []
        ends = 0
        while ends < partitions:
            message = consumer.poll(30)
            assert message is not None, f"{topic} could not be read to its end"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                ends += 1
        return found
    finally:
        consumer.close()


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    headers = message.headers() or []
    assert isinstance(headers, list)
    return [(name, value) for name, value in headers if isinstance(value, bytes)]


class KafkaWorld:
    """A topic of the test's own on a running broker."""

    def __init__(self, broker: KafkaBroker, stack: AsyncExitStack) -> None:
        self.broker = broker
        self.topic = f"signals-{uuid4().hex}"
        self._stack = stack
        self._sender = Sender(broker.address)
        broker.create_topic(self.topic, partitions=PARTITIONS)

    def url(self, more: str = QUICK) -> str:
        return f"kafka://{self.broker.address}/{self.topic}?group=heal&{more}"

    async def open(self, more: str = QUICK) -> KafkaStream:
        stream = KafkaStream(parse_kafka_url(self.url(more)), times=QUICK_TIMES)
        self._stack.push_async_callback(stream.close)
        return stream

    async def append(
        self, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.send([(key, body, list((headers or {}).items()))])

    async def send(self, messages: Sequence[Sendable]) -> None:
        await asyncio.to_thread(self._sender.send, self.topic, messages)

    async def send_numbers(self, numbers: Iterable[int], services: int = 12) -> None:
        """Each number once under the key of every service."""
        await self.send(
            [(f"prod/{service}", b"%d" % number, []) for number in numbers for service in range(services)]
        )

    async def dead_letters(self) -> Sequence[DeadLetter]:
        letters = []
        for message in await self.raw_letters():
            headers = {name: value.decode() for name, value in headers_of(message)}
            key = message.key()
            letters.append(
                DeadLetter(
                    body=message.value() or b"",
                    key=None if key is None else key.decode(),
                    headers=headers,
                    reason=headers["dead-reason"],
                    entry=headers["dead-position"],
                )
            )
        return letters

    async def raw_letters(self) -> list[Message]:
        return await asyncio.to_thread(read_all, self.broker.address, f"{self.topic}.dead")

    async def unreachable(self) -> KafkaStream:
        return KafkaStream(parse_kafka_url("kafka://127.0.0.1:9/signals"))


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for all tests that only use a topic of their own."""
    with KafkaBroker(folder=tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
async def world(shared_broker: KafkaBroker) -> AsyncIterator[KafkaWorld]:
    async with AsyncExitStack() as stack:
        yield KafkaWorld(shared_broker, stack)


class TestKafkaStream(SignalStreamContract):
    """The port's contract."""


# ------------------------------------------------------------------ what Kafka adds


class Worker:
    """Takes and acknowledges in small steps, and remembers what it saw, in order."""

    def __init__(self, stream: KafkaStream) -> None:
        self.stream = stream
        self.seen: list[StreamMessage] = []

    async def step(self, limit: int = 5) -> None:
        messages = await take_in_time(self.stream, limit)
        self.seen += messages
        await self.stream.acknowledge(messages)

    def numbers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for message in self.seen:
            found.setdefault(message.key or "", []).append(int(message.body))
        return found


def assert_nothing_missed(workers: Sequence[Worker], services: int, numbers: Iterable[int]) -> None:
    """Everything was seen, and no reader saw a number of a service before the one in front of it."""
    wanted = set(numbers)
    for service in range(services):
        of_service = [worker.numbers().get(f"prod/{service}", []) for worker in workers]
        assert set().union(*of_service) == wanted
        for seen in of_service:
            first: list[int] = list(dict.fromkeys(seen))
            assert first == sorted(first)


async def test_a_rebalance_in_the_middle_loses_nothing(world: KafkaWorld) -> None:
    """Consumers come and go while messages are in their hands: each is seen, in order within its key."""
    await world.send_numbers(range(10))
    workers = [Worker(await world.open())]
    await workers[0].step()
    in_hand = await take_count(workers[0].stream, 5, limit=5)
    workers[0].seen += in_hand
    workers.append(Worker(await world.open()))
    numbers = 10

    async def both_work() -> bool:
        nonlocal numbers
        await world.send_numbers([numbers])
        numbers += 1
        await asyncio.gather(*(worker.step() for worker in workers))
        return bool(workers[1].seen)

    await until("the second consumer to get a share", both_work)
    await workers[0].stream.acknowledge(in_hand)  # some may be of partitions that left meanwhile
    await workers[0].stream.close()
    workers.append(Worker(await world.open()))
    await world.send_numbers(range(numbers, numbers + 5))

    async def all_seen() -> bool:
        await asyncio.gather(*(worker.step(50) for worker in workers[1:]))
        return len({one.position for worker in workers for one in worker.seen}) == 12 * (numbers + 5)

    await until("everything to be seen", all_seen)
    assert_nothing_missed(workers, 12, range(numbers + 5))


async def test_what_a_consumer_held_comes_to_the_one_that_takes_over(world: KafkaWorld) -> None:
    """Partitions that leave take their unfinished messages along, at the same positions."""
    await world.send_numbers(range(3))
    first = await world.open()
    held = {one.position: one for one in await take_count(first, 36)}
    second = await world.open()
    taken: dict[str, StreamMessage] = {}

    async def some_moved() -> bool:
        messages, _ = await asyncio.gather(take_in_time(second), take_in_time(first))
        taken.update({one.position: one for one in messages})
        return bool(taken)

    await until("some of them to come again", some_moved)
    await second.acknowledge(list(taken.values()))
    await first.acknowledge(list(held.values()))
    assert taken.items() <= held.items()
    await asyncio.gather(first.close(), second.close())
    rest = {one.position for one in await take_rest(await world.open())}
    assert rest.isdisjoint(taken)


async def test_a_broker_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Over kill -9 and restart the consumer continues by itself; taking reports the outage meanwhile."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(folder=tmp_path / "kafka"))
        world = KafkaWorld(broker, stack)
        await world.send_numbers(range(10))
        worker = Worker(await world.open("session.timeout.ms=45000"))  # what is in hand outlives the outage
        *in_hand, bad = await take_count(worker.stream, 6, limit=6)
        worker.seen += [*in_hand, bad]
        broker.kill()

        async def told() -> bool:
            try:
                worker.seen += await worker.stream.take(1000)
            except TransientError:
                return True
            return False

        await until("the trouble to be told", told)
        await worker.stream.acknowledge(in_hand)
        with pytest.raises(TransientError, match=f"writing to {world.topic}.dead"):
            await worker.stream.reject(bad, "no signal")
        await asyncio.to_thread(broker.start)
        await world.send_numbers(range(10, 20))

        async def all_seen() -> bool:
            await worker.step(50)
            return len({one.position for one in worker.seen}) == 12 * 20

        await until("everything to be seen", all_seen)
        assert_nothing_missed([worker], 12, range(20))
        await worker.stream.acknowledge([one for one in worker.seen if one.position != bad.position])
        await worker.stream.reject(bad, "no signal")
        assert await worker.stream.lag() == 0
        assert [letter.entry for letter in await world.dead_letters()] == [bad.position]
        await worker.stream.close()
        assert await take_rest(await world.open()) == []


async def test_an_outage_longer_than_the_session_repeats_what_was_in_hand(tmp_path: Path) -> None:
    """The consumer joins again by itself; acknowledging and rejecting what was lost meanwhile is harmless."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(KafkaBroker(folder=tmp_path / "kafka"))
        world = KafkaWorld(broker, stack)
        await world.send_numbers(range(2))
        stream = await world.open("session.timeout.ms=1000&heartbeat.interval.ms=300")
        in_hand = await take_count(stream, 24)
        broker.kill()

        async def lost() -> bool:
            assert await take_in_time(stream) == ()
            return await _lag_or_none(stream) is None

        await until("the session to end", lost)
        await stream.reject(in_hand[0], "no signal")
        await stream.acknowledge(in_hand)
        await asyncio.to_thread(broker.start)
        again = {one.position for one in await take_rest(stream)}
        assert again == {one.position for one in in_hand}
        assert await world.dead_letters() == []


async def _lag_or_none(stream: KafkaStream) -> int | None:
    """While the broker is away only a consumer that holds nothing has an answer."""
    try:
        return await stream.lag()
    except TransientError:
        return -1


async def test_a_dead_letter_is_the_record_itself(world: KafkaWorld) -> None:
    """Bytes that are no text, a missing value and repeated headers are kept as they were."""
    headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("a", b"\xff"), ("b", b"")]
    await world.send([("prod/\N{SNOWMAN}", b"\xff\x00", headers)])
    stream = await world.open()
    [message] = await take_count(stream, 1)
    assert message.key == "prod/\N{SNOWMAN}"
    await stream.reject(message, "no\nsignal \x00" + "x" * 5000)
    [letter] = await world.raw_letters()
    assert letter.value() == b"\xff\x00"
    assert headers_of(letter)[:3] == [("a", b"1"), ("a", b"\xff"), ("b", b"")]
    added = dict(headers_of(letter)[3:])
    assert added["dead-position"] == message.position.encode()
    assert added["dead-group"] == b"heal"
    assert added["dead-reason"].startswith(b"no signal x")
    assert len(added["dead-reason"].decode()) == 1000


async def test_a_dead_letter_that_is_too_large_keeps_its_place(world: KafkaWorld) -> None:
    """Without room in the topic for the value the dead letter gives its position; no message waits."""
    world.broker.create_topic(f"{world.topic}.dead", settings={"max.message.bytes": "2000"})
    await world.append(b"x" * 5000, key="prod/payments")
    stream = await world.open()
    [message] = await take_count(stream, 1)
    await stream.reject(message, "too large")
    [letter] = await world.raw_letters()
    assert letter.value() is None
    assert dict(headers_of(letter))["dead-value-left-out"] == b"5000 bytes"
    assert dict(headers_of(letter))["dead-position"] == message.position.encode()
    await world.append(b"small", key="prod/payments")
    [small] = await take_count(stream, 1)
    await stream.reject(small, "bad")
    assert [one.value() for one in await world.raw_letters()] == [None, b"small"]


async def test_the_marks_of_transactions_are_no_lag(world: KafkaWorld) -> None:
    """A topic written in transactions ends with a mark for no reader; an aborted one is never handed out."""
    producer = Producer({"bootstrap.servers": world.broker.address, "transactional.id": world.topic})

    def transact(body: bytes, end: Callable[[], None]) -> None:
        producer.begin_transaction()
        producer.produce(world.topic, body, key="prod/payments")
        producer.flush(30)
        end()

    await asyncio.to_thread(producer.init_transactions, 30)
    await asyncio.to_thread(transact, b"good", producer.commit_transaction)
    await asyncio.to_thread(transact, b"never", producer.abort_transaction)
    assert [one.body for one in await take_rest(await world.open())] == [b"good"]


async def test_a_group_that_began_at_the_end_stays_there(world: KafkaWorld) -> None:
    """With start=latest earlier messages are left out, and messages that arrive between readers are not."""
    await world.append(b"old")
    first = await world.open(f"{QUICK}&start=latest")
    assert await take_rest(first) == []
    await first.close()
    await world.append(b"new")
    assert [one.body for one in await take_rest(await world.open(f"{QUICK}&start=latest"))] == [b"new"]


async def test_a_topic_made_again_has_new_positions(world: KafkaWorld) -> None:
    """The same place in another topic of that name is another message."""
    await world.append(b"first", key="prod/payments")
    stream = await world.open()
    [old] = await take_count(stream, 1)
    await stream.close()
    admin = AdminClient({"bootstrap.servers": world.broker.address})
    await asyncio.to_thread(admin.delete_topics([world.topic])[world.topic].result)

    async def made_again() -> bool:
        try:
            await asyncio.to_thread(world.broker.create_topic, world.topic, partitions=PARTITIONS)
        except TestbedError:
            return False
        return True

    await until("the topic to be made again", made_again)
    await world.append(b"other", key="prod/payments")
    [new] = await take_count(await world.open(), 1)
    assert old.position.partition("#")[0] == new.position.partition("#")[0]
    assert old.position != new.position


async def test_a_topic_that_comes_late_is_read(shared_broker: KafkaBroker) -> None:
    """A missing topic is reported by name, and read as soon as it is there."""
    topic = f"late-{uuid4().hex}"
    stream = KafkaStream(parse_kafka_url(f"kafka://{shared_broker.address}/{topic}"))
    with pytest.raises(TransientError, match=f"{topic}.*create it"):
        await stream.take(1)
    assert await stream.lag() is None
    shared_broker.create_topic(topic)
    Sender(shared_broker.address).send(topic, [(None, b"x", [])])
    assert len(await take_count(stream, 1)) == 1
    await stream.close()


async def test_an_account_is_needed_where_the_broker_asks_for_one(tmp_path: Path) -> None:
    """User and password of the address are accepted; a wrong password is reported as such."""
    secured = {
        "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            'username="broker" password="made-up" user_broker="made-up" user_heal="p@ss/word";'
        ),
    }
    client = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "broker",
        "sasl.password": "made-up",
    }
    how = "security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN"
    with KafkaBroker(folder=tmp_path / "kafka", settings=secured, client=client) as broker:
        broker.create_topic("signals")
        Sender(broker.address, **client).send("signals", [(None, b"x", [])])
        wrong = KafkaStream(parse_kafka_url(f"kafka://heal:wrong@{broker.address}/signals?{how}"))
        with pytest.raises(Forbidden, match="uthentication"):
            await wrong.take(1)
        await wrong.close()
        right = KafkaStream(parse_kafka_url(f"kafka://heal:p%40ss%2Fword@{broker.address}/signals?{how}"))
        [message] = await take_count(right, 1)
        await right.reject(message, "no signal")
        assert await take_rest(right) == []
        await right.close()

"""The Kafka stream without a broker: how it starts, and its life on the client library's own mock cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from app.connectors.streams.kafka.address import parse_kafka_url
from app.connectors.streams.kafka.client import consumer_settings, load_library, producer_settings
from app.connectors.streams.kafka.stream import KafkaStream, KafkaTimes
from app.errors import ConfigurationError, PermanentError, TransientError
from tests.contract.stream_suite import take_count

QUICK = KafkaTimes(wait=timedelta(seconds=0.1), answer=timedelta(seconds=2))
PATIENT = KafkaTimes(wait=timedelta(seconds=0.1), answer=timedelta(seconds=60))
"""For a broker that answers at once, however slow the machine."""


@pytest.fixture
def cluster() -> Iterator[tuple[str, Producer]]:
    """The address of a mock cluster that lives in this process, and a producer to it."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    [broker] = producer.list_topics(timeout=120).brokers.values()
    yield f"{broker.host}:{broker.port}", producer
    producer.flush(1)


async def test_what_was_finished_is_over_and_the_rest_comes_again(cluster: tuple[str, Producer]) -> None:
    """Take, acknowledge, reject and hand over, as with a real broker."""
    address, producer = cluster
    for number in range(4):
        producer.produce("signals", b"%d" % number, key="prod/payments", partition=0)
    producer.produce("signals.dead", b"old", partition=0)  # a mock cluster makes topics for producers only
    assert producer.flush(120) == 0
    url = parse_kafka_url(f"kafka://{address}/signals?session.timeout.ms=6000")
    first = KafkaStream(url, times=PATIENT)
    taken = await take_count(first, 4)
    assert [message.body for message in taken] == [b"0", b"1", b"2", b"3"]
    await first.acknowledge([taken[0], taken[2]])
    await first.reject(taken[3], "no signal")
    await first.close()
    second = KafkaStream(url, times=PATIENT)
    again = await take_count(second, 2, limit=2)
    assert [message.position for message in again] == [message.position for message in taken[1:3]]
    await second.acknowledge(again)
    await second.close()
    with pytest.raises(PermanentError, match="closed"):
        await second.take(1)  # the third had been read already
    reader = Consumer({"bootstrap.servers": address, "group.id": "look", "log_level": 0})
    reader.assign([TopicPartition("signals.dead", 0, 1)])
    letter = reader.poll(120)
    assert letter is not None
    assert (letter.error(), letter.value(), letter.key()) == (None, b"3", b"prod/payments")
    headers = letter.headers()
    assert isinstance(headers, list)
    assert ("dead-reason", b"no signal") in headers
    reader.close()


async def test_a_closed_stream_says_so() -> None:
    """Closing does not need a broker, and nothing is handed out afterwards."""
    stream = KafkaStream(parse_kafka_url("kafka://127.0.0.1:9/signals"), times=QUICK)
    await stream.acknowledge([])
    assert await stream.lag() is None
    await stream.close()
    await stream.close()


async def test_no_reader_takes_from_a_closed_stream(cluster: tuple[str, Producer]) -> None:
    """It is a fault of the caller that waiting does not fix."""
    stream = KafkaStream(parse_kafka_url(f"kafka://{cluster[0]}/signals"), times=QUICK)
    await stream.close()
    with pytest.raises(PermanentError, match="closed"):
        await stream.take(1)


async def test_a_limit_below_one_is_refused() -> None:
    """Nothing could ever be handed out."""
    stream = KafkaStream(parse_kafka_url("kafka://127.0.0.1:9/signals"), times=QUICK)
    with pytest.raises(ValueError, match="limit"):
        await stream.take(0)
    await stream.close()


async def test_the_cause_is_reported_without_an_answer() -> None:
    """Address and reason, so that an operator knows where to look."""
    stream = KafkaStream(parse_kafka_url("kafka://127.0.0.1:9/signals"), times=QUICK)
    with pytest.raises(TransientError, match=r"Kafka at 127\.0\.0\.1:9.*refused"):
        await stream.take(1)
    await stream.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("no.such.property=1", "no.such.property"),
        ("session.timeout.ms=soon", "session.timeout.ms"),
        ("security.protocol=SECURE", "security.protocol"),
        ("security.protocol=SSL&ssl.ca.location=/no/such/file", "ssl.ca.location"),
    ],
)
def test_what_the_client_refuses_stops_the_start(options: str, told: str) -> None:
    """The message names the property."""
    with pytest.raises(ConfigurationError, match=told):
        KafkaStream(parse_kafka_url(f"kafka://b/t?{options}"))


def test_guarantees_are_not_for_sale() -> None:
    """Whatever else is set, commits are made by hand only, and dead letters are written for good."""
    address = parse_kafka_url("kafka://b/t?session.timeout.ms=6000&client.id=x&fetch.min.bytes=2")
    consumer, producer = consumer_settings(address), producer_settings(address)
    assert consumer["enable.auto.commit"] is False
    assert consumer["enable.auto.offset.store"] is False
    assert consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert (consumer["session.timeout.ms"], consumer["fetch.min.bytes"]) == ("6000", "2")
    assert (producer["acks"], producer["enable.idempotence"], producer["client.id"]) == ("all", True, "x")
    assert "session.timeout.ms" not in producer


def test_without_the_library_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says how to install it."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[kafka\]'"):
        load_library()


def test_the_connector_does_not_load_the_library() -> None:
    """The agent starts without it where no stream is configured."""
    code = "import sys, app.connectors.streams.kafka.stream; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

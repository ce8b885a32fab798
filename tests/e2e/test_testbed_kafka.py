"""The bed's Kafka broker is a real one: what it acknowledged is there after kill -9. Budget: 60 s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer

from testbed import TestbedError
from testbed.kafka import KafkaBroker
from testbed.waiting import NotYet, wait_for

pytestmark = pytest.mark.real


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    with KafkaBroker(folder=tmp_path / "kafka") as broker:
        yield broker


def _append(address: str, topic: str, *bodies: bytes) -> None:
    """Return when the broker has acknowledged them all."""
    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": address, "acks": "all", "enable.idempotence": True})

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    for body in bodies:
        producer.produce(topic, body, on_delivery=delivered)
    assert producer.flush(30) == 0
    assert refused == []


def _read(address: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[bytes | None] = []

    def check() -> bool | NotYet:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(message.value())
        return True if len(found) >= count else NotYet(f"{found}")

    wait_for(f"{count} messages of {topic}", check, timeout_seconds=30, interval_seconds=0)
    consumer.close()
    return found


def test_an_acknowledged_message_survives_kill_9(broker: KafkaBroker) -> None:
    """What a producer was promised before the crash is read after it, once, at the same address."""
    broker.create_topic("signals")
    address = broker.address
    _append(address, "signals", b"before", b"as well")
    broker.kill()
    with pytest.raises(TestbedError, match="kafka ended with -9"):
        broker.check()
    broker.start()
    assert broker.address == address
    _append(address, "signals", b"after")
    assert _read(address, "signals", 3) == [b"before", b"as well", b"after"]


def test_a_clean_stop_keeps_everything_too(broker: KafkaBroker) -> None:
    """Stopped regularly and started again it has the same messages."""
    broker.create_topic("signals")
    _append(broker.address, "signals", b"kept")
    broker.stop()
    broker.start()
    assert _read(broker.address, "signals", 1) == [b"kept"]

"""Signals through Kafka and Redis: producers as careful as a stream lets them be.

A producer of Kafka is idempotent, so that its own repetitions append nothing
twice. Redis knows no such thing: what got no answer is sent again and may stand
there twice, which is counted, and is for the agent to deduplicate. What a reader
must put among the dead letters is sent too.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from datetime import datetime
from typing import Any

from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Delivery
from redis import asyncio as redis
from redis.exceptions import RedisError

from tests.soak.intakes import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Sent, content_of
from tests.soak.score import DEPLOYS, Manner, Message

DELIVERY_MS = 120_000
"""How long a producer of Kafka tries by itself; longer than any fault of a soak."""


def records(message: Message, beginning: datetime) -> list[tuple[str, bytes, str]]:
    """Key, body and content of each entry: one record each, keyed by its service."""
    kind = "deploy" if message.path == DEPLOYS else "metric"
    found = []
    for body in message.bodies(beginning):
        key = f"{body['environment']}/{body['service']}"
        content = content_of(kind, body["service"], datetime.fromisoformat(body["timestamp"]))
        found.append((key, json.dumps({"type": kind, **body}).encode(), content))
    return found


def note(message: Message, content: str, sent: Sent) -> None:
    """The stream has it; what no reader may accept is no signal."""
    if message.manner is Manner.IMPOSSIBLE:
        sent.refused += 1
    else:
        sent.appended[content] += 1


class KafkaIntake:
    """Appends to a topic, keyed by environment and service."""

    source = "kafka"

    def __init__(self, address: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": DELIVERY_MS,
                "log_level": 0,
            }
        )
        self._stopped = threading.Event()
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    async def send(self, message: Message, beginning: datetime, sent: Sent) -> None:
        for key, body, content in records(message, beginning):
            while (error := await self._append(key, body)) is not None:
                sent.retries[error.name()] += 1
                sent.unsure[content] += 1
            note(message, content, sent)

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.flush, 10)
        self._stopped.set()
        await asyncio.to_thread(self._serving.join)

    async def _append(self, key: str, body: bytes) -> KafkaError | None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[KafkaError | None] = loop.create_future()

        def delivered(error: KafkaError | None, _: Delivery) -> None:
            loop.call_soon_threadsafe(done.set_result, error)

        self._producer.produce(self._topic, body, key=key, on_delivery=delivered)
        return await done

    def _serve(self) -> None:
        while not self._stopped.is_set():
            self._producer.poll(0.1)


class RedisIntake:
    """Appends to a stream, and again when no answer came."""

    source = "redis"

    def __init__(self, url: str, stream: str, seed: int) -> None:
        self._stream = stream
        self._dice = random.Random(seed)  # noqa: S311 - back-off, no secret
        self._client: Any = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2)

    async def send(self, message: Message, beginning: datetime, sent: Sent) -> None:
        for key, body, content in records(message, beginning):
            wait = FIRST_WAIT_SECONDS
            while True:
                try:
                    await self._client.xadd(self._stream, {"key": key, "body": body})
                except (RedisError, OSError) as error:
                    sent.retries[type(error).__name__] += 1
                    if not _was_refused(error):
                        sent.unsure[content] += 1
                    await asyncio.sleep(wait * self._dice.uniform(0.5, 1))
                    wait = min(LONGEST_WAIT_SECONDS, wait * 2)
                else:
                    note(message, content, sent)
                    break

    async def close(self) -> None:
        await self._client.aclose()


def _was_refused(error: BaseException) -> bool:
    """No reader was there: nothing was sent."""
    return isinstance(error, ConnectionRefusedError) or (
        error.__context__ is not None and _was_refused(error.__context__)
    )

"""How a soak's signals reach the agent: one small strategy for each way in.

A sender behaves as a careful real one does: it repeats what was not
acknowledged, says so with the same idempotency key, waits as the answer says,
and remembers every acknowledgement with the id that came with it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import httpx2

from tests.soak.score import Message

TIMEOUT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0


@dataclass(kw_only=True)
class Sent:
    """What senders know in the end: the other side of the accounts."""

    acknowledged: list[str] = field(default_factory=list)
    """Ids of accepted signals, in the order of their acknowledgement."""
    refused: int = 0
    """Entries that were turned away for good."""
    retries: Counter[str] = field(default_factory=Counter)
    """How often something had to be sent again, by the reason."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no sender should ever see."""
    appended: Counter[str] = field(default_factory=Counter)
    """Into streams, which know no signal ids: how often each content was acknowledged."""
    unsure: Counter[str] = field(default_factory=Counter)
    """How often each content was sent and not answered: it may stand there once more for each."""

    @property
    def accepted(self) -> int:
        """Signals that were acknowledged."""
        return len(self.acknowledged) + self.appended.total()


class Intake(Protocol):
    """One way in."""

    source: str
    """What its signals are of in the store."""

    async def send(self, message: Message, beginning: datetime, sent: Sent) -> None:
        """Deliver until it is acknowledged or refused for good, and note which."""
        ...

    async def close(self) -> None: ...


def content_of(kind: str, service: str, observed_at: datetime) -> str:
    """Distinguishes the observations of a soak: no two share a microsecond by accident."""
    return f"{kind}/{service}/{observed_at.astimezone(UTC).isoformat()}"


class HttpIntake:
    """`POST` to one of several API processes, the next one when one does not answer."""

    source = "http"

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        self._urls = urls
        self._dice = random.Random(seed)  # noqa: S311 - back-off, no secret
        self._client = httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def send(self, message: Message, beginning: datetime, sent: Sent) -> None:
        bodies = message.bodies(beginning)
        body = bodies if len(bodies) > 1 else bodies[0]
        first = self._dice.randrange(len(self._urls))
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1_000_000):
            url = self._urls[(first + attempt) % len(self._urls)] + message.path
            try:
                answer = await self._client.post(url, json=body, headers={"Idempotency-Key": message.key})
            except httpx2.TransportError as error:
                sent.retries[type(error).__name__] += 1
            else:
                if answer.status_code == 202:
                    items = answer.json()["items"] if len(bodies) > 1 else [answer.json()]
                    sent.acknowledged += [item["signal_id"] for item in items]
                    return
                if answer.status_code == 422:
                    sent.refused += len(bodies)
                    return
                sent.retries[str(answer.status_code)] += 1
                if answer.status_code not in (429, 503):
                    sent.surprises.append(f"{answer.status_code}: {answer.text[:300]}")
                elif "Retry-After" not in answer.headers:
                    sent.surprises.append(f"{answer.status_code} without Retry-After")
                else:
                    wait = max(wait, float(answer.headers["Retry-After"]))
            await asyncio.sleep(wait * self._dice.uniform(0.5, 1))
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)

    async def close(self) -> None:
        await self._client.aclose()

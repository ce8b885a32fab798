"""A stream of signals in memory, for tests that are about its reader. It keeps the contract of real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from app.agent.ports.streams import StreamMessage
from app.clock import Clock, SystemClock
from app.errors import TransientError

_WAIT_SECONDS = 0.02


@dataclass(kw_only=True)
class MemoryTopic:
    """What a server would keep: it outlives every consumer."""

    clock: Clock = field(default_factory=SystemClock)
    name: str = field(default_factory=lambda: uuid4().hex)
    waiting: list[StreamMessage] = field(default_factory=list)
    """Neither acknowledged nor rejected, in order; `deliveries` counts what happened so far."""
    held: dict[str, MemoryStream] = field(default_factory=dict)
    letters: list[tuple[StreamMessage, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """What was acknowledged and rejected, in order: `ack 0`, `reject 1`."""
    outage: str = ""
    """While this says why, every call is answered with a `TransientError`."""
    _appended: int = 0

    def append(
        self, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.waiting.append(
            StreamMessage(
                position=f"memory:{self.name}/{self._appended}",
                key=key,
                body=body,
                headers=dict(headers or {}),
                appended_at=self.clock.now(),
                deliveries=0,
            )
        )
        self._appended += 1

    def end(self, message: StreamMessage) -> bool:
        """Done with for good; False when it was already."""
        self.held.pop(message.position, None)
        before = len(self.waiting)
        self.waiting = [one for one in self.waiting if one.position != message.position]
        return len(self.waiting) < before


class MemoryStream:
    """One consumer of a topic."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic

    async def take(self, limit: int) -> tuple[StreamMessage, ...]:
        if not self._free():
            await self._topic.clock.sleep(_WAIT_SECONDS)
        self._check()
        taken = [replace(one, deliveries=one.deliveries + 1) for one in self._free()[:limit]]
        counted = {one.position: one for one in taken}
        self._topic.waiting = [counted.get(one.position, one) for one in self._topic.waiting]
        self._topic.held |= dict.fromkeys(counted, self)
        return tuple(taken)

    async def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        self._check()
        for message in messages:
            if self._topic.end(message):
                self._topic.log.append(f"ack {_number(message)}")

    async def reject(self, message: StreamMessage, reason: str) -> None:
        self._check()
        if self._topic.end(message):
            self._topic.letters.append((message, reason))
            self._topic.log.append(f"reject {_number(message)}")

    async def lag(self) -> int | None:
        self._check()
        return len(self._topic.waiting)

    async def close(self) -> None:
        self._topic.held = {at: one for at, one in self._topic.held.items() if one is not self}

    def _free(self) -> list[StreamMessage]:
        return [one for one in self._topic.waiting if one.position not in self._topic.held]

    def _check(self) -> None:
        if self._topic.outage:
            raise TransientError(self._topic.outage)


def _number(message: StreamMessage) -> str:
    return message.position.rpartition("/")[2]

"""A channel in memory, with threads and edits as a chat has them, that fails on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar, cast

from app.agent.notifications.channel import Bulletin, ThreadReply
from app.clock import Clock, SystemClock
from app.connectors.chatops import describe

T = TypeVar("T")


class Fate(StrEnum):
    """What becomes of one call."""

    WELL = "well"
    LOST = "lost"
    """It has its effect, and the answer never comes: raises `error`, or hangs without one."""
    FAILED = "failed"
    """No effect: raises `error`, or hangs without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one call goes."""

    fate: Fate = Fate.WELL
    error: BaseException | None = None


@dataclass(slots=True, kw_only=True)
class Shown:
    """One message as people see it."""

    key: str
    reference: str
    at: datetime
    lines: tuple[str, ...]
    loud: bool = True
    nonce: str | None = None
    edits: list[datetime] = field(default_factory=list)


@dataclass(kw_only=True)
class Chat:
    """The public messages; outlives the channels that write to it."""

    clock: Clock = field(default_factory=SystemClock)
    messages: list[Shown] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def of(self, key: str) -> list[Shown]:
        return [one for one in self.messages if one.key == key]

    @property
    def text(self) -> str:
        return "\n".join(line for one in self.messages for line in one.lines)


WELL = Fault()
Fates = Callable[[str], Fault]
"""How the call goes that is named: begin, refresh, reply, find, check."""


@dataclass(kw_only=True)
class MemoryChannel:
    """`Channel` over a `Chat`."""

    chat: Chat = field(default_factory=Chat)
    name: str = "memory"
    has_buttons: bool = True
    searchable: bool = True
    fates: Fates = lambda call: WELL

    async def begin(self, bulletin: Bulletin) -> str:
        message = describe(bulletin)
        identifier = bulletin.record.incident.id

        def post() -> str:
            reference = f"message-{len(self.chat.messages)}"
            self._post(identifier, reference, (message.title, *message.lines), bulletin.nonce)
            return reference

        return await self._call("begin", post)

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        message = describe(bulletin)

        def edit() -> str:
            (shown,) = [one for one in self.chat.messages if one.reference == reference]
            shown.lines = (message.title, *message.lines)
            shown.nonce = bulletin.nonce
            shown.edits.append(self.chat.clock.now())
            return reference

        return await self._call("refresh", edit)

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        def post() -> str:
            self._post(reply.key, f"{reference}/{len(self.chat.messages)}", reply.lines, None, reply.loud)
            return reference

        await self._call("reply", post)

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:
        def look() -> str | None:
            if not self.searchable:
                return None
            return next((one.reference for one in self.chat.of(key) if one.at >= since), None)

        return await self._call("find", look)

    async def check(self) -> None:
        await self._call("check", lambda: "")

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _post(
        self, key: str, reference: str, lines: tuple[str, ...], nonce: str | None, loud: bool = True
    ) -> None:
        at = self.chat.clock.now()
        self.chat.messages.append(
            Shown(key=key, reference=reference, at=at, lines=lines, nonce=nonce, loud=loud)
        )

    async def _call(self, call: str, effect: Callable[[], T]) -> T:
        self.chat.calls.append(call)
        fault = self.fates(call)
        answer = None if fault.fate is Fate.FAILED else effect()
        if fault.fate is Fate.WELL:
            return cast("T", answer)
        if fault.error is None:
            await asyncio.Event().wait()
        assert fault.error is not None
        raise fault.error


def scripted(faults: Iterator[Fault]) -> Fates:
    """One fault after the other, then none."""
    return lambda call: next(faults, WELL)

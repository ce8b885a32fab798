"""Redis Streams as a `SignalStream`: a consumer group whose entries outlive every one of its consumers.

Built for `heal worker --from redis://...` and read by `app.workers.stream_reader`.
An entry stays in the group's pending list until it was acknowledged or stands
among the dead letters (`<stream>:dead`), so that a crash on either side only
repeats it. Consumers share the work; a consumer that is alive renews what it
holds, and what a dead one held is claimed by the others. What every group has
acknowledged is trimmed, and nothing else. Needs Redis 7.0 or later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.agent.ports.streams import StreamMessage
from app.bounds.deadline import deadline
from app.connectors.streams.redis.address import RedisAddress
from app.connectors.streams.redis.client import GroupExists, RedisServer
from app.connectors.streams.redis.entries import (
    Pending,
    alone_or_together,
    entry_of,
    numbers,
    text,
    to_message,
)
from app.connectors.text import shorten
from app.errors import AgentError, NotFound, TransientError

log = logging.getLogger(__name__)

_SCAN_EVERY_SECONDS = 1.0
_TRIM_EVERY_SECONDS = 1.0
_FORGET_EVERY_SECONDS = 600.0
_CLOSE_SECONDS = 5.0
_ABANDONED_MS = 86_400_000
_MOST_PENDING = 10_000
_MAX_REASON_CHARS = 2_000

_REJECT = """
local waiting = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
if #waiting == 0 then return 0 end
local letter = {}
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
local fields = entry[1] and entry[1][2] or {}
for i = 1, math.min(#fields, 2000) do letter[#letter + 1] = fields[i] end
for i = 3, #ARGV do letter[#letter + 1] = ARGV[i] end
redis.call('XADD', KEYS[2], '*', unpack(letter))
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
"""
"""Dead letter and acknowledgement in one step, and none twice.

Not MULTI: there the acknowledgement would stand even where the letter fails.
"""

_FORGET = """
local gone = 0
for _, entry in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local one = {}
  for i = 1, #entry, 2 do one[entry[i]] = entry[i + 1] end
  if one['pending'] == 0 and one['idle'] > tonumber(ARGV[2]) then
    gone = gone + 1
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one['name'])
  end
end
return gone
"""
"""Forget consumers that hold nothing, looked at and removed in one step: a removal drops what is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTimes:
    """How long a Redis stream waits for what."""

    wait: timedelta = timedelta(seconds=1)
    """For the first new entry."""
    answer: timedelta = timedelta(seconds=5)
    """For the server."""
    dead_after: timedelta = timedelta(seconds=15)
    """A consumer that did not renew what it holds for this long is dead to the others."""
    forget_after: timedelta = timedelta(days=1)
    """The name of a consumer that held nothing and did nothing for this long is removed."""


class RedisStream:
    """`app.agent.ports.SignalStream` over one consumer group of one Redis stream."""

    def __init__(
        self, address: RedisAddress, *, times: RedisTimes | None = None, consumer: str | None = None
    ) -> None:
        """Connects on first use. `consumer` must be no other process's; by default it is new each time."""
        self._address = address
        self._times = times or RedisTimes()
        self._stream, self._group = address.stream, address.group
        self._consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._server = RedisServer(
            address,
            connect_seconds=self._times.answer.total_seconds(),
            answer_seconds=(self._times.wait + self._times.answer).total_seconds(),
        )
        self._held: set[str] = set()
        """Entries of the last `take` that are neither acknowledged nor rejected: what is renewed."""
        self._answer_lost = False
        """The server may have handed us entries whose names never arrived."""
        self._next_scan = self._next_trim = self._next_forget = 0.0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def dead_letters(self) -> str:
        """The stream that rejected entries are put into."""
        return f"{self._stream}:dead"

    # ------------------------------------------------------------ the port

    async def take(self, limit: int) -> tuple[StreamMessage, ...]:
        """What dead consumers left comes first, oldest first; an entry under suspicion comes alone."""
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        # Who asks for more has settled what it had, or given it up: then it comes again like a dead one's.
        self._held.clear()
        try:
            try:
                return await self._take(limit)
            except NotFound:
                # The first start, a flush, or a server that lost its data: from the very beginning.
                await self._create_group()
                return await self._take(limit)
        except BaseException:  # a cancelled call too: entries may be on their way here
            self._answer_lost = True
            raise

    async def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        entries = [entry_of(message) for message in messages]
        if entries:
            await self._server.ask(lambda redis: redis.xack(self._stream, self._group, *entries))
            self._held.difference_update(entries)
        await self._keep_house()

    async def reject(self, message: StreamMessage, reason: str) -> None:
        entry = entry_of(message)
        letter = {
            "dead-reason": shorten(reason, _MAX_REASON_CHARS),
            "dead-entry": entry,
            "dead-stream": self._stream,
            "dead-group": self._group,
            "dead-deliveries": str(message.deliveries),
            "dead-at": datetime.now(UTC).isoformat(),
        }
        words = [word for pair in letter.items() for word in pair]
        keys = (self._stream, self.dead_letters)
        with contextlib.suppress(NotFound):  # without the group nothing is pending: it will be read again
            await self._server.ask(lambda redis: redis.eval(_REJECT, 2, *keys, self._group, entry, *words))
        self._held.discard(entry)

    async def lag(self) -> int | None:
        """Entries to be read or acknowledged by the group; None where Redis does not know (after XDEL)."""
        for group in await self._groups():
            if text(group["name"]) == self._group:
                lag: int | None = group.get("lag")
                return None if lag is None else lag + int(group["pending"])
        return int(await self._server.ask(lambda redis: redis.xlen(self._stream)))

    async def close(self) -> None:
        """Give back what is held, as if it had not been handed out; a server out of reach is left alone."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait({renewing})
        try:
            async with deadline(_CLOSE_SECONDS, lambda: TransientError("no answer")):
                await self._hand_back()
        except AgentError as error:
            log.info("pending entries left for other consumers to claim: %s", error)
        self._held.clear()
        await self._server.aclose()

    # ------------------------------------------------------------ taking

    async def _take(self, limit: int) -> tuple[StreamMessage, ...]:
        if self._answer_lost:
            lost = await self._pending(mine=True)
            self._answer_lost = len(lost) > limit
            if lost:
                return await self._claim(lost, limit, idle_ms=0)
        now = asyncio.get_running_loop().time()
        if now >= self._next_scan:
            self._next_scan = now + _SCAN_EVERY_SECONDS
            idle_ms = _milliseconds(self._times.dead_after)
            left = await self._pending(idle_ms=idle_ms, count=limit)
            if left and (claimed := await self._claim(left, limit, idle_ms=idle_ms)):
                self._next_scan = now  # there may be more
                return claimed
        return await self._read_new(limit)

    async def _read_new(self, limit: int) -> tuple[StreamMessage, ...]:
        answer: Any = await self._server.ask(
            lambda redis: redis.xreadgroup(
                self._group,
                self._consumer,
                {self._stream: ">"},
                count=limit,
                block=_milliseconds(self._times.wait),
            )
        )
        return tuple(
            self._hand_out(text(entry), fields, 1) for _, entries in answer or () for entry, fields in entries
        )

    async def _pending(
        self, *, mine: bool = False, idle_ms: int | None = None, count: int = _MOST_PENDING
    ) -> list[Pending]:
        answer: Any = await self._server.ask(
            lambda redis: redis.xpending_range(
                self._stream,
                self._group,
                min="-",
                max="+",
                count=count,
                consumername=self._consumer if mine else None,
                idle=idle_ms,
            )
        )
        return [Pending(entry=text(one["message_id"]), deliveries=one["times_delivered"]) for one in answer]

    async def _claim(
        self, pending: Sequence[Pending], limit: int, *, idle_ms: int
    ) -> tuple[StreamMessage, ...]:
        """Make entries ours, unless another consumer was faster; those that no longer exist vanish."""
        chosen = alone_or_together(pending[:limit])
        answer: Any = await self._server.ask(
            lambda redis: redis.xclaim(
                self._stream,
                self._group,
                self._consumer,
                min_idle_time=idle_ms,
                message_ids=[one.entry for one in chosen],
            )
        )
        deliveries = {one.entry: one.deliveries + 1 for one in chosen}
        return tuple(self._hand_out(text(entry), fields, deliveries[text(entry)]) for entry, fields in answer)

    def _hand_out(self, entry: str, fields: Mapping[bytes, bytes], deliveries: int) -> StreamMessage:
        self._held.add(entry)
        return to_message(self._stream, entry, fields, deliveries)

    async def _create_group(self) -> None:
        """From the first entry: what was acknowledged before and is read again is known to the store."""
        with contextlib.suppress(GroupExists):
            await self._server.ask(
                lambda redis: redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            )
            log.info("group %s of stream %s starts at the first entry", self._group, self._stream)

    # ------------------------------------------------------------ keeping and giving back

    async def _renew(self) -> None:
        """Say, while this process lives, that it still works on what it holds."""
        every = self._times.dead_after.total_seconds() / 3
        while True:
            await asyncio.sleep(every)
            if not self._held:
                continue
            try:
                held = [one.entry for one in await self._pending(mine=True) if one.entry in self._held]
                if held:
                    await self._claim_silently(held)
            except AgentError as error:
                log.info("claims on pending entries not renewed: %s", error)

    async def _claim_silently(
        self, entries: list[str], *, idle_ms: int | None = None, deliveries: int | None = None
    ) -> None:
        """Set when entries were handed out last (now, or longer ago) and how often, counting no delivery."""
        await self._server.ask(
            lambda redis: redis.xclaim(
                self._stream,
                self._group,
                self._consumer,
                min_idle_time=0,
                message_ids=list(entries),
                idle=idle_ms,
                retrycount=deliveries,
                justid=True,
            )
        )

    async def _hand_back(self) -> None:
        mine = await self._pending(mine=True)
        for count in {one.deliveries for one in mine}:
            entries = [one.entry for one in mine if one.deliveries == count]
            await self._claim_silently(entries, idle_ms=_ABANDONED_MS, deliveries=max(count - 1, 0))
        if not mine:
            await self._server.ask(
                lambda redis: redis.xgroup_delconsumer(self._stream, self._group, self._consumer)
            )

    # ------------------------------------------------------------ housekeeping

    async def _keep_house(self) -> None:
        """Trim and forget now and then; a failure is no failure of what it comes after."""
        now = asyncio.get_running_loop().time()
        try:
            if self._address.trim and now >= self._next_trim:
                self._next_trim = now + _TRIM_EVERY_SECONDS
                await self.trim()
            if now >= self._next_forget:
                self._next_forget = now + _FORGET_EVERY_SECONDS
                await self.forget_consumers()
        except AgentError as error:
            log.info("trimming stream %s failed: %s", self._stream, error)

    async def trim(self) -> int:
        """Remove the entries before the first that some group has still to read or acknowledge; how many.

        Between the questions the groups only move on, so what is removed was finished.
        """
        bounds: list[tuple[int, int]] = []
        for group in await self._groups():
            milliseconds, number = numbers(text(group["last-delivered-id"]))
            bound = (milliseconds, number + 1)
            if group["pending"]:
                name = text(group["name"])
                oldest = await self._oldest_pending(name)
                if oldest is None:
                    return 0
                bound = min(bound, numbers(oldest))
            bounds.append(bound)
        if not bounds:
            return 0
        first = "{}-{}".format(*min(bounds))
        return int(
            await self._server.ask(lambda redis: redis.xtrim(self._stream, minid=first, approximate=False))
        )

    async def forget_consumers(self) -> int:
        """Remove the names of consumers that hold nothing and are long gone; how many."""
        idle_ms = _milliseconds(self._times.forget_after)
        answer: Any = await self._server.ask(
            lambda redis: redis.eval(_FORGET, 1, self._stream, self._group, str(idle_ms))
        )
        return int(answer)

    async def _oldest_pending(self, group: str) -> str | None:
        answer: Any = await self._server.ask(lambda redis: redis.xpending(self._stream, group))
        oldest = answer["min"]
        return None if oldest is None else text(oldest)

    async def _groups(self) -> list[dict[str, Any]]:
        """What Redis says of each group; nothing while there is no stream."""
        if not await self._server.ask(lambda redis: redis.exists(self._stream)):
            return []
        answer: Any = await self._server.ask(lambda redis: redis.xinfo_groups(self._stream))
        return list(answer)


def _milliseconds(span: timedelta) -> int:
    return max(1, int(span.total_seconds() * 1000))

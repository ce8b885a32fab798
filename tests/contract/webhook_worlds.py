"""A stand-in for receivers of webhooks: an HTTP server on loopback that takes what is posted, or does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.agent.notifications.channel import Channel
from tests.contract.channel_suite import RETRY_AFTER_SECONDS, Trouble
from tests.unit.loopback import Behaviour, Loopback, Request, hang, loopback, raw, reply

TOKEN = "T0KEN-very-secret"
TIMEOUT_SECONDS = 2.0

_BEHAVIOURS: dict[Trouble, Behaviour] = {
    Trouble.NONE: reply(202, f"accepted at {TOKEN}", Connection="close"),
    Trouble.ABSENT: reply(202, Connection="close"),
    Trouble.LOST: raw(b""),
    Trouble.HANGS: hang,
    Trouble.LIMITED: reply(429, TOKEN, Retry_After=str(RETRY_AFTER_SECONDS)),
    Trouble.FORBIDDEN: reply(403, f"no {TOKEN}"),
    Trouble.REJECTED: reply(400, f"bad {TOKEN}"),
    Trouble.BROKEN: reply(500, TOKEN),
}


@dataclass(kw_only=True)
class WebhookWorld:
    """A `ChannelWorld` over one address; `readable` says how a posted body looks to people."""

    server: Loopback
    make: Callable[[str], Channel]
    readable: Callable[[dict[str, Any]], str]
    live_markup: Sequence[str]
    searchable: bool = False
    secrets: Sequence[str] = (TOKEN,)
    taken: list[Request] = field(default_factory=list)
    opened: list[Channel] = field(default_factory=list)
    kind: Trouble = Trouble.NONE

    async def open(self) -> Channel:
        channel = self.make(f"{self.server.url}/hook/{TOKEN}?sig={TOKEN}")
        self.opened.append(channel)
        return channel

    async def trouble(self, kind: Trouble) -> None:
        if kind is Trouble.ABSENT:
            await self.server.stop_listening()
        elif self.kind is Trouble.ABSENT:
            await self.server.listen_again()
        self.kind = kind

    def seen(self) -> Sequence[str]:
        return [self.readable(json.loads(request.body)) for request in self.taken]

    def sent(self) -> str:
        return "\n".join(request.body.decode() for request in self.taken)

    async def behave(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST" and self.kind in (Trouble.NONE, Trouble.LOST, Trouble.HANGS):
            self.taken.append(request)
        await _BEHAVIOURS[self.kind](request, writer)


@asynccontextmanager
async def webhook_world(
    make: Callable[[str], Channel],
    readable: Callable[[dict[str, Any]], str],
    *,
    live_markup: Sequence[str] = (),
) -> AsyncIterator[WebhookWorld]:
    """A receiver until the block ends."""
    async with loopback(hang) as server:
        world = WebhookWorld(server=server, make=make, readable=readable, live_markup=live_markup)
        server.behaviour = world.behave
        try:
            yield world
        finally:
            for channel in world.opened:
                await channel.aclose()

"""Changes as server-sent events: one read of the store serves every client of this process.

A client receives the ids of incidents whose timeline grew, and that the kill switch was set; it reads the
rest through the API. The number of clients is bounded; a client that reads nothing for `SLOW_SECONDS` is
disconnected. A stream ends once its client may no longer read: its right is checked again every
`RECHECK_SECONDS`. All connections end when the process stops, and clients reconnect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.agent.ids import IncidentId
from app.api.dependencies import ApiDependencies
from app.api.head import HEAD_ONLY
from app.errors import AgentError

MOST_CLIENTS = 500
LOOK_EVERY_SECONDS = 1.0
PING_SECONDS = 15.0
SLOW_SECONDS = 10.0
RECHECK_SECONDS = 15.0
RETRY_MS = 2000
"""After which time a browser connects again."""
MOST_IDS = 100
"""Ids in one event; with more, the event has none and means: anything."""
_LOOK_BACK = timedelta(seconds=60)
"""How far back each look reads, so that an entry committed late is not missed."""

Seen = dict[IncidentId, int]
Admitted = Callable[[], Awaitable[bool]]
"""Whether the client of a stream may still read."""


def most_clients(max_connections: int) -> int:
    """How many clients one process serves: they leave a third of its connections to other requests."""
    return min(MOST_CLIENTS, max_connections * 2 // 3)


@dataclass(slots=True, kw_only=True, eq=False)
class Subscription:
    """One client, with the events that it has not received yet."""

    pending: set[IncidentId] = field(default_factory=set)
    anything: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self, ids: set[IncidentId], *, anything: bool) -> None:
        """Add to the pending events of the client; bounded, even for a slow client."""
        self.pending |= ids
        self.anything |= anything
        if len(self.pending) > MOST_IDS:
            self.pending.clear()
            self.anything = True
        self.ready.set()

    def take(self) -> bytes:
        """The next event."""
        ids = [] if self.anything else sorted(self.pending)
        self.pending.clear()
        self.anything = False
        self.ready.clear()
        return f"event: change\ndata: {json.dumps({'incidents': ids})}\n\n".encode()


@dataclass(slots=True, kw_only=True)
class ChangeFeed:
    """The clients of this process, and the task that looks for them while there are any."""

    most: int = MOST_CLIENTS
    every: float = LOOK_EVERY_SECONDS
    slow: float = SLOW_SECONDS
    recheck: float = RECHECK_SECONDS
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the store was read: later changes are seen."""
    closed: bool = False
    _clients: set[Subscription] = field(default_factory=set)
    _task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether another client would be refused."""
        return len(self._clients) >= self.most

    @property
    def clients(self) -> int:
        return len(self._clients)

    def join(self, container: ApiDependencies) -> Subscription:
        """Add a client; the first one starts the task."""
        one = Subscription()
        self._clients.add(one)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(container))
        return one

    def leave(self, one: Subscription) -> None:
        """Remove a client; after the last one the store is not read."""
        self._clients.discard(one)
        if not self._clients and self._task is not None:
            self._task.cancel()
            self._task = None

    def notify(self, changed: set[IncidentId], *, anything: bool = False) -> None:
        """Report changed incidents to every client."""
        for client in self._clients:
            client.notify(changed, anything=anything)

    def close(self) -> None:
        """End every client's stream: the process stops."""
        self.closed = True
        for one in self._clients:
            one.ready.set()

    async def _run(self, container: ApiDependencies) -> None:
        seen: Seen | None = None
        switched: object = None
        while True:
            with suppress(AgentError):  # the store is out of reach: the next look reads as far back
                now = await _look(container)
                switch = await container.store.guardrails.kill_switch()
                if seen is not None:
                    changed = {one for one, length in now.items() if seen.get(one) != length}
                    if changed or switch != switched:
                        self.notify(changed, anything=switch != switched)
                seen, switched = now, switch
                self.looked.set()
            await asyncio.sleep(self.every)


async def _look(container: ApiDependencies) -> Seen:
    return dict(await container.store.incidents.changed_since(container.clock.now() - _LOOK_BACK))


async def events(feed: ChangeFeed, one: Subscription, *, ping: float = PING_SECONDS) -> AsyncIterator[bytes]:
    """The events of one client until the process stops; a ping in every silence."""
    yield f"retry: {RETRY_MS}\nevent: ping\ndata: {{}}\n\n".encode()
    while not feed.closed:
        try:
            async with asyncio.timeout(ping):
                await one.ready.wait()
        except TimeoutError:
            yield b"event: ping\ndata: {}\n\n"
        else:
            if not feed.closed:
                yield one.take()


class ChangeStream(Response):
    """The response of one client. It never reads from the connection, so that a stop ends it in order."""

    media_type = "text/event-stream"

    def __init__(
        self, feed: ChangeFeed, container: ApiDependencies, request: Request, admitted: Admitted
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._feed, self._container, self._request, self._admitted = feed, container, request, admitted

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope.get(HEAD_ONLY):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        one = self._feed.join(self._container)
        now = asyncio.get_running_loop().time
        checked = now()
        try:
            async for part in events(self._feed, one, ping=min(PING_SECONDS, self._feed.recheck)):
                if now() - checked >= self._feed.recheck:
                    if not await self._may_read():
                        break
                    checked = now()
                async with asyncio.timeout(self._feed.slow):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                if await self._request.is_disconnected():
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            raise ConnectionAbortedError(
                f"a client of /v1/changes read nothing for {self._feed.slow:g} s and is disconnected"
            ) from None
        finally:
            self._feed.leave(one)

    async def _may_read(self) -> bool:
        try:
            return await self._admitted()
        except AgentError:  # the store is out of reach: nothing can be read from it either
            return True

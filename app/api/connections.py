"""Connections of `heal run`: time limits of heads and of peers that read nothing, and a connection limit.

Uvicorn closes connections that are idle after a response, but waits without limit for
the first byte and for the end of a request head. Here a head has `HEAD_SECONDS`. At the
connection limit, a new connection replaces the one that has sent no complete head for
the longest time, so that probes and operators always connect.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""How long a request's head may take to arrive, from the connection or from the answer before it."""
HEAD_BYTES = 65_536
STALLED_SECONDS = 20.0
"""How long a peer may read so little that a full write buffer does not drain."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `bounded` makes the class for one server."""

    most: ClassVar[int] = 512
    head_seconds: ClassVar[float] = HEAD_SECONDS
    stalled_seconds: ClassVar[float] = STALLED_SECONDS
    _stalled: asyncio.TimerHandle | None = None
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _waiting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            self._head_bytes += len(data)
            if self._late is None:
                self._await_head()
        super().data_received(data)
        if not self._awaits_head:
            self._head_arrived()
        elif self._head_bytes > HEAD_BYTES:
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._awaits_head and self._late is None:
            self._await_head()  # of a next head some bytes may have arrived already

    def pause_writing(self) -> None:
        """A close waits until the buffer is written; a peer that reads nothing would keep it open forever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._drains()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drains()
        self._head_arrived()
        super().connection_lost(exc)

    @property
    def _awaits_head(self) -> bool:
        """No request is in progress on it."""
        return self.cycle is None or self.cycle.response_complete

    def _drains(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _await_head(self) -> None:
        self._waiting_since = self.loop.time()
        self._late = self.loop.call_later(self.head_seconds, self._too_late)

    def _head_arrived(self) -> None:
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if not self._awaits_head:
            return
        left = self._waiting_since + self.head_seconds - self.loop.time()
        if left > 0:  # a request was answered in between without stopping the timer
            self._late = self.loop.call_later(left, self._too_late)
        else:
            self.transport.abort()

    def _make_room(self) -> None:
        """Close the connection without a request for the longest time; the new one if all are busy."""
        waiting = [
            each
            for each in cast("set[BoundedProtocol]", self.connections)
            if each is not self and each._awaits_head
        ]
        closed = min(waiting, key=lambda each: each._waiting_since, default=self)
        closed.transport.abort()

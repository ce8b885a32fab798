"""The connections of `heal run`: plain deliveries are answered below ASGI.

A request is taken here if it arrives in one piece, while its connection is idle, and its
head is plain and short. Its head is read by the server's own parser, and remembered once
its request was answered 202, because senders repeat theirs. Everything else, refusals
included, goes through the protocol of the server, with the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, cast

import httptools
from starlette.requests import Request
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.agent.models import PostedSamples
from app.agent.ports.store.signals import SamplesAnswer
from app.api.admission import AdmittedRequest, stopping
from app.api.connections import BoundedProtocol
from app.api.dependencies import ApiDependencies
from app.api.intake_door.door import DOOR, DoorFailure, IntakeDoor, Judged, note, refused_with
from app.api.intake_door.reading import PlainHeaders, plain_headers
from app.api.intake_door.taking import (
    HANDLERS,
    SAMPLES,
    Handler,
    is_plain,
    posted_samples,
    samples_answer,
)
from app.api.problems import Problem
from app.api.security.access import UNKNOWN, sender_at

MOST_HEADS = 1_024
"""Heads that are remembered, some 5 MB at most."""
MOST_HEAD_BYTES = 2_048
"""Of a head that is read here."""
MOST_POSTED = 100
"""Samples of a delivery that is recorded as a whole; larger ones are recorded in parts, by a task."""
_END_OF_HEAD = b"\r\n\r\n"
_POST = b"POST "
_PATHS = frozenset(path.encode() for path in HANDLERS)


@dataclass(frozen=True, slots=True)
class PlainHead:
    """The head of a plain delivery."""

    whole: bytes
    path: str
    handler: Handler
    headers: PlainHeaders
    raw: list[tuple[bytes, bytes]]


class _Reading:
    """The values that the parser finds in a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(head: bytes) -> PlainHead | None:
    """The head, if it belongs to a plain delivery over a keep-alive connection."""
    found = _Reading()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not found.complete or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
        return None
    path = found.url.decode("latin-1")
    headers, handler = plain_headers(found.headers), HANDLERS.get(path)
    if headers is None or handler is None or not parser.should_keep_alive() or parser.should_upgrade():
        return None
    return PlainHead(head, path, handler, headers, found.headers)


class Heads:
    """The heads whose requests were answered 202 last; a head always means the same.

    Only senders that may deliver have theirs in memory: others neither fill it nor push them out.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, PlainHead] = OrderedDict()

    def of(self, head: bytes) -> PlainHead | None:
        """The head, or None if it is not plain."""
        return self._known.get(head) or read_head(head)

    def keep(self, head: PlainHead) -> None:
        """Mark it as used now; the least recently used head is dropped first."""
        self._known[head.whole] = head
        self._known.move_to_end(head.whole)
        if len(self._known) > MOST_HEADS:
            self._known.popitem(last=False)

    def forget(self, head: PlainHead) -> None:
        """Its request was refused, or was not plain: a token in it may be revoked."""
        self._known.pop(head.whole, None)


class DoorProtocol(BoundedProtocol):
    """One connection. `door_protocol` makes the class for one server."""

    heads: ClassVar[Heads]
    _parsing = False
    """The server's parser is in the middle of a request."""
    _taken: asyncio.Task[None] | PostedRequest | None = None
    """Answers the request that was taken here."""
    _later = b""
    """What arrived after that request."""
    _ends = False
    """The connection ends with the next answer."""
    _idle_since = 0.0

    # ------------------------------------------------------------ what arrives

    def data_received(self, data: bytes) -> None:
        if self._taken is not None:
            self._later += data
            self.flow.pause_reading()
        elif not self._takes(data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        self._parsing = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._parsing = False
        super().on_message_complete()

    def _takes(self, data: bytes) -> bool:
        """Whether it is one whole plain delivery, which is answered here then."""
        if self._parsing or not data.startswith(_POST) or not self._is_idle():
            return False
        end = data.find(_END_OF_HEAD, 0, MOST_HEAD_BYTES) + 4
        whole = data[:end] if end > 3 else b""
        head = self.heads.of(whole) if whole[5 : whole.find(b" ", 5)] in _PATHS else None
        if head is None or len(data) - end != head.headers.length:
            return False
        door = cast("IntakeDoor | None", self.app_state.get(DOOR))
        container = None if door is None else door.container
        if door is None or container is None or not self._is_plain(head, container):
            return False
        if self._posts(door, container, head, data):
            return True
        admitted = AdmittedRequest()
        self._taken = self.loop.create_task(self._answer(door, container, head, data, admitted))
        door.admit(self._taken, admitted)
        self.tasks.add(self._taken)
        self._taken.add_done_callback(self.tasks.discard)
        return True

    def _posts(self, door: IntakeDoor, container: ApiDependencies, head: PlainHead, data: bytes) -> bool:
        """Hand plain samples to intake without a task, where no identity has to be looked up."""
        if head.path != SAMPLES or container.settings.identity_required:
            return False
        sender = sender_at(self.client and self.client[0])
        posted = posted_samples(data[len(head.whole) :], container, sender, UNKNOWN)
        if posted is None or len(posted.samples) > MOST_POSTED:
            return False
        self._taken = PostedRequest(self, door, container, head, data)
        self._taken.begin(posted)
        return True

    def _is_idle(self) -> bool:
        """No request before this one is in progress, the connection is kept, and its peer reads."""
        return (
            self._awaits_head
            and (self.cycle is None or self.cycle.keep_alive)
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and self.limit_concurrency is None
            and not self.root_path
        )

    def _is_plain(self, head: PlainHead, container: ApiDependencies) -> bool:
        server, client = self.server, self.client
        return is_plain(
            head.headers,
            head.path,
            container,
            arrived_on=server and server[0],
            comes_from=client and client[0],
        )

    @property
    def _awaits_head(self) -> bool:
        return self._taken is None and super()._awaits_head

    # ------------------------------------------------------------ the answer

    async def _answer(
        self,
        door: IntakeDoor,
        container: ApiDependencies,
        head: PlainHead,
        data: bytes,
        admitted: AdmittedRequest,
    ) -> None:
        async def body() -> bytes:
            return data[len(head.whole) :]

        request = Request(self._scope_of(head, door))
        try:
            judged = await door.judge(head.handler, request, container, body, admitted)
        finally:
            self._taken = None
        self.finish(door, head, data, judged)

    def finish(self, door: IntakeDoor, head: PlainHead, data: bytes, judged: Judged) -> None:
        """Answer the request that was taken, or leave it to the server, and read on."""
        self._taken = None
        if isinstance(judged, bytes):
            self.heads.keep(head)
        else:
            self.heads.forget(head)
        if self.transport.is_closing():
            return
        if isinstance(judged, bytes):
            self._write(door, head, judged)
        else:
            self._leave_to_server(door, judged, data)
        later, self._later = self._later, b""
        if later and not self.transport.is_closing():
            self.flow.resume_reading()
            self.data_received(later)
        if self._ends and not self.transport.is_closing():
            super().shutdown()  # the current answer of the server is the last

    def _scope_of(self, head: PlainHead, door: IntakeDoor) -> Scope:
        """The parts of a request that the handlers and the identity checks read."""
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": head.path,
            "query_string": b"",
            "root_path": "",
            "scheme": self.scheme,
            "headers": head.raw,
            "server": self.server,
            "client": self.client,
            "app": door.application,
        }

    def _write(self, door: IntakeDoor, head: PlainHead, body: bytes) -> None:
        """Write an answer as the server does, with the same follow-up."""
        if self.access_log:
            client = f"{self.client[0]}:{self.client[1]}" if self.client else ""
            self.access_logger.info('%s - "%s %s HTTP/%s" %d', client, "POST", head.path, "1.1", 202)
        own = [(b"content-length", str(len(body)).encode()), *door.headers]
        lines = [b"%s: %s\r\n" % each for each in (*self.server_state.default_headers, *own)]
        if self._ends:
            lines.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[202], *lines, b"\r\n", body)))
        self.server_state.total_requests += 1
        if self._ends:
            self.transport.close()
            return
        self._idle_since = self._waiting_since = self.loop.time()
        if self._late is None:
            self._await_head()
        if self.timeout_keep_alive_task is None:
            self._close_when_idle(self.timeout_keep_alive)

    def _leave_to_server(self, door: IntakeDoor, judged: Problem | DoorFailure | None, data: bytes) -> None:
        """Let the server parse the request; a refusal is answered in place of the application."""
        app = self.app
        if judged is not None:
            self.app = partial(door.pass_on, judged)
        try:
            super().data_received(data)
        finally:
            self.app = app

    # ------------------------------------------------------------ its end

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless a request was taken here since the timer began."""
        self.timeout_keep_alive_task = None
        if self._taken is not None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._close_when_idle(left)
        else:
            super().timeout_keep_alive_handler()

    def _close_when_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def shutdown(self) -> None:
        if self._taken is not None:
            self._ends = True
        else:
            super().shutdown()


class PostedRequest:
    """Posted samples of a connection in progress: they count as a request in place of a task."""

    __slots__ = ("_admitted", "_began", "_connection", "_container", "_data", "_door", "_ended", "_head")

    def __init__(
        self,
        connection: DoorProtocol,
        door: IntakeDoor,
        container: ApiDependencies,
        head: PlainHead,
        data: bytes,
    ) -> None:
        self._connection, self._door, self._container = connection, door, container
        self._head, self._data = head, data
        self._admitted = AdmittedRequest()
        self._began = time.perf_counter()
        self._ended = False

    def begin(self, posted: PostedSamples) -> None:
        """Count the request, and let the samples be recorded."""
        self._door.enter(self, self._admitted)
        self._container.intake.post_samples(posted, self._recorded)

    def cancel(self) -> None:
        """Answer soon that the process stops, whether or not the samples are recorded."""
        self._connection.loop.call_soon(self._end, stopping())

    def _recorded(self, answer: SamplesAnswer | Exception) -> None:
        if isinstance(answer, Exception):
            self._end(refused_with(answer))
            return
        as_list = self._data[len(self._head.whole) :][:1] == b"["
        self._end(samples_answer(answer, as_list=as_list))

    def _end(self, judged: Judged) -> None:
        if self._ended:
            return
        self._ended = True
        self._door.leave(self)
        note(self._container, self._head.path, judged, self._began)
        self._connection.finish(self._door, self._head, self._data, judged)


def door_protocol(most: int) -> type[DoorProtocol]:
    """The protocol of a server with at most `most` open connections."""
    return type("Connection", (DoorProtocol,), {"most": most, "heads": Heads()})

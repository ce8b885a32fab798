"""How many requests are admitted at once, so that no sender keeps an operator or a probe waiting.

Three bounds, each refused with 503 and Retry-After before any work is done: requests in progress, with a
reserve that only probes and operators may use; bytes of large deliveries in progress; and no new request
once the process has to stop. A request whose body is still arriving then ends at once; a request in
progress has `DRAIN_SECONDS` left. Plain ASGI, installed by `app.main`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import Problem
from app.connectors.registry import CHAT_PATHS
from app.stopping import Stop

DRAIN_SECONDS = 3.0
"""How long a request in progress may continue after the process was asked to stop."""
LARGE_BYTES = 65_536
"""Deliveries up to this size cost little and are always taken."""
RESERVED = 16
"""Requests that only probes and operators may have in progress."""

_FOR_OPERATORS = (
    "/healthz",
    "/readyz",
    "/brakes",
    "/approvals",
    "/v1/brakes",
    "/v1/approvals",
    *CHAT_PATHS,
)
_DELIVERIES = ("/events/", "/webhooks/")
_DELIVERY_RETRY_SECONDS = 2
_CROWDED_RETRY_SECONDS = 1
_STOPPING_RETRY_SECONDS = 5


class Phase(StrEnum):
    """The state of a request in progress."""

    READING = "reading"
    WORKING = "working"


@dataclass(slots=True, kw_only=True, eq=False)
class AdmittedRequest:
    """One request in progress."""

    phase: Phase = Phase.WORKING
    started: bool = False
    """Its answer has begun."""
    stopped: bool = False
    """It was interrupted because the process stops."""
    held: int = 0
    """Bytes of a large delivery that it holds."""


@dataclass(slots=True, kw_only=True)
class Deliveries:
    """Bytes of large deliveries in progress; at least one is always let in, however large."""

    most: int
    _held: int = field(default=0)

    def has_room(self, size: int) -> bool:
        """Whether a delivery of that size would be admitted now."""
        return size <= LARGE_BYTES or self._held == 0 or self._held + size <= self.most

    def enter(self, size: int) -> int:
        """Let it in; the bytes to give back with `leave`."""
        held = size if size > LARGE_BYTES else 0
        self._held += held
        return held

    def leave(self, held: int) -> None:
        """It is done."""
        self._held -= held


class Interruptible(Protocol):
    """The key of a request in progress: its task, or an object in place of one."""

    def cancel(self) -> object:
        """Let it end soon; called while all are looked through, so that none may end at once."""
        ...


class InProgress:
    """The requests in progress, of the fast door of intake and of the ordinary routes together."""

    def __init__(self, *, stop: Stop, most: int) -> None:
        """`most` leaves the reserve out."""
        self.stop = stop
        self.most = most
        self.running: dict[Interruptible, AdmittedRequest] = {}
        stop.then(self._drain)

    @property
    def is_open(self) -> bool:
        """Whether another request is admitted that comes from neither a probe nor an operator."""
        return len(self.running) < self.most and not self.stop.requested

    def enter(self, task: asyncio.Task[Any], request: AdmittedRequest) -> None:
        """Count it from now on, also while its task has not begun and if it never begins."""
        self.running[task] = request
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.running.pop(task, None)

    def _drain(self) -> None:
        """Cancel requests whose body is incomplete; give requests in progress `DRAIN_SECONDS`."""
        self._interrupt(Phase.READING)
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._interrupt, None)

    def _interrupt(self, phase: Phase | None) -> None:
        for task, request in self.running.items():
            if not request.stopped and (phase is None or request.phase is phase):
                request.stopped = True
                task.cancel()


class Admission:
    """The middleware."""

    def __init__(self, app: ASGIApp, *, progress: InProgress, delivery_bytes: int) -> None:
        """`delivery_bytes` bounds large deliveries together."""
        self._app = app
        self._progress = progress
        self._running = progress.running
        self._deliveries = Deliveries(most=delivery_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None or task in self._running:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal.response(scope["path"])(scope, receive, send)
            return
        request = AdmittedRequest()
        self._running[task] = request
        try:
            await self._pass_on(scope, receive, send, task, request)
        finally:
            self._deliveries.leave(request.held)
            del self._running[task]

    def _refusal(self, scope: Scope) -> Problem | None:
        path: str = scope["path"]
        if self._progress.stop.requested and path != "/healthz":
            return stopping()
        if len(self._running) >= self._progress.most and not path.startswith(_FOR_OPERATORS):
            return _busy(
                "crowded",
                "Too many requests are in progress",
                "Retry the same request in a moment.",
                _CROWDED_RETRY_SECONDS,
            )
        if _is_delivery(scope) and not self._deliveries.has_room(_declared(scope)):
            return _no_room()
        return None

    async def _pass_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        task: asyncio.Task[object],
        request: AdmittedRequest,
    ) -> None:
        bounded = _is_delivery(scope)
        size = 0

        async def reading() -> Message:
            nonlocal size
            if self._progress.stop.requested and not request.started:
                raise stopping()
            request.phase = Phase.READING
            try:
                message = await receive()
            finally:
                request.phase = Phase.WORKING
            if bounded and message["type"] == "http.request":
                size += len(message.get("body", b""))
                if not message.get("more_body", False) and not request.held:
                    if not self._deliveries.has_room(size):
                        raise _no_room()
                    request.held = self._deliveries.enter(size)
            return message

        async def answering(message: Message) -> None:
            request.started = True
            await send(message)

        problem = None
        try:
            await self._app(scope, reading, answering)
        except Problem as refused:
            problem = refused
        except asyncio.CancelledError:
            if not request.stopped:
                raise
            task.uncancel()
            problem = stopping()
        if problem is not None and not request.started:
            await problem.response(scope["path"])(scope, receive, send)


def _is_delivery(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "POST" and path.startswith(_DELIVERIES) and not path.startswith(_FOR_OPERATORS)


def _declared(scope: Scope) -> int:
    """The declared length; 0 without one. The received bytes are counted in every case."""
    text = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _no_room() -> Problem:
    return _busy(
        "deliveries-busy",
        "Busy with other large deliveries",
        "Nothing of this delivery was recorded. Retry after the time in Retry-After.",
        _DELIVERY_RETRY_SECONDS,
    )


def stopping() -> Problem:
    """The answer to a request that the process no longer accepts, or has no time for."""
    return _busy(
        "stopping",
        "The agent is stopping",
        "Retry the same request in a moment; another process or the restarted agent handles it.",
        _STOPPING_RETRY_SECONDS,
        {"Connection": "close"},
    )


def _busy(
    kind: str, title: str, detail: str, seconds: int, headers: Mapping[str, str] | None = None
) -> Problem:
    return Problem(
        status=503,
        kind=kind,
        title=title,
        detail=detail,
        headers={"Retry-After": str(seconds), **(headers or {})},
    )

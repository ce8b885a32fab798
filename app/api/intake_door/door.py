"""The ASGI layer in front of the framework and of its guards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.agent.identity.people import Person
from app.agent.identity.people import Scope as Permission
from app.agent.ids import ServiceKey
from app.agent.models import DispositionKind
from app.agent.observer import new_signal
from app.agent.ports.store.signals import Accepted
from app.api.admission import AdmittedRequest, InProgress, Phase, stopping
from app.api.bodies import BODY_TIMEOUT_SECONDS, LARGE_BYTES, too_slow
from app.api.dependencies import ApiDependencies
from app.api.intake_door.reading import (
    Reader,
    deploy_events,
    metric_events,
    plain_headers,
    plain_json,
)
from app.api.problems import Problem, problem_of
from app.api.routes.webhooks import authenticate, take_delivery
from app.api.security.access import admit, sender_of
from app.api.security.guards import SecurityHeaders, is_plainly_local, security_headers
from app.bounds.deadline import deadline
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.registry import ALERT_FORMATS
from app.errors import AgentError, Invalid

MOST_BYTES_OF_EVENTS = 65_536
"""Longer ones, and alerts of more than `LARGE_BYTES`, are decoded in a thread by the ordinary route."""
EVENTS: Mapping[str, Reader] = {"/events/metric": metric_events, "/events/deploy": deploy_events}


class _Unusual(Exception):
    """The ordinary route has to judge this request."""


class _AnswerItem(msgspec.Struct):
    """As `AcceptedView`."""

    signal_id: str
    disposition: DispositionKind
    reason: str
    incident_id: str | None
    duplicate_of: str | None


class _AnswerList(msgspec.Struct):
    """As `AcceptedList`."""

    items: Sequence[_AnswerItem]


Handler: TypeAlias = Callable[[Request, ApiDependencies, Receive, AdmittedRequest], Awaitable[bytes]]


class IntakeDoor:
    """Answers plain deliveries, and passes everything else on as it came.

    It stands in front of all layers, and keeps what they promise: a request counts among
    those in progress, comes from this machine where no identity is required, is counted
    and timed, and is answered with the same headers.
    """

    def __init__(self, app: ASGIApp, *, progress: InProgress, sandbox: bool) -> None:
        self._app = app
        self._progress = progress
        self._sandbox = sandbox
        self._headers = [(b"content-type", b"application/json"), *security_headers(sandbox=sandbox)]
        self._handlers: dict[str, Handler] = {
            **{path: partial(_take_events, read) for path, read in EVENTS.items()},
            **{f"/webhooks/{one.name}": partial(_take_alerts, one) for one in ALERT_FORMATS},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"])
        container: ApiDependencies | None = None
        if handler is not None and scope["method"] == "POST":
            container = getattr(scope["app"].state, "container", None)
        task = asyncio.current_task()
        if (
            handler is None
            or container is None
            or task is None
            or not self._progress.is_open
            or not _is_plain(scope, container)
        ):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        received, admitted = _Received(receive), AdmittedRequest()
        problem: Problem | None = None
        answer = b""
        self._progress.running[task] = admitted
        try:
            answer = await handler(Request(scope, received), container, received, admitted)
        except Problem as refused:
            problem = refused
        except AgentError as error:
            problem = problem_of(error)
        except asyncio.CancelledError:
            if not admitted.stopped:
                raise
            task.uncancel()
            problem = stopping()
        except _Unusual:
            pass
        except Exception as error:  # noqa: BLE001 - boundary: the ordinary route answers and logs a defect
            received.fails_with(error)
        finally:
            del self._progress.running[task]
        if problem is None and not answer:
            await self._app(scope, received.again, send)
            return
        if problem is None:
            await self._answer(send, answer)
        else:
            refusal = SecurityHeaders(problem.response(scope["path"]), sandbox=self._sandbox)
            await refusal(scope, receive, send)
        status = 202 if problem is None else problem.status
        container.measures.note_request("POST", scope["path"], status, time.perf_counter() - began)

    async def _answer(self, send: Send, body: bytes) -> None:
        headers = [(b"content-length", str(len(body)).encode()), *self._headers]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Received:
    """The messages of a request, kept until it is clear who answers it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._error: Exception | None = None

    async def __call__(self) -> Message:
        message = await self._receive()
        self._kept.append(message)
        return message

    async def again(self) -> Message:
        """The same messages once more, then those that follow."""
        if self._error is not None:
            raise self._error
        return self._kept.pop(0) if self._kept else await self._receive()

    def fails_with(self, error: Exception) -> None:
        """Let the next reader of the messages fail with it."""
        self._error = error


def _is_plain(scope: Scope, container: ApiDependencies) -> bool:
    headers = plain_headers(scope["headers"])
    if headers is None or scope["query_string"] or scope.get("root_path"):
        return False
    settings = container.settings
    most = MOST_BYTES_OF_EVENTS if scope["path"] in EVENTS else LARGE_BYTES
    if headers.length > min(most, settings.max_body_bytes):
        return False
    if settings.identity_required:  # whom the sender is follows from a bearer token
        return headers.authorization
    server, client = scope.get("server"), scope.get("client")
    return is_plainly_local(server and server[0], client and client[0], headers.host)


async def _body(receive: Receive, admitted: AdmittedRequest) -> bytes:
    """The whole body, as long as it was declared to be."""
    parts = []
    admitted.phase = Phase.READING
    async with deadline(BODY_TIMEOUT_SECONDS, too_slow):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Unusual
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                admitted.phase = Phase.WORKING
                return parts[0] if len(parts) == 1 else b"".join(parts)


async def _take_events(
    read: Reader, request: Request, container: ApiDependencies, receive: Receive, admitted: AdmittedRequest
) -> bytes:
    person = await admit(request, container, Permission.INGEST)
    settings, received_at = container.settings, container.clock.now()
    body = await _body(receive, admitted)
    events = read(body, received_at + timedelta(seconds=settings.signal_max_future_seconds))
    if events is None or not all(_covers(person, event.key) for event in events):
        raise _Unusual
    sender = sender_of(request, person)
    stale_after = timedelta(seconds=settings.signal_stale_after_seconds)
    accepted = await container.intake.accept(
        [
            new_signal(
                key=event.key,
                source="http",
                observed_at=event.at,
                received_at=received_at,
                payload=event.payload,
                stale_after=stale_after,
                sender=sender,
            )
            for event in events
        ]
    )
    items = [_item(one) for one in accepted]
    return msgspec.json.encode(_AnswerList(items=items) if body[:1] == b"[" else items[0])


async def _take_alerts(
    alert_format: AlertFormat,
    request: Request,
    container: ApiDependencies,
    receive: Receive,
    admitted: AdmittedRequest,
) -> bytes:
    person, sender = await authenticate(alert_format, request, container)
    body = await _body(receive, admitted)
    value = plain_json(body)
    if value is None or not alert_format.is_delivery(value):
        raise _Unusual
    try:
        delivery = alert_format.read(value)
    except Invalid:
        raise _Unusual from None
    answer = await take_delivery(delivery, container, person, sender, size=len(body))
    return answer.model_dump_json().encode()


def _covers(person: Person, key: ServiceKey) -> bool:
    return person.reach.covers(key.environment, key.service)


def _item(one: Accepted) -> _AnswerItem:
    became = one.disposition
    return _AnswerItem(one.signal_id, became.kind, became.reason, became.incident_id, became.duplicate_of)

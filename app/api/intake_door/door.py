"""The ASGI layer in front of the framework, behind the guards that every request passes."""

from __future__ import annotations

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
from app.api.bodies import BODY_TIMEOUT_SECONDS, LARGE_BYTES, too_slow
from app.api.dependencies import ApiDependencies
from app.api.intake_door.reading import (
    PlainHeaders,
    Reader,
    deploy_events,
    metric_events,
    plain_headers,
    plain_json,
)
from app.api.problems import Problem, problem_of
from app.api.routes.webhooks import authenticate, take_delivery
from app.api.security.access import admit, sender_of
from app.bounds.deadline import deadline
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.registry import ALERT_FORMATS
from app.errors import AgentError, Invalid

MOST_BYTES = {"/events/": 65_536, "/webhooks/": LARGE_BYTES}
"""Longer bodies are decoded in a thread of their own by the ordinary route."""
EVENTS: Mapping[str, Reader] = {"/events/metric": metric_events, "/events/deploy": deploy_events}

DOOR_PATHS = frozenset({*EVENTS, *(f"/webhooks/{one.name}" for one in ALERT_FORMATS)})
"""What it may answer."""


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


Handler: TypeAlias = Callable[[Request, ApiDependencies, Receive], Awaitable[bytes]]


class IntakeDoor:
    """Answers plain deliveries, and passes everything else on as it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._handlers: dict[str, Handler] = {
            **{path: partial(_take_events, read) for path, read in EVENTS.items()},
            **{f"/webhooks/{one.name}": partial(_take_alerts, one) for one in ALERT_FORMATS},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" else None
        container: ApiDependencies | None = None
        if handler is not None and scope["method"] == "POST":
            container = getattr(scope["app"].state, "container", None)
        if handler is None or container is None or not _is_plain(scope, container):
            await self._app(scope, receive, send)
            return
        received = _Received(receive)
        try:
            answer = await handler(Request(scope, received), container, received)
        except _Unusual:
            await self._app(scope, received.again, send)
        except Problem as problem:
            await problem.response(scope["path"])(scope, receive, send)
        except AgentError as error:
            await problem_of(error).response(scope["path"])(scope, receive, send)
        else:
            await _answer(send, answer)


class _Received:
    """The messages of a request, kept until it is clear who answers it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []

    async def __call__(self) -> Message:
        message = await self._receive()
        self._kept.append(message)
        return message

    async def again(self) -> Message:
        """The same messages once more, then those that follow."""
        return self._kept.pop(0) if self._kept else await self._receive()


def _is_plain(scope: Scope, container: ApiDependencies) -> bool:
    headers = plain_headers(scope["headers"])
    if headers is None or scope["query_string"] or scope.get("root_path"):
        return False
    path: str = scope["path"]
    most = next(size for prefix, size in MOST_BYTES.items() if path.startswith(prefix))
    return headers.length <= min(most, container.settings.max_body_bytes) and _may_present(headers, container)


def _may_present(headers: PlainHeaders, container: ApiDependencies) -> bool:
    """Whether whom the sender is follows from a bearer token, or from nothing at all."""
    return headers.authorization or not container.settings.identity_required


async def _body(receive: Receive) -> bytes:
    """The whole body, as long as it was declared to be."""
    parts = []
    async with deadline(BODY_TIMEOUT_SECONDS, too_slow):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Unusual
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


async def _take_events(read: Reader, request: Request, container: ApiDependencies, receive: Receive) -> bytes:
    person = await admit(request, container, Permission.INGEST)
    settings, received_at = container.settings, container.clock.now()
    body = await _body(receive)
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
    alert_format: AlertFormat, request: Request, container: ApiDependencies, receive: Receive
) -> bytes:
    person, sender = await authenticate(alert_format, request, container)
    body = await _body(receive)
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


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Handles a plain delivery: checks its sender, reads and records it, and encodes the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import msgspec
from starlette.requests import Request

from app.agent.identity.people import Person
from app.agent.identity.people import Scope as Permission
from app.agent.ids import ServiceKey
from app.agent.models import DispositionKind
from app.agent.observer import new_signal
from app.agent.ports.store.signals import Accepted
from app.api.admission import LARGE_BYTES
from app.api.dependencies import ApiDependencies
from app.api.intake_door.reading import (
    PlainHeaders,
    Reader,
    deploy_events,
    metric_events,
    plain_json,
)
from app.api.routes.webhooks import authenticate, take_delivery
from app.api.security.access import admit, sender_of
from app.api.security.guards import is_plainly_local
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.registry import ALERT_FORMATS
from app.errors import Invalid

MOST_BYTES_OF_EVENTS = 65_536
"""Longer ones, and alerts of more than `LARGE_BYTES`, are decoded in a thread by the ordinary route."""
EVENTS: Mapping[str, Reader] = {"/events/metric": metric_events, "/events/deploy": deploy_events}


class Unusual(Exception):
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


Body: TypeAlias = Callable[[], Awaitable[bytes]]
"""Receives the whole body of a request."""
Handler: TypeAlias = Callable[[Request, ApiDependencies, Body], Awaitable[bytes]]
"""The answer to a plain delivery; raises `Problem`, an `AgentError` or `Unusual`."""


def is_plain(
    headers: PlainHeaders,
    path: str,
    container: ApiDependencies,
    *,
    arrived_on: str | None,
    comes_from: str | None,
) -> bool:
    """Whether a request with these headers, over a connection of these addresses, is for the fast door."""
    settings = container.settings
    most = MOST_BYTES_OF_EVENTS if path in EVENTS else LARGE_BYTES
    if headers.length > min(most, settings.max_body_bytes):
        return False
    if settings.identity_required:  # whom the sender is follows from a bearer token
        return headers.authorization
    return is_plainly_local(arrived_on, comes_from, headers.host)


async def _take_events(read: Reader, request: Request, container: ApiDependencies, receive: Body) -> bytes:
    person = await admit(request, container, Permission.INGEST)
    settings, received_at = container.settings, container.clock.now()
    body = await receive()
    events = read(body, received_at + timedelta(seconds=settings.signal_max_future_seconds))
    if events is None or not all(_covers(person, event.key) for event in events):
        raise Unusual
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
    receive: Body,
) -> bytes:
    person, sender = await authenticate(alert_format, request, container)
    body = await receive()
    value = plain_json(body)
    if value is None or not alert_format.is_delivery(value):
        raise Unusual
    try:
        delivery = alert_format.read(value)
    except Invalid:
        raise Unusual from None
    answer = await take_delivery(delivery, container, person, sender, size=len(body))
    return answer.model_dump_json().encode()


def _covers(person: Person, key: ServiceKey) -> bool:
    return person.reach.covers(key.environment, key.service)


def _item(one: Accepted) -> _AnswerItem:
    became = one.disposition
    return _AnswerItem(one.signal_id, became.kind, became.reason, became.incident_id, became.duplicate_of)


HANDLERS: Mapping[str, Handler] = {
    **{path: partial(_take_events, read) for path, read in EVENTS.items()},
    **{f"/webhooks/{one.name}": partial(_take_alerts, one) for one in ALERT_FORMATS},
}
"""By path; each answers POST."""

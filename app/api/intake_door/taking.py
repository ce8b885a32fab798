"""Handles a plain delivery: checks its sender, reads and records it, and encodes the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import TypeAlias

import msgspec
from starlette.requests import Request

from app.agent.identity.people import Person, Sender
from app.agent.identity.people import Scope as Permission
from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import Disposition, DispositionKind, PostedSamples
from app.agent.ports.store.signals import Accepted, HealthySamples, SamplesAnswer
from app.api.admission import LARGE_BYTES
from app.api.dependencies import ApiDependencies
from app.api.intake_door.reading import (
    PlainHeaders,
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
SAMPLES, DEPLOYS = "/events/metric", "/events/deploy"


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
    most = MOST_BYTES_OF_EVENTS if path in (SAMPLES, DEPLOYS) else LARGE_BYTES
    if headers.length > min(most, settings.max_body_bytes):
        return False
    if settings.identity_required:  # whom the sender is follows from a bearer token
        return headers.authorization
    return is_plainly_local(arrived_on, comes_from, headers.host)


def posted_samples(
    body: bytes, container: ApiDependencies, sender: Sender, person: Person
) -> PostedSamples | None:
    """The samples of a plain body, about services that the person may report about."""
    settings, received_at = container.settings, container.clock.now()
    samples = metric_events(body, received_at + timedelta(seconds=settings.signal_max_future_seconds))
    if samples is None or (person.reach.limited and not all(_covers(person, one.key) for one in samples)):
        return None
    stale_after = timedelta(seconds=settings.signal_stale_after_seconds)
    return PostedSamples(samples, received_at, stale_after, sender)


def samples_answer(answer: SamplesAnswer, *, as_list: bool) -> bytes:
    """The body of the answer 202 to samples."""
    if isinstance(answer, HealthySamples):
        end = _end_of_item(answer.disposition)
        items = [_START_OF_ITEM + one.encode() + end for one in answer.signal_ids]
        return b'{"items":[' + b",".join(items) + b"]}" if as_list else items[0]
    encoded = [_item(one) for one in answer]
    return msgspec.json.encode(_AnswerList(items=encoded) if as_list else encoded[0])


async def _take_samples(request: Request, container: ApiDependencies, receive: Body) -> bytes:
    person = await admit(request, container, Permission.INGEST)
    body = await receive()
    posted = posted_samples(body, container, sender_of(request, person), person)
    if posted is None:
        raise Unusual
    answer = await container.intake.accept_samples(posted)
    return samples_answer(answer, as_list=body[:1] == b"[")


async def _take_deploys(request: Request, container: ApiDependencies, receive: Body) -> bytes:
    person = await admit(request, container, Permission.INGEST)
    settings, received_at = container.settings, container.clock.now()
    body = await receive()
    events = deploy_events(body, received_at + timedelta(seconds=settings.signal_max_future_seconds))
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


_START_OF_ITEM = b'{"signal_id":"'


@lru_cache(maxsize=16)
def _end_of_item(became: Disposition) -> bytes:
    """The rest of an answer with this disposition, after the id."""
    item = _AnswerItem("", became.kind, became.reason, became.incident_id, became.duplicate_of)
    return msgspec.json.encode(item).removeprefix(_START_OF_ITEM)


def _item(one: Accepted) -> _AnswerItem:
    became = one.disposition
    return _AnswerItem(one.signal_id, became.kind, became.reason, became.incident_id, became.duplicate_of)


HANDLERS: Mapping[str, Handler] = {
    SAMPLES: _take_samples,
    DEPLOYS: _take_deploys,
    **{f"/webhooks/{one.name}": partial(_take_alerts, one) for one in ALERT_FORMATS},
}
"""By path; each answers POST."""

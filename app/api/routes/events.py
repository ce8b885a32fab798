"""`POST /events/...` and `GET /signals/{id}`: events of pipelines and probes.

The response to an event is 202 only after the intake has made it durable
(promise 9). A list is accepted or rejected as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity.people import Person, Scope
from app.agent.ids import Json, SignalId
from app.agent.models import Signal
from app.api.bodies import beside, idempotency_key, read_json, request_hash
from app.api.dependencies import ApiDependencies, ContainerDep, NoParameter
from app.api.openapi import event_body, event_headers, problems
from app.api.problems import FieldError, Problem, invalid
from app.api.security.access import needs, out_of_reach, sender_of
from app.errors import Invalid
from app.schemas import AcceptedList, AcceptedView, SignalView
from app.wire.events import (
    DeployEvent,
    Event,
    EventModel,
    MetricEvent,
    Misfit,
    read_events,
    to_signal,
)

_SIGNAL_ID = re.compile(r"sig_[0-9a-f]{32}")

MOST_NAMED = 5
"""Services that a refusal names."""

router = APIRouter(tags=["events"])


@router.post(
    "/events/deploy",
    status_code=202,
    response_model=AcceptedView | AcceptedList,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=event_body(DeployEvent, "deploy") | event_headers(),
    summary="Report a release: started, succeeded, failed or cancelled",
)
async def post_deploy(
    request: Request, container: ContainerDep, person: Annotated[Person, needs(Scope.INGEST)]
) -> AcceptedView | AcceptedList:
    return await _take(request, container, person, DeployEvent)


@router.post(
    "/events/metric",
    status_code=202,
    response_model=AcceptedView | AcceptedList,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=event_body(MetricEvent, "metric") | event_headers(),
    summary="Report the service levels of one instant",
)
async def post_metric(
    request: Request, container: ContainerDep, person: Annotated[Person, needs(Scope.INGEST)]
) -> AcceptedView | AcceptedList:
    return await _take(request, container, person, MetricEvent)


@router.get(
    "/signals/{signal_id}",
    response_model=SignalView,
    responses=problems(401, 403, 404, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get one signal and its disposition",
)
async def get_signal(signal_id: str, container: ContainerDep) -> SignalView:
    record = None
    if _SIGNAL_ID.fullmatch(signal_id):
        record = await container.store.signals.get(SignalId(signal_id))
    if record is None:
        raise Problem(
            status=404,
            kind="not-found",
            title="No such signal",
            detail="No signal has this id. Use the signal_id of the response to the event.",
        )
    return SignalView.of(record)


async def _take(
    request: Request, container: ApiDependencies, person: Person, model: EventModel
) -> AcceptedView | AcceptedList:
    settings, received_at = container.settings, container.clock.now()
    key = idempotency_key(request)
    body = await read_json(request, settings.max_body_bytes)
    latest = received_at + timedelta(seconds=settings.signal_max_future_seconds)
    events = await beside(len(body.raw), _parse, body.value, model, latest)
    beyond = [event.key for event in events if not person.reach.covers(event.environment, event.service)]
    if beyond:
        raise out_of_reach(person, beyond[:MOST_NAMED])
    sender = sender_of(request, person)
    stale_after = timedelta(seconds=settings.signal_stale_after_seconds)

    def read() -> list[Signal]:
        return [
            to_signal(event, source="http", received_at=received_at, stale_after=stale_after, sender=sender)
            for event in events
        ]

    signals = await beside(len(body.raw), read)
    items = await _accept(container, signals, key, request_hash(request, body.raw))
    return AcceptedList(items=items) if isinstance(body.value, list) else items[0]


async def _accept(
    container: ApiDependencies, signals: Sequence[Signal], key: str | None, digest: str
) -> list[AcceptedView]:
    try:
        accepted = await container.intake.accept(
            signals, idempotency_key=key, request_hash=digest if key else None
        )
    except Invalid as error:
        if key is None:
            raise
        raise Problem(
            status=422,
            kind="idempotency-mismatch",
            title="This Idempotency-Key was used for another request",
            detail=str(error),
            errors=[
                FieldError(
                    field="Idempotency-Key",
                    value=key,
                    message="was used for a request with different content",
                    fix="send a new key with each new request; repeat a key only with the same request",
                )
            ],
        ) from error
    return [AcceptedView.of(one) for one in accepted]


def _parse(value: Json, model: EventModel, latest: datetime) -> tuple[Event, ...]:
    """One object or a list of them; raises `Problem` 422 that names every invalid field."""
    listed = isinstance(value, list)
    entries = value if isinstance(value, list) else [value]
    try:
        return read_events([(model, entry) for entry in entries], latest=latest, listed=listed)
    except Misfit as error:
        raise invalid(error.errors) from None

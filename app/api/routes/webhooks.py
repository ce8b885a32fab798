"""`POST /webhooks/FORMAT`: convert deliveries of each registered alert format to signals.

Delivery is at least once: a repeated delivery gets 202 again. The response reports an
alert that is malformed or maps to no service, instead of rejecting the delivery: on a
4xx, a sender may drop the whole group. For an alert that names only a pod, the agent
queries the cluster for the owner.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity.people import Person, Scope, Sender
from app.agent.models import ALERTS_SOURCE, Alert, Signal
from app.api.bodies import beside, read_json
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import delivery_body, problems
from app.api.problems import FieldError, Problem, invalid
from app.api.security.access import (
    admit,
    count_guess,
    given_token,
    matches,
    out_of_reach,
    sender_of,
)
from app.api.security.guards import is_local
from app.connectors.alerts.delivery import AlertDelivery, AlertFormat, DeliveryToken, UnmappedAlert
from app.connectors.alerts.owners import owners_of
from app.connectors.registry import ALERT_FORMATS
from app.errors import Invalid
from app.schemas import AcceptedView, UnmappedAlertView, WebhookAccepted

log = logging.getLogger(__name__)

MOST_LOGGED = 20
MOST_NAMED = 5
"""Services that a rejection names."""

router = APIRouter(tags=["webhooks"])


def _receiving(alert_format: AlertFormat) -> Callable[..., Awaitable[WebhookAccepted]]:
    """The handler of one format's route."""

    async def receive(request: Request, container: ContainerDep) -> WebhookAccepted:
        return await _receive(alert_format, request, container)

    return receive


async def _receive(
    alert_format: AlertFormat, request: Request, container: ApiDependencies
) -> WebhookAccepted:
    person, sender = await authenticate(alert_format, request, container)
    body = await read_json(
        request,
        container.settings.max_body_bytes,
        spared=alert_format.is_delivery,
        expected=alert_format.expected,
    )
    try:
        delivery = await beside(len(body.raw), alert_format.read, body.value)
    except Invalid as error:
        raise invalid(
            [FieldError(field="body", value=body.value, message=str(error), fix=alert_format.fix)]
        ) from error
    return await take_delivery(delivery, container, person, sender, size=len(body.raw))


async def take_delivery(
    delivery: AlertDelivery, container: ApiDependencies, person: Person, sender: Sender, *, size: int
) -> WebhookAccepted:
    """Make the alerts of a delivery durable; `size` is the length of its body.

    Raises `Problem` 403 when the token is not permitted to report for any of them.
    """
    batch = await beside(
        size,
        delivery.batch,
        settings=container.settings,
        received_at=container.clock.now(),
        owners=await owners_of(container.pod_owners, delivery.pods_to_ask(container.settings)),
    )
    signals, beyond = _within_reach(batch.signals, person)
    unmapped = (*batch.unmapped, *beyond)
    for one in unmapped[:MOST_LOGGED]:
        log.info("alert not mapped: %s", one)
    signals = [replace(signal, sender=sender) for signal in signals]
    accepted = await container.intake.accept(signals) if signals else ()
    return WebhookAccepted(
        items=[AcceptedView.of(one) for one in accepted],
        unmapped=[
            UnmappedAlertView(name=one.name, fingerprint=one.fingerprint, reason=one.reason)
            for one in unmapped
        ],
    )


def _within_reach(signals: Sequence[Signal], person: Person) -> tuple[list[Signal], list[UnmappedAlert]]:
    """Permitted signals, and refused ones with a reason; raises `Problem` 403 if none is permitted."""
    within: list[Signal] = []
    beyond: list[Signal] = []
    for signal in signals:
        covered = person.reach.covers(signal.key.environment, signal.key.service)
        (within if covered else beyond).append(signal)
    if any(signal.key != ALERTS_SOURCE for signal in beyond) and not within:
        raise out_of_reach(person, [signal.key for signal in beyond[:MOST_NAMED]])
    return within, [
        UnmappedAlert(
            fingerprint=signal.payload.fingerprint,
            name=signal.payload.name,
            reason=f"the token of {person.name} is limited to {person.reach}; the alert concerns "
            f"{signal.key}; use another token",
        )
        for signal in beyond
        if isinstance(signal.payload, Alert)
    ]


async def authenticate(
    alert_format: AlertFormat, request: Request, container: ApiDependencies
) -> tuple[Person, Sender]:
    """The format's own token, or an API token; with neither configured, a local sender."""
    token = alert_format.token
    secret = None if token is None else token.of(container.settings)
    if matches(given_token(request), secret):
        return Person(name=""), sender_of(request, Person(name=""), webhook=alert_format.name)
    if container.settings.identity_required:
        person = await admit(request, container, Scope.INGEST)
        return person, sender_of(request, person)
    if secret is None:
        if is_local(request.scope):
            return Person(name=""), sender_of(request, Person(name=""))
        raise Problem(
            status=403,
            kind="token-not-configured",
            title="Deliveries from other machines require a token",
            detail=f"{_to_configure(token)}; without it, deliveries are accepted from localhost only, "
            "and not from a proxy.",
        )
    count_guess(request, container)
    raise Problem(
        status=401,
        kind="wrong-token",
        title="The bearer token is missing or wrong",
        detail=f"Send 'Authorization: Bearer ...' with the value of {token.setting if token else 'a token'}.",
        headers={"WWW-Authenticate": f'Bearer realm="{alert_format.name}"'},
    )


def _to_configure(token: DeliveryToken | None) -> str:
    if token is None:
        return "Set REQUIRE_IDENTITY=true and send a token of `heal token create` with the scope ingest"
    return f"Set {token.setting}, and the same value as {token.placed}"


for _format in ALERT_FORMATS:
    router.add_api_route(
        f"/webhooks/{_format.name}",
        _receiving(_format),
        methods=["POST"],
        name=_format.name,
        status_code=202,
        response_model=WebhookAccepted,
        responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
        openapi_extra=delivery_body(_format),
        summary=_format.summary,
    )

"""`POST /webhooks/alertmanager`: convert deliveries of Alertmanager and Grafana to signals.

Delivery is at least once: a repeated delivery gets 202 again. The response reports an
alert that is malformed or maps to no service, instead of rejecting the delivery: on a
4xx, Alertmanager drops the whole group. For an alert that names only a pod, the agent
queries the cluster for the owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity.people import Person, Scope, Sender
from app.agent.models import Alert, Signal
from app.agent.ports.cluster import PodOwner, PodOwners
from app.api.bodies import beside, read_json
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import alertmanager_body, problems
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
from app.connectors.alerts.alertmanager import UnmappedAlert, is_delivery, read_delivery
from app.connectors.alerts.labels import PodRef
from app.errors import AgentError, Invalid
from app.schemas import AcceptedView, UnmappedAlertView, WebhookAccepted

log = logging.getLogger(__name__)

OWNERS_TIMEOUT_SECONDS = 5.0
MOST_PODS_ASKED = 50
"""Per delivery; further pods are mapped by name, as without a cluster."""
PODS_AT_ONCE = 8
MOST_LOGGED = 20
MOST_NAMED = 5
"""Services that a rejection names."""

_EXPECTED = (
    "Send the unchanged payload of the Alertmanager webhook (a JSON object with version, status and alerts) "
    "or of a Grafana contact point. Example: "
    '{"version":"4","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"HighErrorRate",'
    '"namespace":"prod","service":"payments-api"},"startsAt":"2026-02-20T17:00:00Z","fingerprint":"1"}]}'
)

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/alertmanager",
    status_code=202,
    response_model=WebhookAccepted,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=alertmanager_body(),
    summary="Receive a delivery of Alertmanager (webhook version 4) or Grafana (version 1)",
)
async def alertmanager(request: Request, container: ContainerDep) -> WebhookAccepted:
    person, sender = await _authenticate(request, container)
    body = await read_json(request, container.settings.max_body_bytes, spared=is_delivery, expected=_EXPECTED)
    try:
        delivery = await beside(len(body.raw), read_delivery, body.value)
    except Invalid as error:
        raise invalid(
            [
                FieldError(
                    field="body",
                    value=body.value,
                    message=str(error),
                    mend="configure an Alertmanager webhook or a Grafana contact point with this URL",
                )
            ]
        ) from error
    batch = await beside(
        len(body.raw),
        delivery.batch,
        settings=container.settings,
        received_at=container.clock.now(),
        owners=await _owners(container.pod_owners, delivery.pods_to_ask(container.settings)),
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
    """Permitted signals, and the others with a reason; raises `Problem` 403 when none is permitted."""
    within: list[Signal] = []
    beyond: list[Signal] = []
    for signal in signals:
        covered = person.reach.covers(signal.key.environment, signal.key.service)
        (within if covered else beyond).append(signal)
    if beyond and not within:
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


async def _owners(cluster: PodOwners | None, pods: Sequence[PodRef]) -> dict[PodRef, PodOwner | None] | None:
    """The owners of the pods that the cluster reports in time; None without a cluster."""
    if cluster is None:
        return None
    found: dict[PodRef, PodOwner | None] = {}
    turn = asyncio.Semaphore(PODS_AT_ONCE)

    async def ask(pod: PodRef) -> None:
        async with turn:
            with suppress(AgentError):
                found[pod] = await cluster.owner(pod.namespace, pod.name)

    with suppress(TimeoutError):
        async with asyncio.timeout(OWNERS_TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            for pod in pods[:MOST_PODS_ASKED]:
                group.create_task(ask(pod))
    return found


async def _authenticate(request: Request, container: ApiDependencies) -> tuple[Person, Sender]:
    """ALERTMANAGER_TOKEN, or an API token; with neither configured, a local sender."""
    token = container.settings.alertmanager_token
    if matches(given_token(request), token):
        return Person(name=""), sender_of(request, Person(name=""), webhook="alertmanager")
    if container.settings.identity_required:
        person = await admit(request, container, Scope.INGEST)
        return person, sender_of(request, person)
    if token is None:
        if request.client is not None and is_local(request.scope):
            return Person(name=""), sender_of(request, Person(name=""))
        raise Problem(
            status=403,
            kind="token-not-configured",
            title="Deliveries from other machines require a token",
            detail="Set ALERTMANAGER_TOKEN, and the same value as http_config.authorization.credentials in "
            "Alertmanager; without it, deliveries are accepted from localhost only, and not from a proxy.",
        )
    count_guess(request, container)
    raise Problem(
        status=401,
        kind="wrong-token",
        title="The bearer token is missing or wrong",
        detail="Send 'Authorization: Bearer ...' with the value of ALERTMANAGER_TOKEN.",
        headers={"WWW-Authenticate": 'Bearer realm="alertmanager"'},
    )

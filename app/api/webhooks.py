"""`POST /webhooks/alertmanager`: deliveries of Alertmanager become signals.

Delivery is at least once, so the answer is 202 again for what was told before.
An alert that maps to no service is reported in the answer instead of refused: a
4xx would make Alertmanager drop the others of its group with it.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity import Scope
from app.api.access import admit, count_guess, given_token, matches, refuse_locked
from app.api.bodies import beside, read_json
from app.api.dependencies import Container, ContainerDep
from app.api.openapi import alertmanager_body, problems
from app.api.problems import FieldError, Problem, invalid
from app.connectors.alertmanager import alerts_to_signals
from app.errors import Invalid
from app.loopback import is_loopback
from app.schemas import AcceptedView, UnmappedAlertView, WebhookAccepted

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/alertmanager",
    status_code=202,
    response_model=WebhookAccepted,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=alertmanager_body(),
    summary="Take a delivery of Alertmanager (webhook version 4)",
)
async def alertmanager(request: Request, container: ContainerDep) -> WebhookAccepted:
    await _authenticate(request, container)
    body = await read_json(request, container.settings.max_body_bytes)
    try:
        batch = await beside(
            len(body.raw),
            alerts_to_signals,
            body.value,
            settings=container.settings,
            received_at=container.clock.now(),
        )
    except Invalid as error:
        raise invalid(
            [
                FieldError(
                    field="body",
                    value=body.value,
                    message=str(error),
                    mend="point a webhook_config of Alertmanager (webhook version 4) here, unchanged",
                )
            ]
        ) from error
    accepted = await container.intake.accept(batch.signals) if batch.signals else ()
    return WebhookAccepted(
        items=[AcceptedView.of(one) for one in accepted],
        unmapped=[
            UnmappedAlertView(name=one.name, fingerprint=one.fingerprint, reason=one.reason)
            for one in batch.unmapped
        ],
    )


async def _authenticate(request: Request, container: Container) -> None:
    """Its own token where one is set, or an API token; with neither configured a sender on this machine."""
    token = container.settings.alertmanager_token
    refuse_locked(request, container)
    if matches(given_token(request), token):
        return
    if container.settings.identity_required:
        await admit(request, container, Scope.INGEST)
        return
    if token is None:
        if request.client is not None and is_loopback(request.client.host):
            return
        raise Problem(
            status=403,
            kind="token-not-configured",
            title="Deliveries from other machines need a token",
            detail="Set ALERTMANAGER_TOKEN, and the same value as http_config.authorization.credentials in "
            "Alertmanager; without it only senders on this machine are heard.",
        )
    count_guess(request, container)
    raise Problem(
        status=401,
        kind="wrong-token",
        title="The bearer token is missing or wrong",
        detail="Send 'Authorization: Bearer ...' with the value of ALERTMANAGER_TOKEN.",
        headers={"WWW-Authenticate": 'Bearer realm="alertmanager"'},
    )

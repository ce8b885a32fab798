"""`POST /webhooks/slack`: buttons and commands from Slack.

The signature of Slack is the only authentication; it is checked before the body is
parsed. An answer is durable before it is acknowledged (promise 1).
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.bodies import read_raw
from app.api.dependencies import ContainerDep
from app.api.openapi import problems, slack_body
from app.api.problems import Problem
from app.errors import Invalid

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/slack",
    response_class=Response,
    responses=problems(400, 401, 403, 404, 413, 503),
    openapi_extra=slack_body(),
    summary="Receive a button or a command from Slack",
)
async def slack(request: Request, container: ContainerDep) -> Response:
    inbound = container.slack
    if inbound is None or not inbound.takes_http:
        raise Problem(
            status=404,
            kind="not-configured",
            title="Slack is not configured",
            detail="Set SLACK_SIGNING_SECRET to receive buttons and commands at this address.",
        )
    body = await read_raw(request, container.settings.max_body_bytes)
    if not inbound.genuine(body, request.headers):
        raise Problem(
            status=401,
            kind="wrong-signature",
            title="Invalid Slack signature",
            detail="The signature does not match SLACK_SIGNING_SECRET, or is older than five minutes.",
        )
    try:
        answered = await inbound.handle(body, request.headers)
    except Invalid as error:
        raise Problem(
            status=400, kind="broken-body", title="The body cannot be read", detail=f"{error}."
        ) from None
    if answered.status_code == 503:
        raise Problem(
            status=503,
            kind="try-again",
            title="It is unknown whether this was recorded",
            detail="The database did not respond in time. Press the button again: it counts once.",
        )
    if answered.status_code >= 400:
        status = 404 if answered.status_code < 500 else 500
        raise Problem(
            status=status,
            kind="not-handled",
            title="Unknown interaction",
            detail="Only the buttons of the app and the command /heal are supported here.",
        )
    return answered

"""`POST /webhooks/CHANNEL`: buttons and commands from each registered chat that receives.

The chat's signature is the only authentication; it is checked before the body is
parsed. An answer is durable before it is acknowledged (promise 1).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.bodies import read_raw
from app.api.dependencies import ContainerDep
from app.api.openapi import chat_body, problems
from app.api.problems import Problem
from app.connectors.kinds import ChannelKind, ChatInbound, InboundKind
from app.connectors.registry import CHANNELS
from app.errors import Invalid

router = APIRouter(tags=["webhooks"])


def _receiving(kind: ChannelKind, inbound: InboundKind) -> Callable[..., Awaitable[Response]]:
    """The handler of one chat's route."""

    async def receive(request: Request, container: ContainerDep) -> Response:
        chat = container.chats.get(kind.name)
        if chat is None or not chat.takes_http:
            raise Problem(
                status=404,
                kind="not-configured",
                title=f"{kind.title} is not configured",
                detail=f"Set {inbound.setting} to receive buttons and commands at this address.",
            )
        body = await read_raw(request, container.settings.max_body_bytes)
        if not chat.genuine(body, request.headers):
            raise Problem(
                status=401,
                kind="wrong-signature",
                title=f"Invalid {kind.title} signature",
                detail=f"The signature does not match {inbound.setting}, or is older than five minutes.",
            )
        return await _answered(chat, body, request)

    return receive


async def _answered(chat: ChatInbound, body: bytes, request: Request) -> Response:
    try:
        answered = await chat.handle(body, request.headers)
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


for _kind in CHANNELS:
    if _kind.inbound is not None:
        router.add_api_route(
            f"/webhooks/{_kind.name}",
            _receiving(_kind, _kind.inbound),
            methods=["POST"],
            name=_kind.name,
            response_class=Response,
            responses=problems(400, 401, 403, 404, 413, 503),
            openapi_extra=chat_body(_kind.title, _kind.inbound.media_types),
            summary=f"Receive a button or a command from {_kind.title}",
        )

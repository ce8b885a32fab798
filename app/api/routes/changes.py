"""`GET /v1/changes`: server-sent events of what changed, for pages and programs that stay up to date."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.agent.identity.people import Scope
from app.api.changes import ChangeFeed, ChangeStream
from app.api.dependencies import ContainerDep, NoParameter
from app.api.openapi import problems
from app.api.problems import Problem
from app.api.security.access import admit, needs

router = APIRouter(tags=["incidents"])


@router.get(
    "/v1/changes",
    response_class=Response,
    responses={
        200: {
            "description": "`change` with the ids of changed incidents (none: anything may have changed), "
            "and `ping` at least every 15 s.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: change\ndata: {"incidents": ["inc_6f1a..."]}\n\n',
                }
            },
        },
        **problems(401, 403, 422, 429, 503),
    },
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Server-sent events of changes; read what changed through the other operations",
)
async def changes(request: Request, container: ContainerDep) -> Response:
    feed: ChangeFeed = request.app.state.changes
    if feed.full:
        raise Problem(
            status=503,
            kind="crowded",
            title="Too many clients follow the changes",
            detail="Ask again later, or read GET /v1/incidents from time to time.",
            headers={"Retry-After": "30"},
        )

    async def admitted() -> bool:
        try:
            await admit(request, container, Scope.READ)
        except Problem:
            return False
        return True

    return ChangeStream(feed, container, request, admitted)

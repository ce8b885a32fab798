"""`GET /streams`: progress of the stream consumers in this process."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from app.agent.identity.people import Scope
from app.api.dependencies import ContainerDep, NoParameter
from app.api.openapi import problems
from app.api.security.access import needs

router = APIRouter(tags=["health"])


class StreamView(BaseModel):
    """One stream that this process consumes. Counts start at zero with the process."""

    source: str
    address: str
    accepted: int
    acknowledged: int
    rejected: int
    redelivered: int
    lag: int | None
    """Messages not yet read or acknowledged; null when unknown."""
    lag_at: datetime | None
    blocked_since: datetime | None
    trouble: str


class StreamsView(BaseModel):
    """Every stream that this process consumes; empty without streams."""

    items: list[StreamView]


@router.get(
    "/streams",
    response_model=StreamsView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get lag and counts of the streams that this process consumes",
)
async def streams(container: ContainerDep) -> StreamsView:
    """Accepted and rejected messages, lag and blocking error of each consumer."""
    return StreamsView(
        items=[
            StreamView(
                source=one.source,
                address=one.address,
                accepted=one.progress.accepted,
                acknowledged=one.progress.acknowledged,
                rejected=one.progress.rejected,
                redelivered=one.progress.redelivered,
                lag=one.progress.lag,
                lag_at=one.progress.lag_at,
                blocked_since=one.progress.blocked_since,
                trouble=one.progress.error,
            )
            for one in container.streams
        ]
    )

"""`GET /incidents` and `GET /incidents/{id}`: what happened, what was done, and why."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.identity import Scope
from app.agent.models import IncidentId, IncidentRecord
from app.agent.ports import IncidentFilter, Page
from app.api.access import needs
from app.api.dependencies import Container, ContainerDep, EachParameterOnce
from app.api.openapi import problems
from app.api.problems import FieldError, Problem, invalid
from app.errors import Invalid
from app.schemas import IncidentPage, IncidentQuery, IncidentSummary, IncidentView

_INCIDENT_ID = re.compile(r"inc_[0-9a-f]{32}")

router = APIRouter(tags=["incidents"])


async def find(container: Container, query: IncidentQuery) -> Page:
    """One page; a range that is none, or a foreign cursor, raises `Problem` 422."""
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise invalid(
            [
                FieldError(
                    field="until",
                    value=query.until.isoformat(),
                    message="is not later than since",
                    mend="send a range with since before until",
                )
            ]
        )
    where = IncidentFilter(
        service=query.service,
        environment=query.environment,
        state=query.state,
        since=query.since,
        until=query.until,
    )
    try:
        return await container.store.find(where, limit=query.limit, cursor=query.cursor)
    except Invalid as error:
        raise invalid(
            [
                FieldError(
                    field="cursor",
                    value=query.cursor,
                    message=str(error),
                    mend="send the 'next' value of an earlier answer, unchanged",
                )
            ]
        ) from error


async def load(container: Container, incident_id: str) -> IncidentRecord:
    """One incident with its timeline; raises `Problem` 404."""
    record = None
    if _INCIDENT_ID.fullmatch(incident_id):
        record = await container.store.load(IncidentId(incident_id))
    if record is None:
        raise Problem(
            status=404,
            kind="not-found",
            title="No such incident",
            detail="No incident has this id. GET /incidents lists those that exist.",
        )
    return record


@router.get(
    "/incidents",
    response_model=IncidentPage,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Incidents, newest first, without their timelines",
)
async def list_incidents(query: Annotated[IncidentQuery, Query()], container: ContainerDep) -> IncidentPage:
    page = await find(container, query)
    return IncidentPage(items=[IncidentSummary.of(record) for record in page.items], next=page.next_cursor)


@router.get(
    "/incidents/{incident_id}",
    response_model=IncidentView,
    responses=problems(401, 403, 404, 429, 503),
    dependencies=[needs(Scope.READ)],
    summary="One incident with its whole timeline",
)
async def get_incident(incident_id: str, container: ContainerDep) -> IncidentView:
    return IncidentView.of(await load(container, incident_id))

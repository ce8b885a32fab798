"""`GET /incidents` and `GET /incidents/{id}`: incidents with actions and reasons."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.identity.people import Scope
from app.agent.ids import IncidentId
from app.agent.models import IncidentRecord
from app.agent.ports.store.incidents import IncidentFilter, Page, RecordPart
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce, OnlyStateRepeated
from app.api.openapi import problems
from app.api.problems import FieldError, Problem, invalid
from app.api.security.access import needs
from app.errors import Invalid
from app.schemas import (
    MOST_ENTRIES,
    IncidentPage,
    IncidentQuery,
    IncidentSummary,
    IncidentView,
    TimelineQuery,
)

_INCIDENT_ID = re.compile(r"inc_[0-9a-f]{32}")

router = APIRouter(tags=["incidents"])


async def find(container: ApiDependencies, query: IncidentQuery, *, intents: bool = True) -> Page:
    """One page, with the intents or without; an empty range or an unknown cursor raises `Problem` 422."""
    now = container.clock.now()
    since, until = _moment(query.since, now), _moment(query.until, now)
    if since is not None and until is not None and since >= until:
        raise invalid(
            [
                FieldError(
                    field="until",
                    value=until.isoformat(),
                    message="is not later than since",
                    fix="send a range with since before until",
                )
            ]
        )
    where = IncidentFilter(
        service=query.service,
        environment=query.environment,
        states=tuple(query.state),
        since=since,
        until=until,
        text=query.q,
        oldest_first=query.sort == "opened_at",
    )
    try:
        return await container.store.incidents.find(
            where, limit=query.limit, cursor=query.cursor, intents=intents
        )
    except Invalid as error:
        raise invalid(
            [
                FieldError(
                    field="cursor",
                    value=query.cursor,
                    message=str(error),
                    fix="send the 'next' value of an earlier answer, unchanged",
                )
            ]
        ) from error


def _moment(given: datetime | timedelta | None, now: datetime) -> datetime | None:
    """A time of a query; a length of time counts back from now, to the year 1 at most."""
    if not isinstance(given, timedelta):
        return given
    earliest = datetime(1, 1, 1, tzinfo=UTC)
    return now - given if given < now - earliest else earliest


async def load(container: ApiDependencies, incident_id: str) -> IncidentRecord:
    """One incident with its timeline; raises `Problem` 404."""
    record = None
    if _INCIDENT_ID.fullmatch(incident_id):
        record = await container.store.incidents.get(IncidentId(incident_id))
    if record is None:
        raise _no_such_incident()
    return record


async def load_part(
    container: ApiDependencies, incident_id: str, *, limit: int, after: int | None = None
) -> RecordPart:
    """One incident with a part of its timeline, the newest one by default; raises `Problem` 404."""
    part = None
    if _INCIDENT_ID.fullmatch(incident_id):
        part = await container.store.incidents.get_part(IncidentId(incident_id), limit=limit, after=after)
    if part is None:
        raise _no_such_incident()
    return part


def _no_such_incident() -> Problem:
    return Problem(
        status=404,
        kind="not-found",
        title="No such incident",
        detail="No incident has this id. GET /incidents lists all incidents.",
    )


@router.get(
    "/incidents",
    response_model=IncidentPage,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[OnlyStateRepeated, needs(Scope.READ)],
    summary="List incidents without timelines: filter, search, sort and page",
)
async def list_incidents(query: Annotated[IncidentQuery, Query()], container: ContainerDep) -> IncidentPage:
    page = await find(container, query)
    return IncidentPage(items=[IncidentSummary.of(record) for record in page.items], next=page.next_cursor)


@router.get(
    "/incidents/{incident_id}",
    response_model=IncidentView,
    responses=problems(401, 403, 404, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Get one incident with its timeline, or a part of it",
)
async def get_incident(
    incident_id: str, query: Annotated[TimelineQuery, Query()], container: ContainerDep
) -> IncidentView:
    if query.timeline_limit is None and query.timeline_cursor is None:
        return IncidentView.of(await load(container, incident_id))
    part = await load_part(
        container,
        incident_id,
        limit=query.timeline_limit or MOST_ENTRIES,
        after=-1 if query.timeline_cursor is None else query.timeline_cursor,
    )
    return IncidentView.of(part.record, part.next_after)

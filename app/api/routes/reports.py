"""`/v1/incidents/{id}/chart` and `/postmortem`: data for the page, and for a review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from app.agent.identity.people import Scope
from app.agent.models import TELEMETRY_SOURCES, IncidentRecord, SliSample
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce, NoParameter
from app.api.openapi import problems
from app.api.routes.incidents import load, load_part
from app.api.security.access import needs
from app.bounds.deadline import deadline
from app.errors import AgentError, TransientError
from app.schemas import MOST_ENTRIES, IncidentView
from app.web.postmortem import markdown
from app.wire.chart import ChartView, window_of

_FINEST = timedelta(seconds=10)
_MOST_POINTS = 240
_ANSWER_SECONDS = 3.0

router = APIRouter(tags=["incidents"])


class PostmortemQuery(BaseModel):
    """Query parameters of `GET /v1/incidents/{id}/postmortem`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["markdown", "json"] = "markdown"


@router.get(
    "/v1/incidents/{incident_id}/chart",
    response_model=ChartView,
    responses=problems(401, 403, 404, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get the service levels around an incident, with marks of deploys and actions",
)
async def get_chart(incident_id: str, container: ContainerDep) -> ChartView:
    record = (await load_part(container, incident_id, limit=MOST_ENTRIES)).record
    now, key = container.clock.now(), record.incident.key
    since, _ = window_of(record, now)
    samples = await _samples(container, record, now)
    changes = await container.store.signals.changes(since, of=key)
    return ChartView.of(record, samples, changes, container.slo.of(key), now)


async def _samples(container: ApiDependencies, record: IncidentRecord, now: datetime) -> Sequence[SliSample]:
    """The samples of the agent's own metric source, or of reported signals while it does not answer."""
    key, (since, until) = record.incident.key, window_of(record, now)
    metrics = container.loop.stages.observer.metrics
    if metrics is not None and key not in TELEMETRY_SOURCES:
        step = max(_FINEST, (until - since) / _MOST_POINTS)
        try:
            async with deadline(_ANSWER_SECONDS, lambda: TransientError("no answer in time")):
                measured = await metrics.sli_range(key, since, until, step)
        except AgentError:
            measured = ()
        if measured:
            return [replace(sample, measured=True) for sample in measured]
    return await container.store.signals.samples(key, since)


@router.get(
    "/v1/incidents/{incident_id}/postmortem",
    response_class=Response,
    responses={
        200: {
            "description": "The post-mortem: Markdown, or the whole incident as JSON.",
            "content": {
                "text/markdown": {"schema": {"type": "string"}, "example": "# shop in prod: recovered"},
                "application/json": {"schema": {"$ref": "#/components/schemas/IncidentView"}},
            },
        },
        **problems(401, 403, 404, 422, 429, 503),
    },
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Export the post-mortem of an incident",
)
async def get_postmortem(
    incident_id: str, query: Annotated[PostmortemQuery, Query()], container: ContainerDep
) -> Response:
    record = await load(container, incident_id)
    if query.format == "json":
        body, media_type = IncidentView.of(record).model_dump_json(indent=2), "application/json"
    else:
        body, media_type = markdown(record, container.clock.now()), "text/markdown"
    name = f"{record.incident.id}.{'json' if query.format == 'json' else 'md'}"
    return Response(
        body, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )

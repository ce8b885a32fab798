"""`GET /v1/stats`: statistics of the incidents of a period, as JSON and as CSV."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from app.agent.analytics.report import StatsPart, report
from app.agent.identity.people import Scope
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce
from app.api.openapi import problems
from app.api.problems import FieldError, invalid
from app.api.security.access import needs
from app.wire.statistics import StatsQuery, StatsView, csv_of

router = APIRouter(tags=["statistics"])


async def statistics(
    container: ApiDependencies, query: StatsQuery, parts: Collection[StatsPart] = tuple(StatsPart)
) -> StatsView:
    """The report; parts that are not in `parts` are empty. An empty period raises `Problem` 422."""
    try:
        where = query.filter_at(container.clock.now())
    except PydanticCustomError as error:
        raise invalid(
            [
                FieldError(
                    field="until",
                    value=str(query.until),
                    message=error.message(),
                    fix="send a period with since before until",
                )
            ]
        ) from error
    limits = container.loop.stages.executor.policy.limits.shared
    return StatsView.of(report(where, await container.store.statistics.counted(where, parts)), limits)


@router.get(
    "/v1/stats",
    response_model=StatsView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Get statistics: times to detect, acknowledge and restore, causes, runbooks, decisions, dry runs",
)
async def get_stats(query: Annotated[StatsQuery, Query()], container: ContainerDep) -> StatsView:
    return await statistics(container, query)


@router.get(
    "/v1/stats.csv",
    response_class=Response,
    responses={
        200: {
            "description": "One figure in a row: section, item, figure, value.",
            "content": {
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": "section,item,figure,value\r\nincidents,,recovered,12\r\n",
                }
            },
        },
        **problems(401, 403, 422, 429, 503),
    },
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="Get the same statistics as CSV",
)
async def get_stats_csv(query: Annotated[StatsQuery, Query()], container: ContainerDep) -> Response:
    view = await statistics(container, query)
    name = f"incidents-{view.since:%Y%m%d}-{view.until:%Y%m%d}.csv"
    return Response(
        csv_of(view),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )

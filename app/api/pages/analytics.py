"""The analytics page: the statistics of `GET /v1/stats` for any period and filter, kept in the address."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.agent.models import Cause
from app.agent.responders.attention import IncidentSeverity
from app.api.pages.forms import in_sentences
from app.api.pages.pages import Pages, Reading
from app.api.problems import Problem
from app.api.routes.statistics import statistics
from app.errors import TransientError
from app.web.analytics import PERIODS, columns, query_of
from app.wire.statistics import StatsQuery, StatsView, limit_in_words

router = APIRouter(include_in_schema=False)


@router.get("/dashboard/analytics")
async def analytics_page(request: Request, pages: Reading) -> Response:
    """A malformed filter shows the page with the error and its fix."""
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    try:
        query = StatsQuery.model_validate(given)
        view = await statistics(pages.container, query)
    except ValidationError as error:
        return await _shown(pages, given, None, problems=in_sentences(error))
    except Problem as problem:
        return await _shown(pages, given, None, problems=[problem.detail])
    except TransientError as error:
        return await pages.unavailable(error)
    return await _shown(pages, given, view)


async def _shown(
    pages: Pages, given: dict[str, str], view: StatsView | None, *, problems: Sequence[str] = ()
) -> Response:
    names = ("since", "until", "environment", "service", "cause", "severity", "interval", "manual_minutes")
    return await pages.show(
        "analytics.html",
        status=422 if problems else 200,
        view=view,
        given={name: given.get(name, "") for name in names},
        query=query_of(given),
        periods=PERIODS,
        causes=list(Cause),
        severities=list(IncidentSeverity),
        columns=[] if view is None else columns(view.trend),
        limit_in_words=limit_in_words,
        problems=problems,
        live=False,
    )

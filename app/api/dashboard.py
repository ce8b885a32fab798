"""The dashboard: incidents in a browser, each one readable as a story. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.agent.models import IncidentRecord, IncidentState
from app.api.dependencies import Container, ContainerDep
from app.api.incidents import find, load
from app.api.problems import Problem, field_errors
from app.errors import TransientError
from app.schemas import IncidentQuery
from app.web.pages import render
from app.web.story import chapters

REFRESH_SECONDS = 5

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> Response:
    return RedirectResponse("/dashboard", status_code=303)


@router.get("/dashboard")
async def list_page(request: Request, container: ContainerDep) -> Response:
    """A filter that fits nothing, or is malformed, still shows the page and says what to mend."""
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    try:
        query = IncidentQuery.model_validate(given)
        page = await find(container, query)
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        told = [f"{item.field} {item.message}: {item.mend}." for item in found]
        return _list(container, given, (), problems=told)
    except Problem as problem:
        return _list(container, given, (), problems=[problem.detail])
    except TransientError as error:
        return _message(container, 503, "Not possible right now", f"{error}. Reload in a moment.")
    older = None
    if page.next_cursor is not None:
        older = "/dashboard?" + urlencode({**given, "cursor": page.next_cursor})
    return _list(container, given, page.items, older=older)


@router.get("/dashboard/incidents/{incident_id}")
async def incident_page(incident_id: str, container: ContainerDep) -> Response:
    try:
        record = await load(container, incident_id)
    except Problem as problem:
        return _message(container, problem.status, problem.title, "Perhaps the address was cut short.")
    except TransientError as error:
        return _message(container, 503, "Not possible right now", f"{error}. Reload in a moment.")
    return _page(
        container,
        "incident.html",
        incident=record.incident,
        record=record,
        chapters=chapters(record),
        live=not record.incident.state.closed,
    )


def _list(
    container: Container,
    given: dict[str, str],
    records: Sequence[IncidentRecord],
    *,
    older: str | None = None,
    problems: Sequence[str] = (),
) -> Response:
    return _page(
        container,
        "incidents.html",
        status=422 if problems else 200,
        records=records,
        given={name: given.get(name, "") for name in ("service", "environment", "state")},
        filtered=any(name != "limit" for name in given),
        states=list(IncidentState),
        older=older,
        problems=problems,
        live=not problems,
    )


def _message(container: Container, status: int, title: str, text: str) -> Response:
    return _page(container, "message.html", status=status, title=title, text=text, live=False)


def _page(container: Container, template: str, *, status: int = 200, **values: object) -> Response:
    html = render(
        template,
        dry_run=container.settings.dry_run,
        high_risk=container.settings.allow_high_risk_actions,
        now=container.clock.now(),
        refresh_seconds=REFRESH_SECONDS,
        **values,
    )
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

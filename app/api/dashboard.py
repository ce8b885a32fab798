"""The dashboard: incidents in a browser, each one readable as a story.

It reads, save for one form, on the incident and on a page of its own: a person may
approve or deny what an incident waits for. The form takes the same door as
`POST /approvals/{id}`, behind the same guard against other sites (`app.api.guards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.agent.approvals import asked_for
from app.agent.identity import Door
from app.agent.models import Approval, ApprovalState, Brake, IncidentRecord, IncidentState
from app.api.approvals import answer
from app.api.approvals import load as load_approval
from app.api.bodies import read_form
from app.api.dependencies import Container, ContainerDep
from app.api.incidents import find, load
from app.api.problems import Problem, field_errors
from app.errors import NotEntitled, TransientError
from app.schemas import AnswerRequest, IncidentQuery
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
        return await _list(container, given, (), problems=told)
    except Problem as problem:
        return await _list(container, given, (), problems=[problem.detail])
    except TransientError as error:
        return await _message(container, 503, "Not possible right now", f"{error}. Reload in a moment.")
    older = None
    if page.next_cursor is not None:
        older = "/dashboard?" + urlencode({**given, "cursor": page.next_cursor})
    return await _list(container, given, page.items, older=older)


@router.get("/dashboard/incidents/{incident_id}")
async def incident_page(incident_id: str, container: ContainerDep) -> Response:
    try:
        record = await load(container, incident_id)
    except Problem as problem:
        return await _message(container, problem.status, problem.title, "Perhaps the address was cut short.")
    except TransientError as error:
        return await _message(container, 503, "Not possible right now", f"{error}. Reload in a moment.")
    return await _page(
        container,
        "incident.html",
        incident=record.incident,
        record=record,
        pending=_pending(record),
        chapters=chapters(record),
        live=not record.incident.state.closed,
    )


@router.get("/approvals/{approval_id}/page")
async def approval_page(approval_id: str, container: ContainerDep) -> Response:
    """One request by itself: where chats link to, and people say yes or no."""
    try:
        asked = await load_approval(container, approval_id)
        record = await load(container, asked.incident.id)
    except Problem as problem:
        return await _message(container, problem.status, problem.title, "Perhaps the address was cut short.")
    except TransientError as error:
        return await _message(container, 503, "Not possible right now", f"{error}. Reload in a moment.")
    pending = _pending(record)
    return await _page(
        container,
        "approval.html",
        incident=record.incident,
        asked_for=asked.approval,
        pending=pending if pending is not None and pending.id == asked.approval.id else None,
        live=False,
    )


@router.post("/dashboard/approvals/{approval_id}")
async def answer_form(approval_id: str, request: Request, container: ContainerDep) -> Response:
    """Back to where the form stood afterwards; a second click of the same person changes nothing."""
    try:
        fields = await read_form(request, container.settings.max_body_bytes)
        from_page = fields.pop("back", None) == approval_id
        said = AnswerRequest.model_validate({name: value.strip() for name, value in fields.items()})
        view = await answer(container, approval_id, said, Door.PAGE)
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        told = " ".join(f"{item.field} {item.message}: {item.mend}." for item in found)
        return await _message(container, 422, "Nothing was answered", told)
    except Problem as problem:
        return await _message(container, problem.status, problem.title, problem.detail)
    except TransientError as error:
        return await _message(container, 503, "Not possible right now", f"{error}. Go back and try again.")
    except NotEntitled as error:
        return await _message(container, 403, "Somebody else must answer this", f"{error}.")
    there = f"/approvals/{view.id}/page" if from_page else f"/dashboard/incidents/{view.incident_id}"
    return RedirectResponse(there, status_code=303)


def _pending(record: IncidentRecord) -> Approval | None:
    asked = asked_for(record)
    return asked if asked is not None and asked.state is ApprovalState.PENDING else None


async def _list(
    container: Container,
    given: dict[str, str],
    records: Sequence[IncidentRecord],
    *,
    older: str | None = None,
    problems: Sequence[str] = (),
) -> Response:
    return await _page(
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


async def _message(container: Container, status: int, title: str, text: str) -> Response:
    return await _page(container, "message.html", status=status, title=title, text=text, live=False)


async def _brake(container: Container) -> Brake | None:
    """The kill switch; a page that says why nothing can be read is shown without it."""
    try:
        return await container.store.brake()
    except TransientError:
        return None


async def _page(container: Container, template: str, *, status: int = 200, **values: object) -> Response:
    html = render(
        template,
        dry_run=container.settings.dry_run,
        brake=await _brake(container),
        high_risk=container.settings.allow_high_risk_actions,
        now=container.clock.now(),
        refresh_seconds=REFRESH_SECONDS,
        **values,
    )
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

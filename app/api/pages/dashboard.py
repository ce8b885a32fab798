"""The dashboard: incidents in a browser, each with its timeline.

All pages only read, except one form on the incident page and on the approval page: a
person approves or denies a pending action. The form uses the code of
`POST /approvals/{id}`, behind the same cross-site protection (`app.api.security.guards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.agent.approvals.state import asked_for
from app.agent.identity.people import Person, Scope
from app.agent.models import Approval, ApprovalState, IncidentRecord, IncidentState
from app.api.bodies import read_form
from app.api.dependencies import ContainerDep
from app.api.pages.pages import Pages, Reading
from app.api.problems import Problem, field_errors
from app.api.routes.approvals import answer
from app.api.routes.approvals import load as load_approval
from app.api.routes.incidents import find, load, load_part
from app.api.security.access import page_needs
from app.errors import NotEntitled, TransientError
from app.schemas import MOST_ENTRIES, AnswerRequest, IncidentQuery
from app.web.story import chapters

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> Response:
    return RedirectResponse("/dashboard", status_code=303)


@router.get("/dashboard")
async def list_page(request: Request, pages: Reading) -> Response:
    """A malformed filter shows the page with the error and its fix."""
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    try:
        query = IncidentQuery.model_validate(given)
        page = await find(pages.container, query)
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        told = [f"{item.field} {item.message}: {item.mend}." for item in found]
        return await _list(pages, given, (), problems=told)
    except Problem as problem:
        return await _list(pages, given, (), problems=[problem.detail])
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Reload in a moment.")
    older = None
    if page.next_cursor is not None:
        older = "/dashboard?" + urlencode({**given, "cursor": page.next_cursor})
    return await _list(pages, given, page.items, older=older)


@router.get("/dashboard/incidents/{incident_id}")
async def incident_page(incident_id: str, pages: Reading) -> Response:
    try:
        part = await load_part(pages.container, incident_id, limit=MOST_ENTRIES)
    except Problem as problem:
        return await pages.message(problem.status, problem.title, "Check that the address is complete.")
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Reload in a moment.")
    record = part.record
    return await pages.show(
        "incident.html",
        earlier=part.length - len(record.timeline),
        incident=record.incident,
        record=record,
        pending=_pending(record),
        chapters=chapters(record),
        live=not record.incident.state.closed,
    )


@router.get("/approvals/{approval_id}/page")
async def approval_page(approval_id: str, pages: Reading) -> Response:
    """The page of one approval, where people approve or deny; chat messages link to it."""
    try:
        asked = await load_approval(pages.container, approval_id)
        record = await load(pages.container, asked.incident.id)
    except Problem as problem:
        return await pages.message(problem.status, problem.title, "Check that the address is complete.")
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Reload in a moment.")
    pending = _pending(record)
    return await pages.show(
        "approval.html",
        incident=record.incident,
        asked_for=asked.approval,
        pending=pending if pending is not None and pending.id == asked.approval.id else None,
        live=False,
    )


@router.post("/dashboard/approvals/{approval_id}")
async def answer_form(
    approval_id: str,
    request: Request,
    container: ContainerDep,
    person: Annotated[Person, page_needs(Scope.APPROVE)],
) -> Response:
    """Record the answer and redirect to the page of the form; a second click has no effect."""
    pages = Pages(container=container, person=person)
    try:
        fields = await read_form(request, container.settings.max_body_bytes)
        from_page = fields.pop("back", None) == approval_id
        said = AnswerRequest.model_validate({name: value.strip() for name, value in fields.items()})
        view = await answer(container, approval_id, said, person)
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        told = " ".join(f"{item.field} {item.message}: {item.mend}." for item in found)
        return await pages.message(422, "No answer was recorded", told)
    except Problem as problem:
        return await pages.message(problem.status, problem.title, problem.detail)
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Go back and retry.")
    except NotEntitled as error:
        return await pages.message(403, "Not permitted to answer", f"{error}.")
    there = f"/approvals/{view.id}/page" if from_page else f"/dashboard/incidents/{view.incident_id}"
    return RedirectResponse(there, status_code=303)


def _pending(record: IncidentRecord) -> Approval | None:
    asked = asked_for(record)
    return asked if asked is not None and asked.state is ApprovalState.PENDING else None


async def _list(
    pages: Pages,
    given: dict[str, str],
    records: Sequence[IncidentRecord],
    *,
    older: str | None = None,
    problems: Sequence[str] = (),
) -> Response:
    return await pages.show(
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

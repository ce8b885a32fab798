"""The board and the page of one incident, with the forms of people who handle it.

Reading uses the code of the API. Every form uses the code of the API operation that it
stands for, behind the same cross-site protection (`app.api.security.guards`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.agent.identity.people import Person, Scope
from app.agent.intents import done_intents, undo_of
from app.agent.models import IncidentRecord, IncidentState
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.responders.request import ResponderAct
from app.agent.responders.undo_request import why_not_to_ask
from app.agent.timeline import first_broken
from app.api.blockers import why_no_undo_now, why_not_now
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.pages.approvals import pending_of
from app.api.pages.forms import in_sentences, named, submitted
from app.api.pages.pages import Pages, Reading
from app.api.problems import Problem
from app.api.routes.incidents import find, load_part
from app.api.routes.responders import respond
from app.api.security.access import page_needs
from app.errors import TransientError
from app.schemas import MOST_ENTRIES, IncidentQuery
from app.web.board import ACTIVE, ENDED, RANGES, address, chips, most_urgent_first, rows
from app.web.story import UndoOffer, chapters, commands, rehearsed
from app.wire.responders import ActRequest, AssignRequest, NoteRequest, ResolveRequest, UndoActRequest

_MOST_ACTIVE = 100
_ENDED_ON_BOARD = 30
_SIMILAR = 6
_FILTERS = ("q", "service", "environment", "since", "until")

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root() -> Response:
    return RedirectResponse("/dashboard", status_code=303)


@router.get("/dashboard")
async def list_page(request: Request, pages: Reading) -> Response:
    """A malformed filter shows the page with the error and its fix."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if value.strip():
            given.setdefault(name, []).append(value.strip())
    plain: dict[str, object] = {name: values[-1] for name, values in given.items()}
    plain["state"] = given.get("state", [])
    try:
        query = IncidentQuery.model_validate(plain)
        if set(given) <= {"cursor", "limit"}:
            return await _board(pages, query, given)
        page = await find(pages.container, query, intents=False)
    except ValidationError as error:
        return await _list(pages, given, (), problems=in_sentences(error))
    except Problem as problem:
        return await _list(pages, given, (), problems=[problem.detail])
    except TransientError as error:
        return await pages.unavailable(error)
    older = None if page.next_cursor is None else address(given, cursor=page.next_cursor)
    return await _list(pages, given, page.items, older=older)


async def _board(pages: Pages, query: IncidentQuery, given: Mapping[str, Sequence[str]]) -> Response:
    """Active incidents, most urgent first, then ended ones; further pages show only ended ones."""
    store = pages.container.store.incidents
    active, more = [], False
    if query.cursor is None:
        found = await store.find(
            IncidentFilter(states=ACTIVE), limit=_MOST_ACTIVE, cursor=None, intents=False
        )
        active, more = most_urgent_first(found.items), found.next_cursor is not None
    ended = await find(
        pages.container,
        query.model_copy(update={"state": list(ENDED), "limit": _ENDED_ON_BOARD}),
        intents=False,
    )
    older = None if ended.next_cursor is None else address(given, cursor=ended.next_cursor)
    anything = bool(active or ended.items)
    return await _list(
        pages, given, ended.items, older=older, active=active, more=more, board=anything and not query.cursor
    )


async def _list(
    pages: Pages,
    given: Mapping[str, Sequence[str]],
    records: Sequence[IncidentRecord],
    *,
    older: str | None = None,
    problems: Sequence[str] = (),
    active: Sequence[IncidentRecord] = (),
    more: bool = False,
    board: bool = False,
) -> Response:
    states = list(given.get("state", ()))
    filtered = not set(given) <= {"cursor", "limit"}
    now = pages.container.clock.now()
    return await pages.show(
        "incidents.html",
        status=422 if problems else 200,
        records=rows(records, now),
        active=rows(active, now),
        more_active=more,
        board=board,
        given={**{name: (given.get(name) or [""])[-1] for name in _FILTERS}, "states": states},
        chips=chips(states, filtered=filtered),
        filtered=filtered,
        states=list(IncidentState),
        ranges=RANGES,
        older=older,
        problems=problems,
        live=not problems,
    )


@router.get("/dashboard/incidents/{incident_id}")
async def incident_page(incident_id: str, pages: Reading) -> Response:
    container = pages.container
    try:
        part = await load_part(container, incident_id, limit=MOST_ENTRIES)
        record = part.record
        pending = pending_of(record)
        blocked = [] if pending is None else await why_not_now(container, record, pending)
        undo = await _undo(container, record)
        similar = await _similar(container, record)
    except Problem as problem:
        return await pages.message(problem.status, problem.title, "Check that the address is complete.")
    except TransientError as error:
        return await pages.unavailable(error)
    earlier = part.length - len(record.timeline)
    return await pages.show(
        "incident.html",
        earlier=earlier,
        incident=record.incident,
        record=record,
        pending=pending,
        blocked=blocked,
        undo=undo,
        rehearsed=None if pending is None else rehearsed(record, pending),
        chapters=chapters(record),
        commands=commands(record),
        similar=similar,
        intact=None if earlier else first_broken(record.incident.id, record.timeline) is None,
        live=True,
    )


async def _undo(container: ApiDependencies, record: IncidentRecord) -> UndoOffer | None:
    """The changes that a requested undo would undo, and the obstacle to it; None if nothing was changed."""
    changed = [one for one in done_intents(record) if one.action.target is not None]
    if not changed:
        return None
    done = undo_of(record, changed[-1])
    if done is not None:
        return UndoOffer(changed=changed[-1], done=done)
    why = why_not_to_ask(record)
    if why is not None:
        return UndoOffer(changed=changed[-1], blocked=[why])
    return UndoOffer(changed=changed[-1], blocked=await why_no_undo_now(container, record))


async def _similar(container: ApiDependencies, record: IncidentRecord) -> list[IncidentRecord]:
    """Earlier incidents of the service, those of the same cause first."""
    incident = record.incident
    where = IncidentFilter(service=incident.key.service, environment=incident.key.environment)
    page = await container.store.incidents.find(where, limit=_SIMILAR, cursor=None, intents=False)
    cause = incident.diagnosis.best.cause if incident.diagnosis is not None else None
    others = [one for one in page.items if one.incident.id != incident.id]
    return sorted(
        others,
        key=lambda one: one.incident.diagnosis is None or one.incident.diagnosis.best.cause is not cause,
    )


@router.post("/dashboard/incidents/{incident_id}/{act}")
async def act_form(
    incident_id: str,
    act: str,
    request: Request,
    container: ContainerDep,
    person: Annotated[Person, page_needs(Scope.APPROVE)],
) -> Response:
    """Record the operation of a person on the incident, and return to its page."""
    pages = Pages(container=container, person=person)
    if act not in set(ResponderAct):
        return await pages.message(404, "Not found", "No such form exists.")

    async def recorded(fields: Mapping[str, str]) -> str:
        by, text, owner = _said(ResponderAct(act), fields)
        view = await respond(container, incident_id, ResponderAct(act), person, by, text, owner=owner)
        return f"/dashboard/incidents/{view.id}"

    return await submitted(pages, request, recorded)


def _said(act: ResponderAct, fields: Mapping[str, str]) -> tuple[str | None, str, str | None]:
    """Name, text and owner of a form, checked as the API checks them."""
    given = named(fields)
    match act:
        case ResponderAct.ASSIGN:
            assigned = AssignRequest.model_validate({"owner": None, **given})
            return assigned.by, assigned.comment, assigned.owner
        case ResponderAct.NOTE:
            noted = NoteRequest.model_validate({"text": "", **given})
            return noted.by, noted.text, None
        case ResponderAct.RESOLVE:
            resolved = ResolveRequest.model_validate({"reason": "", **given})
            return resolved.by, resolved.reason, None
        case ResponderAct.UNDO:
            undone = UndoActRequest.model_validate({"reason": "", **given})
            return undone.by, undone.reason, None
        case _:
            said = ActRequest.model_validate(given)
            return said.by, said.comment, None

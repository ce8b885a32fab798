"""`/v1/incidents/{id}/...`: operations of people on an incident, except answering approvals.

Each is one transaction with its entries in the timeline and the audit trail; the record names the author
(`app.api.security.access`). A repeated request that would change nothing is accepted and records nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.closing import trace_end
from app.agent.identity.people import Person, Scope
from app.agent.models import IncidentRecord
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.responders.undo_request import why_not_to_ask
from app.api.blockers import why_no_undo_now
from app.api.bodies import read_model
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import json_body, problems
from app.api.problems import Problem
from app.api.routes.incidents import load_part
from app.api.security.access import deciding_person, needs
from app.errors import Conflict
from app.schemas import IncidentSummary
from app.wire.responders import ActRequest, AssignRequest, NoteRequest, ResolveRequest, UndoActRequest

router = APIRouter(tags=["responders"])

Approver = Annotated[Person, needs(Scope.APPROVE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """One act as a route."""

    act: ResponderAct
    path: str
    takes: type[ActRequest | AssignRequest | NoteRequest | ResolveRequest | UndoActRequest]
    summary: str
    name: str
    """Becomes the operation id."""


_ROUTES = (
    _Route(
        act=ResponderAct.ACKNOWLEDGE,
        path="acknowledge",
        takes=ActRequest,
        summary="Acknowledge an incident: a person has seen it",
        name="acknowledge",
    ),
    _Route(
        act=ResponderAct.ASSIGN,
        path="assign",
        takes=AssignRequest,
        summary="Set or remove the owner of an incident",
        name="assign",
    ),
    _Route(
        act=ResponderAct.NOTE,
        path="notes",
        takes=NoteRequest,
        summary="Add a note to the timeline of an incident",
        name="note",
    ),
    _Route(
        act=ResponderAct.TAKE_OVER,
        path="take-over",
        takes=ActRequest,
        summary="Take over an incident: the agent stops on it, and its claim is released",
        name="take_over",
    ),
    _Route(
        act=ResponderAct.HAND_BACK,
        path="hand-back",
        takes=ActRequest,
        summary="Hand an incident back to the agent",
        name="hand_back",
    ),
    _Route(
        act=ResponderAct.RESOLVE,
        path="resolve",
        takes=ResolveRequest,
        summary="Resolve an open or escalated incident by hand",
        name="resolve",
    ),
    _Route(
        act=ResponderAct.UNDO,
        path="undo",
        takes=UndoActRequest,
        summary="Request an undo of the agent's last change, of an incident that has ended or was taken over",
        name="undo",
    ),
)


def _endpoint(route: _Route) -> Callable[..., Awaitable[IncidentSummary]]:
    async def endpoint(
        incident_id: str, request: Request, container: ContainerDep, person: Approver
    ) -> IncidentSummary:
        said = await read_model(request, container.settings.max_body_bytes, route.takes)
        owner = said.owner if isinstance(said, AssignRequest) else None
        return await respond(container, incident_id, route.act, person, said.by, said.words, owner=owner)

    return endpoint


for _route in _ROUTES:
    router.add_api_route(
        f"/v1/incidents/{{incident_id}}/{_route.path}",
        _endpoint(_route),
        methods=["POST"],
        name=_route.name,
        response_model=IncidentSummary,
        responses=problems(
            *(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
            conflict="The incident no longer permits it",
        ),
        openapi_extra=json_body(_route.takes),
        summary=_route.summary,
    )


async def respond(
    container: ApiDependencies,
    incident_id: str,
    act: ResponderAct,
    person: Person,
    by: str | None,
    text: str,
    *,
    owner: str | None = None,
) -> IncidentSummary:
    """Record the act; raises `Problem` 404, 422, or 409 when the incident does not permit it."""
    author = deciding_person(person, by)
    found = await load_part(container, incident_id, limit=1)
    if act is ResponderAct.UNDO:
        await _refuse_impossible(container, found.record)
    request = ResponderRequest(act=act, by=author, at=container.clock.now(), text=text, owner=owner)
    try:
        after = await container.store.responders.respond(found.record.incident.id, request)
    except Conflict as error:
        raise _refused(str(error)) from error
    if after.closed_at == request.at:
        trace_end(after)
    return IncidentSummary.of((await load_part(container, incident_id, limit=1)).record)


async def _refuse_impossible(container: ApiDependencies, record: IncidentRecord) -> None:
    """Refuse a request that the agent would refuse now; the agent checks everything again."""
    if record.incident.undoing is not None or why_not_to_ask(record) is not None:
        return  # the store answers: it knows a repeated request
    blocked = await why_no_undo_now(container, record)
    if blocked:
        raise _refused("; ".join(blocked))


def _refused(why: str) -> Problem:
    return Problem(
        status=409,
        kind="incident-conflict",
        title="The incident does not permit it",
        detail=f"{why}.",
    )

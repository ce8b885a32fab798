"""`/v1/incidents/{id}/...`: what people do about an incident besides answering approvals.

Each act is one transaction with its entries in the timeline and the audit trail; the
record names the author (`app.api.security.access`). A repeated request that would
change nothing is accepted and records nothing.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity.people import Person, Scope
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.api.bodies import read_model
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import json_body, problems
from app.api.problems import Problem
from app.api.routes.incidents import load_part
from app.api.security.access import needs, speaker
from app.errors import Conflict
from app.schemas import IncidentSummary
from app.wire.responders import ActRequest, AssignRequest, NoteRequest, ResolveRequest

router = APIRouter(tags=["responders"])

_PROBLEMS = problems(
    400, 401, 403, 404, 409, 413, 415, 422, 429, 503, conflict="The incident does not permit it any more"
)

Approver = Annotated[Person, needs(Scope.APPROVE)]


@router.post(
    "/v1/incidents/{incident_id}/acknowledge",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(ActRequest),
    summary="Acknowledge an incident: a person has seen it",
)
async def acknowledge(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, ActRequest)
    return await respond(container, incident_id, ResponderAct.ACKNOWLEDGE, person, said.by, said.comment)


@router.post(
    "/v1/incidents/{incident_id}/assign",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(AssignRequest),
    summary="Set or remove the owner of an incident",
)
async def assign(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, AssignRequest)
    act = ResponderAct.ASSIGN
    return await respond(container, incident_id, act, person, said.by, said.comment, owner=said.owner)


@router.post(
    "/v1/incidents/{incident_id}/notes",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(NoteRequest),
    summary="Add a note to the timeline of an incident",
)
async def note(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, NoteRequest)
    return await respond(container, incident_id, ResponderAct.NOTE, person, said.by, said.text)


@router.post(
    "/v1/incidents/{incident_id}/take-over",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(ActRequest),
    summary="Take over an incident: the agent stops on it, and its claim is released",
)
async def take_over(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, ActRequest)
    return await respond(container, incident_id, ResponderAct.TAKE_OVER, person, said.by, said.comment)


@router.post(
    "/v1/incidents/{incident_id}/hand-back",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(ActRequest),
    summary="Hand an incident back to the agent",
)
async def hand_back(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, ActRequest)
    return await respond(container, incident_id, ResponderAct.HAND_BACK, person, said.by, said.comment)


@router.post(
    "/v1/incidents/{incident_id}/resolve",
    response_model=IncidentSummary,
    responses=_PROBLEMS,
    openapi_extra=json_body(ResolveRequest),
    summary="Resolve an open or escalated incident by hand",
)
async def resolve(
    incident_id: str, request: Request, container: ContainerDep, person: Approver
) -> IncidentSummary:
    said = await read_model(request, container.settings.max_body_bytes, ResolveRequest)
    return await respond(container, incident_id, ResponderAct.RESOLVE, person, said.by, said.reason)


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
    author = speaker(person, by)
    found = await load_part(container, incident_id, limit=1)
    request = ResponderRequest(act=act, by=author, at=container.clock.now(), text=text, owner=owner)
    try:
        await container.store.responders.respond(found.record.incident.id, request)
    except Conflict as error:
        raise Problem(
            status=409,
            kind="incident-conflict",
            title="The incident does not permit it",
            detail=f"{error}.",
        ) from error
    return IncidentSummary.of((await load_part(container, incident_id, limit=1)).record)

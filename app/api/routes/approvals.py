"""`/approvals`: approval requests of the agent, and the answers of people.

An approval is answered once (promise 1). The answer is durable before it is
acknowledged; the record names the author (`app.api.security.access`).
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request

from app.agent.approvals import answer as answering
from app.agent.identity.people import Person, Scope
from app.agent.ids import ApprovalId
from app.agent.models import ApprovalState
from app.agent.ports.store.approvals import ApprovalRecord
from app.api.bodies import read_model
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce, NoParameter
from app.api.openapi import json_body, problems
from app.api.problems import FieldError, Problem, invalid
from app.api.security.access import deciding_person, needs
from app.errors import Conflict, Invalid
from app.schemas import AnswerRequest, ApprovalList, ApprovalQuery, ApprovalView

_APPROVAL_ID = re.compile(r"apr_[0-9a-f]{32}")

router = APIRouter(tags=["approvals"])


@router.get(
    "/approvals",
    response_model=ApprovalList,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="List approvals, newest first; `state=pending` selects those awaiting an answer",
)
async def list_approvals(query: Annotated[ApprovalQuery, Query()], container: ContainerDep) -> ApprovalList:
    try:
        page = await container.store.approvals.find(query.state, limit=query.limit, cursor=query.cursor)
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
    items = [ApprovalView.of(one.approval, one.incident) for one in page.items]
    return ApprovalList(items=items, next=page.next_cursor)


@router.get(
    "/approvals/{approval_id}",
    response_model=ApprovalView,
    responses=problems(401, 403, 404, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get one approval: its plan, its target state and its answers",
)
async def get_approval(approval_id: str, container: ContainerDep) -> ApprovalView:
    found = await load(container, approval_id)
    return ApprovalView.of(found.approval, found.incident)


@router.post(
    "/approvals/{approval_id}",
    response_model=ApprovalView,
    responses=problems(
        400,
        401,
        403,
        404,
        409,
        413,
        415,
        422,
        429,
        503,
        conflict="Already answered by another person, expired or void",
    ),
    openapi_extra=json_body(AnswerRequest),
    summary="Approve or deny once; a repeated identical answer returns the recorded approval",
)
async def post_answer(
    approval_id: str,
    request: Request,
    container: ContainerDep,
    person: Annotated[Person, needs(Scope.APPROVE)],
) -> ApprovalView:
    said = await read_model(request, container.settings.max_body_bytes, AnswerRequest)
    return await answer(container, approval_id, said, person)


async def load(container: ApiDependencies, approval_id: str) -> ApprovalRecord:
    """The approval with its incident; raises `Problem` 404."""
    approval = None
    if _APPROVAL_ID.fullmatch(approval_id):
        approval = await container.store.approvals.get(ApprovalId(approval_id))
    part = None
    if approval is not None:
        part = await container.store.incidents.get_part(approval.incident_id, limit=1, urgent=True)
    if approval is None or part is None:
        raise Problem(
            status=404,
            kind="not-found",
            title="No such approval",
            detail="No approval has this id. GET /approvals lists all approvals.",
        )
    return ApprovalRecord(approval=approval, incident=part.record.incident)


async def answer(
    container: ApiDependencies, approval_id: str, said: AnswerRequest, person: Person
) -> ApprovalView:
    """Record an answer; raises `Problem` 404, 422, or 409 when another answer or state is recorded."""
    by = deciding_person(person, said.by)
    asked = await load(container, approval_id)
    try:
        approval = await answering.answer(
            container.store.approvals,
            asked.approval.id,
            approve=said.approve,
            by=by,
            comment=said.comment,
            at=container.clock.now(),
        )
    except Conflict as error:
        raise _refusal((await load(container, approval_id)).approval.state, error) from error
    return ApprovalView.of(approval, asked.incident)


def _refusal(state: ApprovalState, error: Exception) -> Problem:
    match state:
        case ApprovalState.VOID:
            kind, title = "approval-void", "The approval is void"
        case ApprovalState.PENDING | ApprovalState.EXPIRED:
            kind, title = "approval-expired", "The approval expired"
        case _:
            kind, title = "already-answered", "The approval was already answered"
    return Problem(
        status=409,
        kind=kind,
        title=title,
        detail=f"{error}." + (" The first answer is valid." if kind == "already-answered" else ""),
    )

"""The approvals inbox, the page of one approval, and the form that answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.agent.approvals.state import asked_for
from app.agent.identity.people import Person, Scope
from app.agent.models import Approval, ApprovalState, IncidentRecord, Rehearsal
from app.agent.ports.store.approvals import ApprovalRecord
from app.api.blockers import why_not_now, why_not_under
from app.api.dependencies import ContainerDep
from app.api.pages.forms import submitted
from app.api.pages.pages import Pages, Reading
from app.api.problems import Problem
from app.api.routes.approvals import answer
from app.api.routes.approvals import load as load_approval
from app.api.routes.incidents import load_part
from app.api.security.access import page_needs
from app.errors import TransientError
from app.schemas import MOST_ENTRIES, AnswerRequest
from app.web.story import rehearsed

_MOST_PENDING = 50
_ANSWERED = 20
_NEWEST_ENTRIES = 50

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A pending approval with its incident and what would make an answer useless."""

    approval: Approval
    record: IncidentRecord
    blocked: tuple[str, ...]
    rehearsed: Rehearsal | None


def pending_of(record: IncidentRecord) -> Approval | None:
    """The approval that the incident awaits."""
    asked = asked_for(record)
    return asked if asked is not None and asked.state is ApprovalState.PENDING else None


@router.get("/dashboard/approvals")
async def inbox(pages: Reading) -> Response:
    """The pending approvals, sorted by expiry, and the latest answers."""
    container = pages.container
    try:
        page = await container.store.approvals.find(ApprovalState.PENDING, limit=_MOST_PENDING, cursor=None)
        recent = await container.store.approvals.find(None, limit=_ANSWERED, cursor=None)
        waiting = await _asked(pages, page.items)
    except TransientError as error:
        return await pages.unavailable(error)
    return await pages.show(
        "approvals.html",
        waiting=sorted(waiting, key=lambda one: one.approval.expires_at),
        answered=[one for one in recent.items if one.approval.state is not ApprovalState.PENDING],
        live=True,
    )


async def _asked(pages: Pages, found: Sequence[ApprovalRecord]) -> list[Asked]:
    """The approvals that their incidents await now, with the data that is read once for all of them."""
    ids = {one.incident.id for one in found}
    parts = await pages.container.store.incidents.get_newest_parts(ids, limit=_NEWEST_ENTRIES)
    switch = await pages.container.store.guardrails.kill_switch()
    asked = []
    for one in found:
        part = parts.get(one.incident.id)
        pending = None if part is None else pending_of(part.record)
        if part is None or pending is None or pending.id != one.approval.id:
            continue
        asked.append(
            Asked(
                approval=pending,
                record=part.record,
                blocked=tuple(await why_not_under(pages.container, part.record, pending, switch)),
                rehearsed=rehearsed(part.record, pending),
            )
        )
    return asked


@router.get("/approvals/{approval_id}/page")
async def approval_page(approval_id: str, pages: Reading) -> Response:
    """The page of one approval, where people approve or deny; chat messages link to it."""
    try:
        asked = await load_approval(pages.container, approval_id)
        record = (await load_part(pages.container, asked.incident.id, limit=MOST_ENTRIES)).record
        pending = pending_of(record)
        mine = pending is not None and pending.id == asked.approval.id
        blocked = [] if pending is None or not mine else await why_not_now(pages.container, record, pending)
    except Problem as problem:
        return await pages.message(problem.status, problem.title, "Check that the address is complete.")
    except TransientError as error:
        return await pages.unavailable(error)
    return await pages.show(
        "approval.html",
        incident=record.incident,
        asked_for=asked.approval,
        pending=pending if mine else None,
        blocked=blocked,
        rehearsed=None if pending is None else rehearsed(record, pending),
        live=True,
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

    async def answered(fields: Mapping[str, str]) -> str:
        back = fields.get("back")
        said = {name: value for name, value in fields.items() if name != "back"}
        view = await answer(container, approval_id, AnswerRequest.model_validate(said), person)
        if back == "inbox":
            return "/dashboard/approvals"
        there = f"/dashboard/incidents/{view.incident_id}"
        return f"/approvals/{view.id}/page" if back == approval_id else there

    return await submitted(pages, request, answered, failed="No answer was recorded")

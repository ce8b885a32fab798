"""The operations page: guardrails, dependencies of the agent, and the integrity of its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.agent.guardrails.status import guardrail_status
from app.agent.identity.audit_log import START, AuditLogEntry, first_broken
from app.agent.identity.people import Person, Scope
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.pages.forms import named, submitted
from app.api.pages.pages import Pages, Reading
from app.api.recent import Recent
from app.api.routes.guardrails import closed_circuit, set_kill_switch
from app.api.security.access import page_needs
from app.errors import TransientError
from app.schemas import BrakeRequest, CheckView, CircuitRequest
from app.version import package_version
from app.web.operations import Budgets, budgets_left

_PEOPLE_SHOWN = 15
_CHECKED_AT_ONCE = 500
_MOST_CHECKED = 2_000
"""A longer trail is verified by `heal audit people`."""

router = APIRouter(include_in_schema=False)


@router.get("/dashboard/operations")
async def operations_page(request: Request, pages: Reading) -> Response:
    """The guardrails and the dependencies of the agent; administrators see the audit of people."""
    container, now = pages.container, pages.container.clock.now()
    readiness: Recent[list[CheckView]] = request.app.state.readiness
    limits = container.loop.stages.executor.policy.limits
    shared = limits.shared
    try:
        attempts = await container.store.budgets.attempts(now - shared.look_back)
        switch = await container.store.guardrails.kill_switch()
        checks = await readiness.of(container)
        trail = await _trail(container) if _may(pages, Scope.ADMIN) else None
    except TransientError as error:
        return await pages.unavailable(error)
    status = guardrail_status(switch, attempts, shared, now)
    budgets: Budgets = budgets_left(attempts, shared, now)
    return await pages.show(
        "operations.html",
        status=200,
        guardrails=status,
        limits=limits,
        budgets=budgets,
        checks=checks,
        streams=[(one.source, one.address, one.progress) for one in container.streams],
        settings=container.settings_in_force,
        version=package_version(),
        clients=request.app.state.changes.clients,
        trail=trail,
        may_operate=_may(pages, Scope.OPERATE),
        live=True,
    )


async def _trail(container: ApiDependencies) -> Mapping[str, object]:
    """The newest decisions of people, and whether the chain from its start is intact."""
    newest: tuple[AuditLogEntry, ...] = ()
    after, previous, broken = -1, START, None
    checked = 0
    whole = False
    while checked < _MOST_CHECKED:
        entries = await container.store.audit_log.entries(after=after, limit=_CHECKED_AT_ONCE)
        if not entries:
            whole = True
            break
        broken = first_broken(entries, previous) if broken is None else broken
        checked += len(entries)
        after, previous = entries[-1].sequence, entries[-1].hash
        newest = (*newest, *entries)[-_PEOPLE_SHOWN:]
    return {"checked": checked, "broken": broken, "whole": whole, "newest": newest[::-1] if whole else ()}


def _may(pages: Pages, scope: Scope) -> bool:
    if not pages.container.settings.identity_required:
        return True
    return pages.person is not None and pages.person.may(scope)


@router.post("/dashboard/kill-switch")
async def kill_switch_form(
    request: Request, container: ContainerDep, person: Annotated[Person, page_needs(Scope.OPERATE)]
) -> Response:
    """Engage or release the kill switch, and return to the page."""

    async def done(fields: Mapping[str, str]) -> str:
        given: dict[str, object] = {**named(fields)}
        given["engaged"] = fields.get("engaged") == "yes"
        await set_kill_switch(container, BrakeRequest.model_validate(given), person)
        return "/dashboard/operations"

    return await submitted(Pages(container=container, person=person), request, done)


@router.post("/dashboard/circuits/close")
async def circuit_form(
    request: Request, container: ContainerDep, person: Annotated[Person, page_needs(Scope.OPERATE)]
) -> Response:
    """Close a circuit breaker early, and return to the page."""

    async def done(fields: Mapping[str, str]) -> str:
        wanted = CircuitRequest.model_validate({"reason": "", **named(fields)})
        await closed_circuit(container, wanted, person)
        return "/dashboard/operations"

    return await submitted(Pages(container=container, person=person), request, done)

"""`/brakes`: the guardrails, and the kill switch that stops all new actions (promise 11).

The kill switch applies to every action that has not started before the response; undo
and verification continue. The record names the author (`app.api.security.access`).
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.guardrails.status import circuit_in_words, guardrail_status
from app.agent.identity.people import Person, Scope
from app.agent.models import KillSwitch
from app.api.bodies import read_model
from app.api.dependencies import ApiDependencies, ContainerDep, NoParameter
from app.api.openapi import json_body, problems
from app.api.problems import FieldError, invalid
from app.api.security.access import deciding_person, needs
from app.schemas import BrakeRequest, BrakesView, BrakeView, CircuitRequest

log = logging.getLogger(__name__)

router = APIRouter(tags=["brakes"])


@router.get(
    "/brakes",
    response_model=BrakesView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get the guardrails: kill switch, freeze windows, and circuit breakers that are not closed",
)
async def get_brakes(container: ContainerDep) -> BrakesView:
    return await status(container)


@router.post(
    "/brakes/circuits/close",
    response_model=BrakesView,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=json_body(CircuitRequest),
    summary="Close a circuit breaker early: failures until now no longer count",
)
async def close_circuit(
    request: Request, container: ContainerDep, person: Annotated[Person, needs(Scope.OPERATE)]
) -> BrakesView:
    wanted = await read_model(request, container.settings.max_body_bytes, CircuitRequest)
    await closed_circuit(container, wanted, person)
    return await status(container)


async def closed_circuit(container: ApiDependencies, wanted: CircuitRequest, person: Person) -> None:
    """Close the breaker, in the name of that person; raises `Problem` 422 without a name."""
    key, known = wanted.key, container.loop.stages.executor.policy.limits.shared.clusters.names
    if wanted.cluster is not None and wanted.cluster not in known:
        fix = f"name one of {', '.join(known)}" if known else "leave it out: CLUSTERS names none"
        raise invalid(
            [
                FieldError(
                    field="cluster", message="is not a cluster in CLUSTERS", value=wanted.cluster, fix=fix
                )
            ]
        )
    by = deciding_person(person, wanted.by)
    said = KillSwitch(engaged=False, by=by.name, reason=wanted.reason, at=container.clock.now())
    await container.store.guardrails.close_circuit(key, said, person=by)
    log.warning("circuit breaker of %s closed by %s: %s", circuit_in_words(key), said.by, said.reason)


async def status(container: ApiDependencies) -> BrakesView:
    """The status of all guardrails."""
    limits, now = container.loop.stages.executor.policy.limits.shared, container.clock.now()
    attempts = await container.store.budgets.attempts(now - limits.look_back)
    return BrakesView.of(
        guardrail_status(await container.store.guardrails.kill_switch(), attempts, limits, now)
    )


@router.get(
    "/brakes/kill-switch",
    response_model=BrakeView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get the kill switch: state, author and reason",
)
async def get_kill_switch(container: ContainerDep) -> BrakeView:
    return BrakeView.of(await container.store.guardrails.kill_switch())


@router.put(
    "/brakes/kill-switch",
    response_model=BrakeView,
    responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
    openapi_extra=json_body(BrakeRequest),
    summary="Engage or release the kill switch",
)
async def put_kill_switch(
    request: Request, container: ContainerDep, person: Annotated[Person, needs(Scope.OPERATE)]
) -> BrakeView:
    wanted = await read_model(request, container.settings.max_body_bytes, BrakeRequest)
    return BrakeView.of(await set_kill_switch(container, wanted, person))


async def set_kill_switch(container: ApiDependencies, wanted: BrakeRequest, person: Person) -> KillSwitch:
    """Engage or release it, in the name of that person; raises `Problem` 422 without a name."""
    by = deciding_person(person, wanted.by)
    brake = KillSwitch(engaged=wanted.engaged, by=by.name, reason=wanted.reason, at=container.clock.now())
    await container.store.guardrails.set_kill_switch(brake, person=by)
    log.warning(
        "kill switch %s by %s: %s", "engaged" if brake.engaged else "released", brake.by, brake.reason
    )
    return brake

"""`/brakes/kill-switch`: stop every new action of every worker at once (promise 11).

It holds for each action that has not begun when this answers; undo and
verification go on. Who sets it is taken at its word until there is identity: a
loopback address is the protection (ADR 9).
"""

from __future__ import annotations

import logging

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.models import Brake
from app.api.bodies import read_model
from app.api.dependencies import ContainerDep
from app.api.openapi import json_body, problems
from app.schemas import BrakeRequest, BrakeView

log = logging.getLogger(__name__)

router = APIRouter(tags=["brakes"])


@router.get(
    "/brakes/kill-switch",
    response_model=BrakeView,
    responses=problems(503),
    summary="Whether new actions are stopped, by whom, and why",
)
async def get_kill_switch(container: ContainerDep) -> BrakeView:
    return BrakeView.of(await container.store.brake())


@router.put(
    "/brakes/kill-switch",
    response_model=BrakeView,
    responses=problems(400, 403, 413, 415, 422, 503),
    openapi_extra=json_body(BrakeRequest),
    summary="Engage or release the kill switch",
)
async def put_kill_switch(request: Request, container: ContainerDep) -> BrakeView:
    wanted = await read_model(request, container.settings.max_body_bytes, BrakeRequest)
    brake = Brake(engaged=wanted.engaged, by=wanted.by, reason=wanted.reason, at=container.clock.now())
    await container.store.set_brake(brake)
    log.warning(
        "kill switch %s by %s: %s", "engaged" if brake.engaged else "released", brake.by, brake.reason
    )
    return BrakeView.of(brake)

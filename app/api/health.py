"""`GET /healthz` and `GET /readyz`: whether the process is up, and whether it can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from app.api.dependencies import ContainerDep
from app.api.openapi import problems
from app.api.problems import FieldError, Problem
from app.errors import AgentError
from app.schemas import CheckView, HealthView, ReadyView

CHECK_TIMEOUT_SECONDS = 5.0

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=HealthView, summary="The process is up")
async def healthz() -> HealthView:
    return HealthView(status="ok")


@router.get(
    "/readyz",
    response_model=ReadyView,
    responses=problems(503),
    summary="Everything the agent depends on answers",
)
async def readyz(container: ContainerDep) -> ReadyView:
    checks = await asyncio.gather(*(_run(name, check) for name, check in container.checks))
    failing = [check for check in checks if not check.ready]
    if failing:
        raise Problem(
            status=503,
            kind="not-ready",
            title="The agent is not ready",
            detail="; ".join(f"{check.name}: {check.message}" for check in failing),
            errors=[
                FieldError(
                    field=check.name,
                    value=None,
                    message=check.message,
                    mend="see to it that it answers, and check its settings",
                )
                for check in failing
            ],
            headers={"Retry-After": "5"},
        )
    return ReadyView(status="ready", checks=checks)


async def _run(name: str, check: Callable[[], Awaitable[None]]) -> CheckView:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except TimeoutError:
        return CheckView(
            name=name, ready=False, message=f"did not answer within {CHECK_TIMEOUT_SECONDS:.0f} s"
        )
    except AgentError as error:
        return CheckView(name=name, ready=False, message=str(error))
    return CheckView(name=name, ready=True, message="answers")

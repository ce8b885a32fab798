"""`GET /healthz`, `GET /readyz` and `GET /version`: liveness, readiness and the version of the agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request

from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import problems
from app.api.problems import FieldError, Problem
from app.api.recent import Recent
from app.bounds.deadline import deadline
from app.config import Settings
from app.errors import AgentError, TransientError
from app.schemas import CheckView, HealthView, ReadyView, VersionView
from app.version import package_version

CHECK_TIMEOUT_SECONDS = 5.0
REMEMBERED_SECONDS = 2.0
"""How long a result is reused, so that frequent probes add no load."""

router = APIRouter(tags=["health"])


def readiness(monotonic: Callable[[], float] = time.monotonic) -> Recent[list[CheckView]]:
    """The result of every check; concurrent probes share one run of them."""
    return Recent(read=_run_all, seconds=REMEMBERED_SECONDS, monotonic=monotonic)


@router.get("/healthz", response_model=HealthView, summary="Liveness: the process is up")
async def healthz() -> HealthView:
    return HealthView(status="ok")


@router.get("/version", response_model=VersionView, summary="The version of the agent")
async def version(request: Request) -> VersionView:
    settings: Settings = request.app.state.settings
    return VersionView(version=package_version(), sandbox=settings.sandbox)


@router.get(
    "/readyz",
    response_model=ReadyView,
    responses=problems(503),
    summary="Readiness: the agent can write, its driver makes progress, and its dependencies respond",
)
async def readyz(request: Request, container: ContainerDep) -> ReadyView:
    recent: Recent[list[CheckView]] = request.app.state.readiness
    checks = await recent.of(container)
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
                    fix="check that it responds, and check its settings",
                )
                for check in failing
            ],
            headers={"Retry-After": "5"},
        )
    return ReadyView(status="ready", checks=checks)


async def _run_all(container: ApiDependencies) -> list[CheckView]:
    return await asyncio.gather(*(_run(name, check) for name, check in container.checks))


async def _run(name: str, check: Callable[[], Awaitable[str | None]]) -> CheckView:
    try:
        async with deadline(CHECK_TIMEOUT_SECONDS, _silent):
            remark = await check()
    except AgentError as error:
        return CheckView(name=name, ready=False, message=str(error))
    return CheckView(name=name, ready=True, message=remark or "answers")


def _silent() -> TransientError:
    return TransientError(f"did not respond within {CHECK_TIMEOUT_SECONDS:.0f} s")

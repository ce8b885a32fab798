"""`GET /healthz`, `GET /readyz` and `GET /version`: liveness, readiness and the version of the agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import APIRouter
from starlette.requests import Request

from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import problems
from app.api.problems import FieldError, Problem
from app.bounds.deadline import deadline
from app.config import Settings
from app.errors import AgentError, TransientError
from app.schemas import CheckView, HealthView, ReadyView, VersionView
from app.version import package_version

CHECK_TIMEOUT_SECONDS = 5.0
REMEMBERED_SECONDS = 2.0
"""How long a result is reused, so that frequent probes add no load."""

router = APIRouter(tags=["health"])


@dataclass(slots=True, kw_only=True)
class Readiness:
    """The last result and its age; concurrent probes share one check."""

    monotonic: Callable[[], float] = time.monotonic
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _checks: list[CheckView] = field(default_factory=list)
    _looked_at: float | None = None
    _container: ApiDependencies | None = None

    async def of(self, container: ApiDependencies) -> list[CheckView]:
        """The result of every check, at most `REMEMBERED_SECONDS` old."""
        async with self._looking:
            fresh = self._looked_at is not None and self.monotonic() - self._looked_at < REMEMBERED_SECONDS
            if not fresh or container is not self._container:
                self._checks = await asyncio.gather(*(_run(name, check) for name, check in container.checks))
                self._looked_at, self._container = self.monotonic(), container
            return self._checks


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
    readiness: Readiness = request.app.state.readiness
    checks = await readiness.of(container)
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
                    mend="check that it responds, and check its settings",
                )
                for check in failing
            ],
            headers={"Retry-After": "5"},
        )
    return ReadyView(status="ready", checks=checks)


async def _run(name: str, check: Callable[[], Awaitable[str | None]]) -> CheckView:
    try:
        async with deadline(CHECK_TIMEOUT_SECONDS, _silent):
            remark = await check()
    except AgentError as error:
        return CheckView(name=name, ready=False, message=str(error))
    return CheckView(name=name, ready=True, message=remark or "answers")


def _silent() -> TransientError:
    return TransientError(f"did not respond within {CHECK_TIMEOUT_SECONDS:.0f} s")

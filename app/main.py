"""The web application: `create_app`, and `app` for `uvicorn app.main:app`.

Importing this module reads the settings and touches neither database nor
network; the lifespan starts the whole agent beside the API and stops it again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from app.api import (
    admission,
    head,
    openapi,
    problems,
    request_measures,
)
from app.api.changes import ChangeFeed, most_clients
from app.api.dependencies import ApiDependencies
from app.api.intake_door.door import DOOR, IntakeDoor
from app.api.pages import (
    analytics,
    dashboard,
    docs,
    operations,
    pages,
    sandbox,
    sign_in,
    sign_out,
    token_sign_in,
)
from app.api.pages import approvals as approval_pages
from app.api.pages import catalogues as catalogue_pages
from app.api.routes import (
    agent,
    approvals,
    audit,
    catalogues,
    changes,
    chat,
    events,
    health,
    incidents,
    metrics,
    reports,
    responders,
    scenarios,
    statistics,
    streams,
    tokens,
    webhooks,
)
from app.api.routes import (
    guardrails as brakes,
)
from app.api.security import guards
from app.api.security.lockout import Lockout
from app.bounds.process import exclude_start_from_collection, raise_descriptor_limit
from app.config import Settings, load_settings
from app.errors import ConfigurationError
from app.logs import show_log
from app.settings.entries import Role
from app.stopping import Stop
from app.version import package_version

log = logging.getLogger(__name__)

FOR_PEOPLE = (
    events,
    agent,
    incidents,
    responders,
    reports,
    statistics,
    catalogues,
    changes,
    approvals,
    brakes,
    audit,
    tokens,
    webhooks,
    chat,
    health,
    dashboard,
    approval_pages,
    operations,
    analytics,
    catalogue_pages,
    sign_out,
    token_sign_in,
    docs,
    streams,
    metrics,
)
FOR_SANDBOX = (sandbox, scenarios)
"""What the sandbox serves beside them."""
VERSIONED = (incidents, approvals, brakes, audit)
"""What is served under `/v1` too; the paths without a version stay."""
FOR_PROBES = (health, streams, metrics)
"""What workers and watchers serve: liveness and readiness probes, and metrics."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    show_log(settings.log_level, settings.log_format)
    raise_descriptor_limit(settings.max_connections)
    if not settings.identity_required:
        log.info("authentication disabled: accepting localhost connections only")
        if settings.listens_on != settings.host:
            log.warning(
                "HOST=%s is not listened on: set REQUIRE_IDENTITY=true and create a token with `heal token "
                "create`, or OIDC_ISSUER, to authenticate callers",
                settings.host,
            )
    stop: Stop = app.state.stop
    with stop.on_signals(and_before=True):
        async with _at_work(app, stop) as container:
            await _say_who_gets_in(container)
            app.state.container = container
            exclude_start_from_collection()
            try:
                yield
            finally:
                app.state.container = None


@asynccontextmanager
async def _at_work(app: FastAPI, stop: Stop) -> AsyncIterator[ApiDependencies]:
    """The agent, or the sandbox in its place; imported here, so that this module loads no driver."""
    settings: Settings = app.state.settings
    if settings.sandbox:
        from app.simulation.sandbox import running_sandbox

        async with running_sandbox(settings, stop) as one:
            app.state.playground = one.playground
            log.info("sandbox: simulated cluster, no real system is connected; start a scenario at /sandbox")
            yield one.container
        return
    from app.workers import running

    async with running(settings, stop) as container:
        yield container


async def _say_who_gets_in(container: ApiDependencies) -> None:
    settings = container.settings
    if settings.identity_required and settings.oidc_issuer is None:
        now = container.clock.now()
        if all(token.refusal(now) is not None for token in await container.store.credentials.tokens()):
            log.warning("no valid token: all requests are rejected; create one with `heal token create`")
    if settings.approval_roles and not settings.people_have_roles:
        log.warning(
            "APPROVAL_ROLES=%s cannot be met: without authentication no person has a role",
            ",".join(sorted(settings.approval_roles)),
        )


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None


class _Application(FastAPI):
    """The framework, with the fast door of intake in front."""

    door: IntakeDoor | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.door is None or scope["type"] != "http":
            if scope["type"] == "lifespan" and "state" in scope:
                scope["state"][DOOR] = self.door  # for a server whose protocol is that of `heal run`
            await super().__call__(scope, receive, send)
        else:
            scope["app"] = self
            await self.door(scope, receive, send)


@cache
def _routes(*, for_people: bool, sandbox: bool) -> tuple[BaseRoute, ...]:
    """The routes of an application. Applications of one process share them.

    What the framework derives from a route at its first match, 85 ms of processor time for all of
    them, is then derived once.
    """
    router = APIRouter()
    for module in FOR_PEOPLE if for_people else FOR_PROBES:
        router.include_router(module.router)
    if for_people:
        for module in VERSIONED:
            router.include_router(module.router, prefix="/v1")
    if sandbox:
        for extra in FOR_SANDBOX:
            router.include_router(extra.router)
    return tuple(router.routes)


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application with every route; its container exists while its lifespan runs."""
    settings = settings or _settings()
    if settings.sandbox:
        from app.simulation.sandbox import sandbox_settings

        settings = sandbox_settings(settings)
    app = _Application(
        title="Self-Healing DevOps Agent" + (" (sandbox)" if settings.sandbox else ""),
        version=package_version(),
        summary="Finds, diagnoses and heals incidents on Kubernetes, safely.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.stop = Stop()
    app.state.readiness = health.readiness()
    app.state.figures = metrics.figures()
    app.state.lockout = Lockout(
        attempts=settings.lockout_attempts, length=timedelta(seconds=settings.lockout_seconds)
    )
    app.state.changes = ChangeFeed(most=most_clients(settings.max_connections))
    app.state.stop.then(app.state.changes.close)
    serves_people = settings.role in (Role.ALL, Role.API)
    progress = admission.InProgress(stop=app.state.stop, most=settings.max_connections - admission.RESERVED)
    if serves_people:
        app.door = IntakeDoor(
            super(_Application, app).__call__, app, progress=progress, sandbox=settings.sandbox
        )
    app.add_middleware(request_measures.RequestMeasures)
    app.add_middleware(guards.BrowserGuard, loopback_only=not settings.identity_required)
    app.add_middleware(
        admission.Admission,
        progress=progress,
        delivery_bytes=settings.max_body_bytes,
    )
    app.add_middleware(guards.SecurityHeaders, sandbox=settings.sandbox)
    app.add_middleware(head.HeadAsGet)
    problems.install(app)
    pages.install(app)
    openapi.install(app)
    app.router.routes.extend(_routes(for_people=serves_people, sandbox=settings.sandbox))
    if serves_people and settings.oidc_issuer is not None:
        sign_in.install(app)
    elif serves_people:
        app.include_router(token_sign_in.without_issuer)
    docs.mount_assets(app)
    return app


app = create_app()

"""The web application: `create_app`, and `app` for `uvicorn app.main:app`.

Importing this module reads the settings and touches neither database nor
network; the lifespan starts the whole agent beside the API and stops it again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import ValidationError

from app.api import (
    agent,
    approvals,
    audit,
    brakes,
    dashboard,
    docs,
    events,
    guards,
    health,
    incidents,
    openapi,
    problems,
    slack,
    streams,
    webhooks,
)
from app.config import Role, Settings

log = logging.getLogger(__name__)

_FOR_PEOPLE = (
    events,
    agent,
    incidents,
    approvals,
    brakes,
    audit,
    webhooks,
    slack,
    health,
    dashboard,
    docs,
    streams,
)
_FOR_PROBES = (health, streams)
"""What workers and watchers serve: whoever runs them asks whether they are well."""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    from app.workers import running  # here, so that importing this module loads no driver and no engine

    settings: Settings = app.state.settings
    if not guards.is_loopback(settings.host):
        log.warning(
            "HOST=%s is reachable from other machines and there is no authentication yet: "
            "put it behind a proxy that decides who may talk to the agent",
            settings.host,
        )
    _show_log(settings)
    async with running(settings) as container:
        app.state.container = container
        try:
            yield
        finally:
            app.state.container = None


def _show_log(settings: Settings) -> None:
    """Let the agent's own log reach the terminal beside the server's; libraries only warn."""
    logging.basicConfig(format="%(levelname)s:     %(message)s", level=logging.WARNING)
    logging.getLogger("app").setLevel(settings.log_level.upper())


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise SystemExit(f"the configuration is not valid: {wrong}") from None


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application with every route; its container exists while its lifespan runs."""
    settings = settings or _settings()
    app = FastAPI(
        title="Self-Healing DevOps Agent",
        version="0.1.0",
        summary="Finds, diagnoses and heals incidents on Kubernetes, safely.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.add_middleware(guards.BrowserGuard, configured_host=settings.host)
    app.add_middleware(guards.SecurityHeaders)
    problems.install(app)
    openapi.install(app)
    serves_people = settings.role in (Role.ALL, Role.API)
    for module in _FOR_PEOPLE if serves_people else _FOR_PROBES:
        app.include_router(module.router)
    docs.mount_assets(app)
    return app


app = create_app()

"""The parts of every page: the mode, the kill switch, and the signed-in person.

`Pages` is a dependency of the dashboard routes; `install` registers the handlers that
show a refusal as a page.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.agent.identity.people import Person, Scope
from app.agent.models import KillSwitch
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.security.access import PageRefused, SignInNeeded, page_needs
from app.config import Settings
from app.errors import TransientError
from app.web.pages import SandboxLabel, render

REFRESH_SECONDS = 5
SANDBOX_REFRESH_SECONDS = 1
"""Simulated time passes faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """Shows pages to one person."""

    container: ApiDependencies
    person: Person | None = None
    """The caller; None or nameless without authentication. Only readers see the mode and the kill switch."""

    async def show(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Render one page from a template and its values."""
        settings = self.container.settings
        may_read = self.person is not None and self.person.may(Scope.READ)
        if not settings.identity_required:
            may_read = True
        html = render(
            template,
            mode=("dry" if settings.dry_run else "real") if may_read else None,
            brake=await self._brake() if may_read else None,
            high_risk=self.container.loop.stages.executor.policy.limits.allow_high_risk,
            person=self.person if self.person is not None and self.person.verified else None,
            now=self.container.clock.now(),
            refresh_seconds=SANDBOX_REFRESH_SECONDS if settings.sandbox else REFRESH_SECONDS,
            sandbox=sandbox_label(settings),
            **values,
        )
        return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

    async def message(self, status: int, title: str, text: str) -> Response:
        """A page with a title and a text only."""
        return await self.show("message.html", status=status, title=title, text=text, live=False)

    async def unavailable(self, error: TransientError) -> Response:
        """The page for a store that does not answer now."""
        return await self.message(503, "Temporarily unavailable", f"{error}. Reload in a moment.")

    async def _brake(self) -> KillSwitch | None:
        """The kill switch; None while the store is unavailable."""
        try:
            return await self.container.store.guardrails.kill_switch()
        except TransientError:
            return None


def sandbox_label(settings: Settings) -> SandboxLabel | None:
    """The label of the sandbox; None outside the sandbox."""
    if not settings.sandbox:
        return None
    return SandboxLabel(speed=settings.sandbox_speed, visitor=_local_account())


def _local_account() -> str:
    """The name of the account that runs the sandbox: it accepts connections from this machine only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "visitor"


def _reading(container: ContainerDep, person: Annotated[Person, page_needs(Scope.READ)]) -> Pages:
    return Pages(container=container, person=person)


Reading = Annotated[Pages, Depends(_reading)]


def install(app: FastAPI) -> None:
    """Redirect unauthenticated people to sign in, and show a refusal as a page."""

    @app.exception_handler(SignInNeeded)
    async def on_unknown(request: Request, error: SignInNeeded) -> Response:
        settings: Settings = request.app.state.settings
        return RedirectResponse(error.location(by_token=settings.oidc_issuer is None), status_code=303)

    @app.exception_handler(PageRefused)
    async def on_refused(request: Request, error: PageRefused) -> Response:
        problem, pages = error.problem, Pages(container=request.app.state.container)
        answer = await pages.message(problem.status, problem.title, problem.detail)
        answer.headers.update(problem.headers)
        return answer

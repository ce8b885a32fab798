"""Sign-in to the pages with a token, without OpenID Connect or while its issuer is down.

The browser keeps the token in a cookie that no script can read; the cookie has the
scopes and the lifetime of the token.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.api.bodies import read_form
from app.api.dependencies import ContainerDep
from app.api.pages.local_path import HOME, is_local
from app.api.pages.pages import sandbox_label
from app.api.problems import Problem
from app.api.security.access import recognised_token
from app.api.security.cookies import SESSION_COOKIE, set_cookie
from app.web.pages import render

router = APIRouter(include_in_schema=False)
without_issuer = APIRouter(include_in_schema=False)
"""Without OpenID Connect, the sign-in page redirects here."""


@without_issuer.get("/sign-on")
async def to_the_form(request: Request) -> Response:
    query = request.url.query
    return RedirectResponse("/sign-on/token" + (f"?{query}" if query else ""), status_code=303)


@router.get("/sign-on/token")
async def token_form(request: Request) -> Response:
    return _form(request, _page(request.query_params.get("to", HOME)))


@router.post("/sign-on/token")
async def sign_in(request: Request, container: ContainerDep) -> Response:
    """Accept a valid token; a wrong one counts as a failed attempt."""
    to = HOME
    try:
        fields = await read_form(request, container.settings.max_body_bytes)
        to = _page(fields.get("to", HOME))
        text = fields.get("token", "").strip()
        await recognised_token(request, container, text)
    except Problem as problem:
        return _form(request, to, status=problem.status, notice=problem.detail)
    answer = RedirectResponse(to, status_code=303)
    set_cookie(answer, container.settings, SESSION_COOKIE, text, lifetime=None)
    return answer


def _page(to: str) -> str:
    """The page to open after sign-in; the dashboard for any other address."""
    return to if is_local(to) else HOME


def _form(request: Request, to: str, *, status: int = 200, notice: str = "") -> Response:
    html = render(
        "token_sign_in.html", to=to, notice=notice, sandbox=sandbox_label(request.app.state.settings)
    )
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

"""`GET /docs`: the interactive OpenAPI page, from files of this installation.

The framework's own page loads Swagger UI from a CDN and runs an inline script;
an agent inside a closed network has no CDN, and the content security policy
allows neither. The files come with the `fastapi-offline` package.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from app.api.pages.pages import sandbox_label
from app.web.pages import render

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(render("docs.html", sandbox=sandbox_label(request.app.state.settings)))


def mount_assets(app: FastAPI) -> None:
    """Serve Swagger UI's files and our own under `/static`."""
    app.mount("/static/swagger", StaticFiles(packages=[("fastapi_offline", "static")]), name="swagger")
    app.mount("/static", StaticFiles(packages=[("app.web", "static")]), name="static")

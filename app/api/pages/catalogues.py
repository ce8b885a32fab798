"""The pages of the catalogues: services, runbooks and policies with their history; short addresses."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.agent.ids import ServiceKey
from app.api.pages.forms import in_sentences
from app.api.pages.pages import Reading
from app.api.routes.catalogues import history_of, policies_of, runbooks_of, services_of
from app.errors import TransientError
from app.web.analytics import query_of
from app.wire.catalogues import ServicesQuery

router = APIRouter(include_in_schema=False)


@router.get("/analytics")
@router.get("/services")
@router.get("/runbooks")
@router.get("/policies")
async def short_address(request: Request, _: Reading) -> Response:
    """The short address of a page."""
    query = request.url.query
    return RedirectResponse(f"/dashboard{request.url.path}" + (f"?{query}" if query else ""), status_code=307)


@router.get("/dashboard/services")
async def services_page(request: Request, pages: Reading) -> Response:
    """A malformed filter shows the page with the error and its fix."""
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    page, problems = None, []
    try:
        page = await services_of(pages.container, ServicesQuery.model_validate(given))
    except ValidationError as error:
        problems = in_sentences(error)
    except TransientError as error:
        return await pages.unavailable(error)
    following = None if page is None or page.next is None else query_of({**given, "cursor": page.next})
    return await pages.show(
        "services.html",
        status=422 if problems else 200,
        page=page,
        given={name: given.get(name, "") for name in ("q", "environment")},
        following=following,
        problems=problems,
        live=False,
    )


@router.get("/dashboard/services/{environment}/{service}")
async def service_page(environment: str, service: str, pages: Reading) -> Response:
    """The versions of one service that are on record."""
    try:
        found = await history_of(pages.container, ServiceKey(environment=environment, service=service))
    except TransientError as error:
        return await pages.unavailable(error)
    return await pages.show("service.html", found=found, live=False)


@router.get("/dashboard/runbooks")
async def runbooks_page(pages: Reading) -> Response:
    """The catalogue in force, with the results of each runbook."""
    try:
        page = await runbooks_of(pages.container)
    except TransientError as error:
        return await pages.unavailable(error)
    return await pages.show("runbooks.html", page=page, live=False)


@router.get("/dashboard/policies")
async def policies_page(pages: Reading) -> Response:
    """The policies in force, with the decisions of the last days."""
    try:
        page = await policies_of(pages.container)
    except TransientError as error:
        return await pages.unavailable(error)
    return await pages.show("policies.html", page=page, live=False)

"""`/sandbox`: starts a scenario, and shows how its services fare. Exists only in the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.agent.identity.people import Person, Scope
from app.agent.models import IncidentRecord
from app.agent.ports.store.incidents import IncidentFilter
from app.api.bodies import read_form
from app.api.dependencies import ContainerDep
from app.api.pages.pages import Pages, Reading
from app.api.problems import Problem
from app.api.routes.scenarios import PlaygroundDep, start
from app.api.security.access import page_needs
from app.errors import TransientError

router = APIRouter(include_in_schema=False)

_SHOWN = 20


@router.get("/sandbox")
async def sandbox_page(pages: Reading, playground: PlaygroundDep) -> Response:
    run = playground.run
    records: Sequence[IncidentRecord] = ()
    if run is not None:
        where = IncidentFilter(environment=run.environment)
        try:
            found = await pages.container.store.incidents.find(where, limit=_SHOWN, cursor=None)
        except TransientError as error:
            return await pages.unavailable(error)
        records = found.items
    return await pages.show(
        "sandbox.html",
        scenarios=[one.scenario for one in playground.scenarios],
        run=run,
        running=None if run is None else run.variant.scenario,
        services=await playground.services(),
        records=records,
        live=True,
    )


@router.post("/sandbox/scenarios/{name}")
async def start_form(
    name: str,
    request: Request,
    container: ContainerDep,
    playground: PlaygroundDep,
    person: Annotated[Person, page_needs(Scope.OPERATE)],
) -> Response:
    """Start the scenario and show the page again."""
    try:
        await read_form(request, container.settings.max_body_bytes)
        start(playground, name)
    except Problem as problem:
        pages = Pages(container=container, person=person)
        return await pages.message(problem.status, problem.title, problem.detail)
    return RedirectResponse("/sandbox", status_code=303)

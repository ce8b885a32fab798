"""`/v1/sandbox`: the scenarios of the sandbox; these routes exist only there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from app.agent.identity.people import Scope
from app.api.dependencies import ContainerDep, NoParameter
from app.api.openapi import problems
from app.api.problems import Problem
from app.api.security.access import needs
from app.errors import NotFound
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.playground import Playground, ScenarioRun
from app.schemas import SandboxView, ScenarioRunView, ScenarioView

router = APIRouter(prefix="/v1/sandbox", tags=["sandbox"])


def _playground(request: Request, container: ContainerDep) -> Playground:  # noqa: ARG001 - 503 before it is there
    playground: Playground = request.app.state.playground
    return playground


PlaygroundDep = Annotated[Playground, Depends(_playground)]


@router.get(
    "",
    response_model=SandboxView,
    operation_id="get_sandbox",
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get the scenarios of the sandbox, and the one that was started last",
)
async def get_sandbox(playground: PlaygroundDep, container: ContainerDep) -> SandboxView:
    run = playground.run
    return SandboxView(
        now=container.clock.now(),
        speed=container.settings.sandbox_speed,
        scenarios=[scenario_view(one) for one in playground.scenarios],
        run=None if run is None else run_view(run),
    )


@router.post(
    "/scenarios/{name}/start",
    status_code=202,
    response_model=ScenarioRunView,
    operation_id="start_scenario",
    responses=problems(401, 403, 404, 429, 503),
    dependencies=[needs(Scope.OPERATE)],
    summary="Start a scenario in a new environment; the services of the previous run are removed",
)
async def start_scenario(name: str, playground: PlaygroundDep) -> ScenarioRunView:
    return run_view(start(playground, name))


def start(playground: Playground, name: str) -> ScenarioRun:
    """Start a scenario; raises `Problem` 404 for an unknown name."""
    try:
        return playground.start(name)
    except NotFound as error:
        raise Problem(
            status=404, kind="no-such-scenario", title="No such scenario", detail=f"{error}."
        ) from None


def scenario_view(variant: Variant) -> ScenarioView:
    scenario = variant.scenario
    return ScenarioView(name=scenario.id, title=scenario.title, about=scenario.about)


def run_view(run: ScenarioRun) -> ScenarioRunView:
    return ScenarioRunView(
        scenario=run.variant.scenario.id,
        title=run.variant.scenario.title,
        environment=run.environment,
        started_at=run.started_at,
        ends_at=run.ends_at,
    )

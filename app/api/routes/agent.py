"""`POST /agent/run-once`: run one pass of the loop now, and report its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Person, Scope
from app.agent.loop import Pass
from app.agent.ports.store.incidents import IncidentFilter
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce
from app.api.openapi import problems
from app.api.security.access import needs
from app.schemas import IncidentView, RunOnceQuery, RunOnceView, StepView

router = APIRouter(tags=["agent"])


@router.post(
    "/agent/run-once",
    response_model=RunOnceView,
    responses=problems(401, 403, 409, 422, 429, 502, 503),
    dependencies=[EachParameterOnce],
    summary="Run one pass of the loop for a service now",
)
async def run_once(
    query: Annotated[RunOnceQuery, Query()],
    container: ContainerDep,
    person: Annotated[Person, needs(Scope.OPERATE)],
) -> RunOnceView:
    """Evaluates the current state without a for-duration, under the same claim as every pass.

    An authenticated caller cannot approve actions that result from the pass.
    """
    asked_by = person.name if person.verified else None
    if asked_by is not None:
        subject = "/".join(filter(None, (query.environment, query.service)))
        await container.store.audit_log.append(
            HumanDecision(
                at=container.clock.now(), by=person, kind=HumanDecisionKind.PASS_REQUESTED, subject=subject
            )
        )
    report = await container.loop.run_once(query.service, query.environment, requested_by=asked_by)
    passes = report.passes
    return RunOnceView(
        service=query.service,
        environment=query.environment,
        incidents=[IncidentView.of(one.record) for one in passes],
        steps=[
            StepView.of_incident(one.record.incident.id, entry) for one in passes for entry in one.entries
        ],
        summary=await _summary(container, query, passes),
    )


async def _summary(container: ApiDependencies, query: RunOnceQuery, passes: Sequence[Pass]) -> str:
    where = query.service + (f" in {query.environment}" if query.environment else "")
    if passes:
        parts = []
        for one in passes:
            incident = one.record.incident
            steps = f"{len(one.entries)} step" + ("" if len(one.entries) == 1 else "s")
            parts.append(
                f"{incident.key}: {steps}, now {incident.state.replace('_', ' ')}. {incident.summary}"
            )
        return " ".join(part.strip() for part in parts)
    known = await container.store.signals.pending_services(query.service, query.environment)
    earlier = await container.store.incidents.find(
        IncidentFilter(service=query.service, environment=query.environment), limit=1, cursor=None
    )
    if known or earlier.items:
        return f"Nothing to do for {where}: no open incident, and no threshold breached."
    return (
        f"No data for {where}. Post a deploy to /events/deploy or a metric to /events/metric, "
        "or connect a cluster, a metric source or alerts, and check the spelling of the name."
    )

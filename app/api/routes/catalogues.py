"""`/v1/services`, `/v1/runbooks` and `/v1/policies`: the catalogues of the agent, with their history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.agent.analytics.report import StatsPart
from app.agent.identity.people import Scope
from app.agent.ids import ServiceKey
from app.api.dependencies import ApiDependencies, ContainerDep, EachParameterOnce, NoParameter
from app.api.openapi import problems
from app.api.routes.statistics import statistics
from app.api.security.access import needs
from app.connectors.policy.embedded import EmbeddedPolicy
from app.redaction import redacted
from app.wire.catalogues import (
    ConfigVersionView,
    PolicyFileView,
    PolicyPage,
    RevisionView,
    RunbookPage,
    ServiceHistoryView,
    ServicePage,
    ServicesQuery,
)
from app.wire.fields import DnsLabel
from app.wire.statistics import StatsQuery

_RUNBOOKS_OVER = StatsQuery.model_validate({"since": "90d"})
_POLICIES_OVER = StatsQuery.model_validate({"since": "30d"})

router = APIRouter(tags=["catalogues"])


async def services_of(container: ApiDependencies, query: ServicesQuery) -> ServicePage:
    """One page of services."""
    found = await container.store.history.services(
        environment=query.environment, text=query.q, after=query.after, limit=query.limit + 1
    )
    return ServicePage.of(found, query.limit)


async def history_of(container: ApiDependencies, key: ServiceKey) -> ServiceHistoryView:
    """The versions of one service; empty lists for an unknown service."""
    return ServiceHistoryView(
        environment=key.environment,
        service=key.service,
        revisions=[RevisionView.of(one) for one in await container.store.history.revisions(key)],
        configs=[ConfigVersionView.of(one) for one in await container.store.history.configs(key)],
    )


async def runbooks_of(container: ApiDependencies) -> RunbookPage:
    """The catalogue in force, with the results of each runbook."""
    catalogue = container.loop.stages.catalogue
    achieved = await statistics(container, _RUNBOOKS_OVER, (StatsPart.CELLS,))
    return RunbookPage.of(catalogue.runbooks, catalogue.hash, achieved.runbooks)


async def policies_of(container: ApiDependencies) -> PolicyPage:
    """The policies in force, with the decisions of the last days."""
    engine, settings = container.loop.stages.executor.policy.engine, container.settings
    recently = await statistics(container, _POLICIES_OVER, (StatsPart.DECISIONS, StatsPart.REASONS))
    kind, source, files = "none", "", []
    if isinstance(engine, EmbeddedPolicy):
        kind, source = "embedded", str(engine.in_force.folder)
        files = [PolicyFileView.of(one.file, one.text) for one in engine.in_force.modules]
    elif engine is not None:
        kind, source = "server", redacted(settings.policy_server or "")
    return PolicyPage(
        engine=kind, source=source, items=files, decisions=recently.decisions, reasons=recently.reasons
    )


@router.get(
    "/v1/services",
    response_model=ServicePage,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[EachParameterOnce, needs(Scope.READ)],
    summary="List the services on record, with the newest incident of each",
)
async def list_services(query: Annotated[ServicesQuery, Query()], container: ContainerDep) -> ServicePage:
    return await services_of(container, query)


@router.get(
    "/v1/services/{environment}/{service}",
    response_model=ServiceHistoryView,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="Get the versions of a service that served well or failed",
)
async def get_service(
    environment: DnsLabel, service: DnsLabel, container: ContainerDep
) -> ServiceHistoryView:
    return await history_of(container, ServiceKey(environment=environment, service=service))


@router.get(
    "/v1/runbooks",
    response_model=RunbookPage,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="List the approved runbooks, with what each version achieved",
)
async def list_runbooks(container: ContainerDep) -> RunbookPage:
    return await runbooks_of(container)


@router.get(
    "/v1/policies",
    response_model=PolicyPage,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.READ)],
    summary="List the policies in force, with the decisions of the last 30 days",
)
async def list_policies(container: ContainerDep) -> PolicyPage:
    return await policies_of(container)

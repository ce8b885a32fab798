"""`GET /metrics`: the metrics of the agent itself, as text for a monitoring system."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.agent.audit.figures import AgentFigures
from app.agent.freshness.watchdog import WatchdogState
from app.agent.identity.people import Scope
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.openapi import problems
from app.api.recent import Recent
from app.api.security.access import needs
from app.bounds.deadline import deadline
from app.connectors.readiness import watchdog_now
from app.errors import AgentError, TransientError
from app.measures.exposition import CONTENT_TYPE, Exposed, PeerCalls, exposition
from app.version import package_version

REMEMBERED_SECONDS = 5.0
"""How long figures of the database are reused: several scrapers cost one read."""
_READ_SECONDS = 5.0

_TEXT = {"text/plain": {"schema": {"type": "string"}}}

router = APIRouter(tags=["health"])


@dataclass(frozen=True, slots=True, kw_only=True)
class OfDatabase:
    """What one read of the database gave."""

    figures: AgentFigures
    watchdog: WatchdogState | None


def figures() -> Recent[OfDatabase | None]:
    """The figures from the database; None if it does not answer. Concurrent scrapes share one read."""
    return Recent(read=_read, seconds=REMEMBERED_SECONDS)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        **problems(401, 403, 429, 503),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    },
    dependencies=[needs(Scope.READ)],
    summary="Get the metrics of the agent itself in the text exposition format",
)
async def metrics(request: Request, container: ContainerDep) -> Response:
    """Counters of this process, and incidents, actions, approvals and waiting times of all processes."""
    recent: Recent[OfDatabase | None] = request.app.state.figures
    found = await recent.of(container)
    exposed = Exposed(
        version=package_version(),
        role=container.settings.role.value,
        dry_run=container.settings.dry_run,
        idle_seconds=container.vitals.idle_seconds(),
        peers={
            peer.name: PeerCalls(
                answered=peer.answered_calls, failed=peer.failed_calls, rejected=peer.rejected_calls
            )
            for peer in container.peers
        },
        reachable={peer.name: peer.reachable for peer in container.peers},
        streams={one.source: one.progress for one in container.streams},
        informer_ages=container.informer_ages(),
        budget=container.settings.max_actions_per_cluster,
        figures=found.figures if found is not None else None,
        watchdog=found.watchdog if found is not None else None,
        now=container.clock.now(),
    )
    return Response(exposition(container.measures, exposed), media_type=CONTENT_TYPE)


async def _read(container: ApiDependencies) -> OfDatabase | None:
    try:
        async with deadline(_READ_SECONDS, lambda: TransientError("the database did not respond")):
            counted = await container.store.figures.figures(
                container.clock.now(), timedelta(seconds=container.settings.budget_window_seconds)
            )
            terms = container.watchdog
            if terms is None:
                return OfDatabase(figures=counted, watchdog=None)
            watchdog = await watchdog_now(container.store.signals, terms, container.clock)
            return OfDatabase(figures=counted, watchdog=watchdog)
    except AgentError:
        return None

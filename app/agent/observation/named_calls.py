"""The services that the environment of a workload names and that may be the cause of its failure.

An address in the environment does not show who calls whom: it may be that of a caller, or
of a collector of traces that has failed for hours. A named service counts as a dependency
only if it began to fail with the service of the incident or shortly before, and does not
call that service itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import IncidentState
from app.agent.observation.missing import or_missing
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.services.calls import Calls

_SHORTLY_BEFORE = timedelta(minutes=15)
_WITH_IT = timedelta(seconds=30)
"""Two polls: the agent does not detect simultaneous failures at the same moment."""


async def failing_callees(
    key: ServiceKey,
    named: Sequence[ServiceKey],
    opened_at: datetime,
    calls: Calls,
    reader: ClusterReader,
    store: Store,
) -> tuple[ServiceKey, ...]:
    """Of the named services, those that began to fail with `key` or shortly before, in their order.

    `opened_at` is the time at which the incident of `key` was opened. Unreadable services are left out.
    """
    levels = await store.signals.levels(key)
    breached = None if levels is None else levels.breached_since
    began = opened_at if breached is None else min(breached, opened_at)
    found = []
    for one in named:
        failing = await _failing_since(one, began, store)
        if failing is None or not began - _SHORTLY_BEFORE <= failing <= began + _WITH_IT:
            continue
        if key in calls.get(one, ()):
            continue
        workload = await or_missing(reader.workload(one), str(one), [])
        if workload is not None and key not in workload.calls:
            found.append(one)
    return tuple(found)


async def _failing_since(key: ServiceKey, began: datetime, store: Store) -> datetime | None:
    """When a service left its objectives, or its newest incident was opened; None if it is healthy."""
    levels = await store.signals.levels(key)
    if levels is not None and levels.breached_since is not None:
        return levels.breached_since
    recent = IncidentFilter(service=key.service, environment=key.environment, since=began - _SHORTLY_BEFORE)
    page = await store.incidents.find(recent, limit=1, cursor=None)
    newest = next((record.incident for record in page.items), None)
    if newest is None or newest.state.is_recovery or newest.state is IncidentState.RESOLVED_BY_HAND:
        return None
    return newest.opened_at

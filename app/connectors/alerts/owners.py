"""Asks the cluster whose pods the alerts of a delivery name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from app.agent.ports.cluster import PodOwner, PodOwners
from app.connectors.alerts.labels import PodRef
from app.errors import AgentError

OWNERS_TIMEOUT_SECONDS = 5.0
MOST_PODS_ASKED = 50
"""Per delivery; further pods are mapped by name, as without a cluster."""
PODS_AT_ONCE = 8


async def owners_of(
    cluster: PodOwners | None, pods: Sequence[PodRef]
) -> dict[PodRef, PodOwner | None] | None:
    """The owners of the pods that the cluster reports in time; None without a cluster."""
    if cluster is None:
        return None
    found: dict[PodRef, PodOwner | None] = {}
    turn = asyncio.Semaphore(PODS_AT_ONCE)

    async def ask(pod: PodRef) -> None:
        async with turn:
            with suppress(AgentError):
                found[pod] = await cluster.owner(pod.ref)

    with suppress(TimeoutError):
        async with asyncio.timeout(OWNERS_TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            for pod in pods[:MOST_PODS_ASKED]:
                group.create_task(ask(pod))
    return found

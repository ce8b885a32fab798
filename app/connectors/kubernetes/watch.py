"""Reports changed services from the view that the watches of a cluster keep.

Called by the worker that watches the cluster. It keeps the promise of
`ClusterWatch` that an event may be repeated but is never lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from app.agent.ports.cluster import ClusterEvent
from app.clock import Clock
from app.connectors.kubernetes.reading.view import ClusterView


class KubernetesWatch:
    """`ClusterWatch` over the kinds of the view, in the watched namespaces."""

    def __init__(self, view: ClusterView, clock: Clock) -> None:
        self._view = view
        self._clock = clock

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        async with self._view.followed() as feed:
            while True:
                await feed.wait()
                await self._clock.sleep(self._view.timing.coalesce_seconds)
                self._view.report()
                for key, urgent in feed.take():
                    yield ClusterEvent(key=key, urgent=urgent)

"""Follows several clusters at once: one task for each, started again on its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from app.agent.guardrails.limits.clusters import Clusters, in_words
from app.agent.ports.cluster import ClusterEvent, ClusterWatch
from app.clock import Clock
from app.errors import AgentError

log = logging.getLogger(__name__)

PAUSE_AFTER_ERROR_SECONDS = 5.0
_WAITING = 1_000
"""Events that wait for the reader before the watches wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedWatch:
    """`ClusterWatch` over several clusters; one that does not answer delays no other."""

    clusters: Clusters
    watches: Mapping[str, ClusterWatch]
    clock: Clock

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        """The events of every cluster, without end; an error that is no `AgentError` ends all of them."""
        queue: asyncio.Queue[ClusterEvent | Exception] = asyncio.Queue(_WAITING)
        tasks = [
            asyncio.create_task(self._follow(name, watch, queue), name=f"watch {name}")
            for name, watch in self.watches.items()
        ]
        try:
            while True:
                found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(
        self, name: str, watch: ClusterWatch, queue: asyncio.Queue[ClusterEvent | Exception]
    ) -> None:
        while True:
            try:
                async for event in watch.events():
                    if self.clusters.of(event.key.environment) == name:
                        await queue.put(event)
            except AgentError as error:
                log.warning("watch of %s failed: %s", in_words(name), error)
            except Exception as error:  # noqa: BLE001 - raised again where the events are read
                await queue.put(error)
                return
            await self.clock.sleep(PAUSE_AFTER_ERROR_SECONDS)

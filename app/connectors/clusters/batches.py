"""Jobs and CronJobs of several clusters, read as those of one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from app.agent.batch.runs import BatchRun, BatchView, EndedContainer
from app.agent.ids import ServiceKey
from app.agent.ports.cluster import BatchReader
from app.connectors.clusters.listing import ClusterLists
from app.connectors.clusters.routes import Routes, in_cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedBatches:
    """`BatchReader` over several clusters."""

    routes: Routes[BatchReader]
    _listing: ClusterLists[BatchView] = field(default_factory=ClusterLists)

    async def batches(self) -> tuple[BatchView, ...]:
        """The batches of every cluster; of one that does not answer, as they were listed last."""
        return await self._listing.of_all({name: partial(self._of, name) for name in self.routes.ports})

    async def _of(self, name: str) -> tuple[BatchView, ...]:
        found = await self.routes.ports[name].batches()
        own = (one for one in found if self.routes.clusters.of(one.key.environment) == name)
        return tuple(_placed(one, name) for one in own)

    async def batch(self, key: ServiceKey) -> BatchView | None:
        found = self.routes.of_service(key)
        if found is None:
            return None
        name, reader = found
        view = await reader.batch(key)
        return None if view is None else _placed(view, name)

    async def failures(self, batch: BatchView, run: BatchRun) -> tuple[EndedContainer, ...]:
        found = self.routes.of_service(batch.key)
        if found is None:
            return ()
        name, reader = found
        ended = await reader.failures(batch, run)
        return tuple(replace(one, pod=in_cluster(one.pod, name)) for one in ended)


def _placed(batch: BatchView, cluster: str) -> BatchView:
    return replace(batch, ref=in_cluster(batch.ref, cluster))

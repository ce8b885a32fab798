"""Jobs and CronJobs of several clusters, read as those of one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
        found = await self._listing.of_all(self.routes, lambda port: port.batches(), lambda one: one.key)
        return tuple(_placed(one, self.routes.clusters.of(one.key.environment)) for one in found)

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

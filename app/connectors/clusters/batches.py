"""Jobs and CronJobs of several clusters, read as those of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import msgspec

from app.agent.batch.runs import BatchView
from app.agent.ids import ServiceKey
from app.agent.ports.cluster import BatchReader
from app.connectors.clusters.routes import Routes
from app.errors import AgentError, TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedBatches:
    """`BatchReader` over several clusters."""

    routes: Routes[BatchReader]
    _listed: dict[str, tuple[BatchView, ...]] = field(default_factory=dict)
    """What each cluster listed last."""

    async def batches(self) -> tuple[BatchView, ...]:
        """The batches of every cluster; of one that does not answer, as they were listed last.

        Raises only where no cluster lists them: what one answered, before the silence of others.
        """
        names = tuple(self.routes.ports)
        answers = await asyncio.gather(*(self._list(name) for name in names))
        failed = [error for error in answers if error is not None]
        if failed and len(failed) == len(names):
            raise next((error for error in failed if not isinstance(error, TransientError)), failed[0])
        return tuple(batch for name in names for batch in self._listed.get(name, ()))

    async def _list(self, name: str) -> AgentError | None:
        try:
            found = await self.routes.ports[name].batches()
        except AgentError as error:
            return error
        own = (one for one in found if self.routes.clusters.of(one.key.environment) == name)
        self._listed[name] = tuple(_placed(one, name) for one in own)
        return None

    async def batch(self, key: ServiceKey) -> BatchView | None:
        found = self.routes.of_service(key)
        if found is None:
            return None
        name, reader = found
        view = await reader.batch(key)
        return None if view is None else _placed(view, name)


def _placed(batch: BatchView, cluster: str) -> BatchView:
    return replace(batch, ref=msgspec.structs.replace(batch.ref, cluster=cluster))

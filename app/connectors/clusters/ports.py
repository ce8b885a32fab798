"""The cluster ports over several clusters.

Each call goes to one cluster and fails with that cluster alone. What a cluster returns
names it: its adapters know no names of clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.limits.clusters import UNNAMED, in_words
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, Rehearsal, Snapshot
from app.agent.ports.cluster import (
    ClusterReader,
    ClusterRehearsal,
    ClusterWriter,
    ContainerLogs,
    PodOwner,
    PodOwners,
)
from app.agent.workload import ConfigRecord, LogTail, ObjectRef, TargetState, WorkloadView
from app.connectors.clusters.listing import ClusterLists
from app.connectors.clusters.routes import Routes, in_cluster

_Placed = TypeVar("_Placed", TargetState, Snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedReader:
    """`ClusterReader` over several clusters."""

    routes: Routes[ClusterReader]
    _listing: ClusterLists[ServiceKey] = field(default_factory=ClusterLists)

    def faults(self) -> Mapping[str, str | None]:
        """Of each cluster, why it did not list its services when it was last asked; None if it did."""
        return self._listing.faults()

    async def services(self) -> tuple[ServiceKey, ...]:
        """The services of every cluster; of one that does not answer, those that it listed last."""
        return await self._listing.of_all(self.routes, lambda port: port.services(), lambda key: key)

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        found = self.routes.of_service(key)
        if found is None:
            return None
        name, reader = found
        view = await reader.workload(key)
        return None if view is None else replace(view, target=_placed(view.target, name))

    async def target(self, action: Action) -> TargetState:
        found = await self.routes.of_action(action).target(action)
        return _placed(found, _cluster(action))

    async def snapshot(self, action: Action) -> Snapshot:
        return _placed(await self.routes.of_action(action).snapshot(action), _cluster(action))

    async def disruption(self, action: Action) -> Disruption | None:
        return await self.routes.of_action(action).disruption(action)

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        return await self.routes.of_object(node).cordons(node)

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        found = await self.routes.of_object(node).load(node, rooms=rooms)
        pods = tuple(replace(pod, ref=in_cluster(pod.ref, node.cluster)) for pod in found.pods)
        return replace(found, pods=pods)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        reader, cluster = self.routes.of_action(action), _cluster(action)
        found = await reader.opt_out(_within(action), key)
        return replace(
            found,
            refused_by=tuple(_named(one, cluster) for one in found.refused_by),
            given_by=tuple(_named(one, cluster) for one in found.given_by),
        )

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        found = self.routes.of_service(key)
        return () if found is None else await found[1].config_contents(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedRehearsal:
    """`ClusterRehearsal` over several clusters."""

    routes: Routes[ClusterRehearsal]

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        return await self.routes.of_object(target.ref).rehearse(action, target, snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedWriter:
    """`ClusterWriter` over several clusters; constructed only when `DRY_RUN=false`."""

    routes: Routes[ClusterWriter]

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        after = await self.routes.of_object(target.ref).apply(action, intent_id, target, snapshot)
        return _placed(after, target.ref.cluster)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedOwners:
    """`PodOwners` over several clusters."""

    routes: Routes[PodOwners]

    async def owner(self, pod: ObjectRef) -> PodOwner | None:
        return await self.routes.of_object(pod).owner(pod)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedLogs:
    """`ContainerLogs` over several clusters."""

    routes: Routes[ContainerLogs]

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        return await self.routes.of_object(pod).tail(pod, container, previous=previous)


def _placed(found: _Placed, cluster: str) -> _Placed:
    return replace(found, ref=in_cluster(found.ref, cluster))


def _within(action: Action) -> Action:
    """The action as the cluster alone knows it."""
    target = action.target
    return action if target is None else replace(action, target=in_cluster(target, UNNAMED))


def _named(what: str, cluster: str) -> str:
    return f"{what} in {in_words(cluster)}" if cluster else what


def _cluster(action: Action) -> str:
    return UNNAMED if action.target is None else action.target.cluster

"""Connects the clusters that the settings name, and puts them behind the ports of one.

Each has connections, a circuit breaker and a watch of its own. One cluster without a
name is connected as it is; several are behind `app.connectors.clusters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.agent.guardrails.limits.clusters import Clusters, in_words
from app.agent.ports.cluster import (
    BatchReader,
    ClusterCoverage,
    ClusterReader,
    ClusterRehearsal,
    ClusterWatch,
    ClusterWriter,
    ContainerLogs,
    PodOwners,
)
from app.clock import Clock
from app.config import Settings
from app.connectors.clusters.batches import RoutedBatches
from app.connectors.clusters.connect import connect_named
from app.connectors.clusters.ports import (
    RoutedLogs,
    RoutedOwners,
    RoutedReader,
    RoutedRehearsal,
    RoutedWriter,
)
from app.connectors.clusters.routes import Routes
from app.connectors.clusters.watch import RoutedWatch
from app.connectors.k8s import KubernetesCluster
from app.connectors.peer_breaker import (
    PeerBreaker,
    guarded_jobs,
    guarded_owners,
    guarded_reader,
    guarded_rehearsal,
)
from app.connectors.readiness import ConnectedCluster
from app.terms.clusters import clusters_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSide:
    """The cluster ports over every connected cluster; no writer in a dry run (promise 5)."""

    reader: ClusterReader
    steady: ClusterReader
    owners: PodOwners
    rehearsal: ClusterRehearsal
    writer: ClusterWriter | None
    logs: ContainerLogs | None
    batches: BatchReader | None
    """None unless WATCH_JOBS is set."""
    watch: ClusterWatch
    coverage: ClusterCoverage | None
    """Of the one cluster without a name; None where there are several."""
    each: Mapping[str, ConnectedCluster]
    """By name; empty where the one cluster has none."""
    ages: Callable[[], Mapping[str, Mapping[str, float]]]
    """Seconds since each API server last sent something, by cluster and kind."""
    faults: Callable[[], Mapping[str, str | None]]
    """Of each of several clusters, why it did not list its services when last asked."""
    peers: tuple[PeerBreaker, ...]
    opened: tuple[KubernetesCluster, ...]

    async def close(self) -> None:
        """Close every connection to every cluster."""
        for cluster in self.opened:
            await cluster.close()


def connect_clusters(settings: Settings, clock: Clock) -> ClusterSide | None:
    """The clusters of the settings, without asking them anything yet; None where they name none.

    Raises `ConfigurationError` for settings or kubeconfigs that cannot work.
    """
    found = connect_named(settings, clock)
    return _side(clusters_of(settings), found, clock) if found else None


def _side(clusters: Clusters, found: Mapping[str, KubernetesCluster], clock: Clock) -> ClusterSide:
    breakers = {name: PeerBreaker(name=in_words(name)) for name in found}
    readers = {name: guarded_reader(one.reader, breakers[name]) for name, one in found.items()}
    owners = {name: guarded_owners(one.reader, breakers[name]) for name, one in found.items()}
    rehearsals = {name: guarded_rehearsal(one.rehearsal, breakers[name]) for name, one in found.items()}
    steady: dict[str, ClusterReader] = {name: one.steady for name, one in found.items()}
    watches: dict[str, ClusterWatch] = {name: one.watch for name, one in found.items()}
    writers: dict[str, ClusterWriter] = {
        name: one.writer for name, one in found.items() if one.writer is not None
    }
    logs: dict[str, ContainerLogs] = {name: one.logs for name, one in found.items() if one.logs is not None}
    batches: dict[str, BatchReader] = {
        name: guarded_jobs(one.batches, breakers[name])
        for name, one in found.items()
        if one.batches is not None
    }
    peers, opened = tuple(breakers.values()), tuple(found.values())

    def ages() -> Mapping[str, Mapping[str, float]]:
        return {name: one.ages() for name, one in found.items()}

    if tuple(found) == ("",):
        [one] = found.values()
        return ClusterSide(
            reader=readers[""],
            steady=one.steady,
            owners=owners[""],
            rehearsal=rehearsals[""],
            writer=one.writer,
            logs=one.logs,
            batches=batches.get(""),
            watch=one.watch,
            coverage=one.reader,
            each={},
            ages=ages,
            faults=dict,
            peers=peers,
            opened=opened,
        )
    looked_at = RoutedReader(routes=Routes(clusters=clusters, ports=steady))
    return ClusterSide(
        reader=RoutedReader(routes=Routes(clusters=clusters, ports=readers)),
        steady=looked_at,
        owners=RoutedOwners(routes=Routes(clusters=clusters, ports=owners)),
        rehearsal=RoutedRehearsal(routes=Routes(clusters=clusters, ports=rehearsals)),
        writer=RoutedWriter(routes=Routes(clusters=clusters, ports=writers)) if writers else None,
        logs=RoutedLogs(routes=Routes(clusters=clusters, ports=logs)) if logs else None,
        batches=RoutedBatches(routes=Routes(clusters=clusters, ports=batches)) if batches else None,
        watch=RoutedWatch(clusters=clusters, watches=watches, clock=clock),
        coverage=None,
        each={
            name: ConnectedCluster(reader=readers[name], coverage=one.reader) for name, one in found.items()
        },
        ages=ages,
        faults=looked_at.faults,
        peers=peers,
        opened=opened,
    )

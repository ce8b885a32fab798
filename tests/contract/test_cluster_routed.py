"""Several clusters behind the router keep the promises of the cluster ports, while one of them is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.ports.cluster import (
    BatchReader,
    ClusterEvent,
    ClusterReader,
    ClusterRehearsal,
    ClusterWatch,
    ClusterWriter,
    ContainerLogs,
    PodOwners,
)
from app.clock import SystemClock
from app.connectors.clusters.batches import RoutedBatches
from app.connectors.clusters.ports import (
    RoutedLogs,
    RoutedOwners,
    RoutedReader,
    RoutedRehearsal,
    RoutedWriter,
)
from app.connectors.clusters.routes import Routes
from app.connectors.clusters.watch import RoutedWatch
from tests.contract.cluster_harness import ClusterPorts
from tests.contract.cluster_suite import *  # noqa: F403 - the shared contract
from tests.contract.hands_suite import *  # noqa: F403 - the same for what is no workload
from tests.contract.jobs_suite import *  # noqa: F403 - the same for Jobs
from tests.contract.kinds_suite import *  # noqa: F403 - the same for each kind
from tests.contract.logs_suite import *  # noqa: F403 - the logs of containers
from tests.contract.routes_suite import *  # noqa: F403 - Services and network policies
from tests.contract.test_cluster_sandbox import DEADLINE_SECONDS, SandboxHarness
from tests.silent_cluster import SilentCluster

CLUSTERS = Clusters(environments={"prod": "east", "prod-west": "west"})


def _routed(ports: ClusterPorts) -> ClusterPorts:
    """The ports of `east` beside a cluster `west` that does not answer."""
    down = SilentCluster()
    readers: dict[str, ClusterReader] = {"west": down, "east": ports.reader}
    rehearsals: dict[str, ClusterRehearsal] = {"west": down, "east": ports.rehearsal}
    writers: dict[str, ClusterWriter] = {"west": down, "east": ports.writer}
    watches: dict[str, ClusterWatch] = {"west": down, "east": ports.watch}
    owners: dict[str, PodOwners] = {"west": down, "east": ports.owners}
    batches: dict[str, BatchReader] = {"west": down, "east": ports.batches}
    logs: dict[str, ContainerLogs] = {"west": down, "east": ports.logs}
    return ClusterPorts(
        reader=RoutedReader(routes=Routes(clusters=CLUSTERS, ports=readers)),
        rehearsal=RoutedRehearsal(routes=Routes(clusters=CLUSTERS, ports=rehearsals)),
        writer=RoutedWriter(routes=Routes(clusters=CLUSTERS, ports=writers)),
        watch=RoutedWatch(clusters=CLUSTERS, watches=watches, clock=SystemClock()),
        owners=RoutedOwners(routes=Routes(clusters=CLUSTERS, ports=owners)),
        coverage=ports.coverage,
        batches=RoutedBatches(routes=Routes(clusters=CLUSTERS, ports=batches)),
        logs=RoutedLogs(routes=Routes(clusters=CLUSTERS, ports=logs)),
    )


class RoutedHarness(SandboxHarness):
    """The world is cluster `east`; everything is asked through the router."""

    cluster = "east"

    def __init__(self) -> None:
        super().__init__()
        self.ports, self.without_pods, self.powerless = (
            _routed(ports) for ports in (self.ports, self.without_pods, self.powerless)
        )


@pytest.fixture
async def cluster() -> RoutedHarness:
    return RoutedHarness()


async def test_a_watch_without_rights_fails_aloud(  # type: ignore[no-redef] # in place of the suite's
    cluster: RoutedHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """One cluster's missing right is logged with its name, and does not end the watch of the others."""
    [event] = [one async for one in _first(cluster, 1)]
    assert event.key == ServiceKey(environment="prod", service="shop")
    assert "watch of cluster west failed: the API server does not answer" in caplog.text


async def _first(cluster: RoutedHarness, count: int) -> AsyncIterator[ClusterEvent]:
    await cluster.deploy("shop", service="shop")
    events = cluster.ports.watch.events()
    async with asyncio.timeout(DEADLINE_SECONDS), aclosing(events):  # type: ignore[type-var] # a generator
        async for event in events:
            yield event
            count -= 1
            if not count:
                return

"""Two clusters behind one agent: one is down, and the services of the other are healed all the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import DecisionKind, Deploy, DeployStatus, IncidentState, OutcomeKind
from app.agent.observer import Observer
from app.agent.ports.cluster import ClusterReader, ClusterRehearsal, ClusterWriter
from app.bootstrap import Adapters
from app.connectors.clusters.ports import RoutedReader, RoutedRehearsal, RoutedWriter
from app.connectors.clusters.routes import Routes
from app.store import open_store
from app.testing import Naming, SandboxCluster, SandboxMetrics, Template, VirtualClock, Workload, World
from tests.silent_cluster import SilentCluster
from tests.stories import ACTING, KEY, NAMESPACE, messages, story

CLUSTERS = Clusters(environments={NAMESPACE: "east", "prod-west": "west"})
SETTINGS: dict[str, Any] = {
    "clusters": {
        "east": {"kubeconfig": "east.yaml", "environment_namespaces": {NAMESPACE: NAMESPACE}},
        "west": {"kubeconfig": "west.yaml", "environment_namespaces": {"prod-west": NAMESPACE}},
    }
}
WEST = ServiceKey(environment="prod-west", service=KEY.service)


def beside(west: SilentCluster) -> Any:
    """The simulated world as cluster `east`, beside `west`."""

    def connected(world: Adapters) -> Adapters:
        assert world.reader is not None
        assert world.rehearsal is not None
        assert world.writer is not None
        readers: dict[str, ClusterReader] = {"east": world.reader, "west": west}
        rehearsals: dict[str, ClusterRehearsal] = {"east": world.rehearsal, "west": west}
        writers: dict[str, ClusterWriter] = {"east": world.writer, "west": west}
        return replace(
            world,
            reader=RoutedReader(routes=Routes(clusters=CLUSTERS, ports=readers)),
            rehearsal=RoutedRehearsal(routes=Routes(clusters=CLUSTERS, ports=rehearsals)),
            writer=RoutedWriter(routes=Routes(clusters=CLUSTERS, ports=writers)),
        )

    return connected


async def test_a_cluster_that_is_down_does_not_stop_the_other(tmp_path: Path) -> None:
    """The bad release in `east` is rolled back; of `west` nothing is read, and nothing is done."""
    west = SilentCluster()
    async with story(tmp_path, connected=beside(west), **ACTING, **SETTINGS) as stage:
        stage.deploy()
        await stage.live(180)
        failed = Deploy(version="2", status=DeployStatus.FAILED)
        await stage.tell(failed, key=WEST)
        stage.world.release(NAMESPACE, KEY.service, "shop:2-crash")
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, told
        assert stage.image() == "shop:1"
        [intent] = [one for one in record.intents if one.started_at is not None]
        assert intent.action.target is not None
        assert str(intent.action.target) == "Deployment prod/shop in cluster east"
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.DONE
        assert intent.decision.kind is DecisionKind.ALLOW

        other = await stage.newest(WEST)
        assert other is not None
        assert not [one for one in other.intents if one.started_at is not None], messages(other.timeline)
        assert not [call for call in west.asked if call.startswith("apply")]
        assert f"workload {WEST}" in west.asked


async def test_series_that_end_in_one_cluster_are_a_fault_of_its_telemetry(tmp_path: Path) -> None:
    """Its services are few among all, and still the agent must not act on any of them (promise 8)."""
    few, many = ("one", "two", "three"), ("four", "five", "six", "seven")
    world = World(VirtualClock(), seed=1)
    for place, services in (("east", few), ("west", many)):
        for name in services:
            world.deploy(
                Workload(namespace=place, name=name, service=name, template=Template(image=f"{name}:1"))
            )
    naming = Naming(namespaces={"prod-east": "east", "prod-west": "west"})
    assert isinstance(world.clock, VirtualClock)
    await world.clock.advance(300)
    world.lose_telemetry(*(("east", name) for name in few))
    await world.clock.advance(120)
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    observer = Observer(
        store=store,
        reader=SandboxCluster.over(world, naming=naming).reader,
        metrics=SandboxMetrics(world, naming=naming),
        lookback=timedelta(hours=1),
        dependencies={},
        clusters=Clusters(environments={"prod-east": "east", "prod-west": "west"}),
    )
    found = {}
    for place, service in (("east", "one"), ("west", "four")):
        key = ServiceKey(environment=f"prod-{place}", service=service)
        health = await observer.telemetry(key, world.clock.now(), [])
        assert health is not None
        found[place] = (health.outage, health.silent_services, health.known_services)
    await store.close()
    assert found == {"east": (True, 3, 3), "west": (False, 0, 4)}

"""Several clusters behind the ports: each call goes to one of them, and fails with that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import TELEMETRY_SOURCES, Action, ActionName, Risk, cluster_source
from app.agent.planner import plan_hash
from app.agent.ports.cluster import ClusterEvent, ClusterReader, ClusterWriter
from app.agent.workload import ObjectRef
from app.connectors.clusters.ports import RoutedReader, RoutedWriter
from app.connectors.clusters.routes import Routes
from app.connectors.clusters.watch import RoutedWatch
from app.connectors.readiness import ConnectedCluster, clusters_ready
from app.errors import PermanentError, TransientError
from app.store.database.codec import dumps
from app.testing import Naming, SandboxCluster, Template, VirtualClock, Workload, World
from tests.silent_cluster import SilentCluster

CLUSTERS = Clusters(environments={"prod-east": "east", "prod-west": "west"})
EAST, WEST = (ServiceKey(environment=name, service="shop") for name in ("prod-east", "prod-west"))


def cordon(node: str, cluster: str) -> Action:
    return Action(
        name=ActionName.CORDON,
        risk=Risk.MEDIUM,
        target=ObjectRef(kind="Node", namespace="", name=node, cluster=cluster),
        parameters={"namespace": "shop"},
        expected_effect="no more pods",
        undo="uncordon",
        leaves="schedulable",
        reaches="cordoned",
    )


def world_of(environment: str) -> tuple[World, SandboxCluster]:
    """A cluster with the service shop in namespace shop, as the other one has it."""
    world = World(VirtualClock(), seed=1)
    world.deploy(Workload(namespace="shop", name="shop", service="shop", template=Template(image="shop:1")))
    return world, SandboxCluster.over(world, naming=Naming(namespaces={environment: "shop"}))


def clock_of(world: World) -> VirtualClock:
    assert isinstance(world.clock, VirtualClock)
    return world.clock


def routed(**ports: ClusterReader) -> RoutedReader:
    return RoutedReader(routes=Routes(clusters=CLUSTERS, ports=ports))


async def test_one_name_in_two_clusters_is_two_services_and_two_nodes() -> None:
    """A cordon in one cluster leaves the node of that name in the other alone."""
    (east_world, east), (west_world, west) = world_of("prod-east"), world_of("prod-west")
    reader = routed(east=east.reader, west=west.reader)
    assert set(await reader.services()) == {EAST, WEST}
    view = await reader.workload(WEST)
    assert view is not None
    assert str(view.target.ref) == "Deployment shop/shop in cluster west"
    node = west_world.nodes[0]
    assert node == east_world.nodes[0]
    writers: dict[str, ClusterWriter] = {"east": east.writer(), "west": west.writer()}
    action = cordon(node, "west")
    before = await reader.target(action)
    assert before.ref == action.target
    writer = RoutedWriter(routes=Routes(clusters=CLUSTERS, ports=writers))
    after = await writer.apply(action, IntentId("intent-1"), before, await reader.snapshot(action))
    assert after.ref == action.target
    assert (west_world.node(node).unschedulable, east_world.node(node).unschedulable) == (True, False)
    assert action.target is not None
    assert (await reader.cordons(action.target)).own == (node,)
    east_node = ObjectRef(kind="Node", namespace="", name=node, cluster="east")
    assert (await reader.cordons(east_node)).cordoned == ()
    await clock_of(east_world).advance(60)
    nodes = [ObjectRef(kind="Node", namespace="", name=name, cluster="east") for name in east_world.nodes]
    loads = [await reader.load(one, rooms=False) for one in nodes]
    assert {pod.ref.cluster for load in loads for pod in load.pods} == {"east"}


async def test_a_cluster_that_is_down_fails_alone() -> None:
    """What it listed last stays known; its own calls fail; none answering is a failure of all."""
    world, east = world_of("prod-east")
    down, switch = SilentCluster(), world_of("prod-west")[1].reader
    west: dict[str, ClusterReader] = {"east": east.reader, "west": switch}
    reader = RoutedReader(routes=Routes(clusters=CLUSTERS, ports=west))
    assert set(await reader.services()) == {EAST, WEST}
    west["west"] = down
    assert set(await reader.services()) == {EAST, WEST}
    assert reader.faults() == {"east": None, "west": "the API server does not answer: ConnectTimeout"}
    assert (await reader.workload(EAST)) is not None
    with pytest.raises(TransientError):
        await reader.workload(WEST)
    with pytest.raises(TransientError):
        await reader.target(cordon(world.nodes[0], "west"))
    west["east"] = down
    with pytest.raises(TransientError):
        await reader.services()


async def test_a_cluster_that_is_configured_no_more_is_not_replaced_by_another() -> None:
    """A record names it; to ask the cluster that is left would touch an object of that name there."""
    world, east = world_of("prod-east")
    reader = routed(east=east.reader)
    for cluster, said in (("north", "which CLUSTERS does not have"), ("", "which is not connected")):
        with pytest.raises(PermanentError, match=said):
            await reader.target(cordon(world.nodes[0], cluster))
    assert await reader.workload(WEST) is None
    assert await reader.workload(ServiceKey(environment="prod", service="shop")) is None


async def test_a_cluster_cannot_speak_for_the_environment_of_another() -> None:
    """Services and events of environments that the settings give to another cluster are left out."""
    impostor = world_of("prod-west")[1]
    assert await routed(east=impostor.reader).services() == ()


class Restarts:
    """A watch that fails once after each event."""

    def __init__(self, key: ServiceKey) -> None:
        self.key = key
        self.begun = 0

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        self.begun += 1
        yield ClusterEvent(key=self.key)
        raise TransientError("connection closed by peer")


async def test_each_watch_is_started_again_on_its_own() -> None:
    """The events of one go on while the other gives none."""
    clock, east, west = VirtualClock(), Restarts(EAST), SilentCluster()
    watch = RoutedWatch(clusters=CLUSTERS, watches={"east": east, "west": west}, clock=clock)
    seen: list[ServiceKey] = []
    async with asyncio.timeout(60), aclosing(watch.events()) as events:
        async for event in events:
            seen.append(event.key)
            if len(seen) == 3:
                break
            await asyncio.sleep(0)
            await clock.advance(10)
    assert seen == [EAST] * 3
    assert east.begun >= 3
    assert west.asked.count("events") >= 2


async def test_an_error_of_the_program_ends_the_watch() -> None:
    """It is raised where the events are read, not lost in a task."""

    class Broken:
        async def events(self) -> AsyncGenerator[ClusterEvent, None]:
            raise KeyError("a bug")
            yield ClusterEvent(key=EAST)

    watch = RoutedWatch(clusters=CLUSTERS, watches={"east": Broken()}, clock=VirtualClock())
    with pytest.raises(KeyError):
        async with asyncio.timeout(60):
            await anext(watch.events())


async def test_readiness_names_a_cluster_that_is_down_and_fails_where_none_answers() -> None:
    """One of two down: ready, with a remark; both down: not ready."""
    east = world_of("prod-east")[1].reader
    down = SilentCluster()
    up = ConnectedCluster(reader=east, coverage=east)
    silent = ConnectedCluster(reader=down, coverage=east)
    checks = dict(clusters_ready({"east": up, "west": silent}))
    assert await checks["cluster east"]() is None
    said = await checks["cluster west"]()
    assert said is not None
    assert said.startswith("unreachable, and its services are not looked after")
    for check in dict(clusters_ready({"east": silent, "west": silent})).values():
        with pytest.raises(TransientError):
            await check()


def test_records_of_a_cluster_without_a_name_are_as_they_were() -> None:
    """Neither the stored form nor the hash of a plan has a field for it; a name changes the hash."""
    plain, named = cordon("node-1", ""), cordon("node-1", "west")
    assert dumps(plain.target) == '{"kind":"Node","namespace":"","name":"node-1"}'
    assert dumps(named.target) == '{"kind":"Node","namespace":"","name":"node-1","cluster":"west"}'
    assert plan_hash(None, (plain,)) == "647bd1eb657b9290679fb950d8d5ce8eb4860890d4f898de742018ae4b60d99d"
    assert plan_hash(None, (named,)) != plan_hash(None, (plain,))


def test_a_service_is_never_taken_for_the_api_server_of_a_cluster() -> None:
    """An environment may be called telemetry, and a service of it cluster-agent."""
    assert cluster_source("agent") in TELEMETRY_SOURCES
    assert cluster_source("") in TELEMETRY_SOURCES
    assert ServiceKey(environment="telemetry", service="cluster-agent") not in TELEMETRY_SOURCES
    assert ServiceKey(environment="prod", service="cluster:agent") not in TELEMETRY_SOURCES

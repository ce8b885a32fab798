"""What the Kubernetes connector makes of a real API server behind a network that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment

from app.agent.models import ActionName
from app.bounds.backoff import Backoff
from app.clock import SystemClock
from app.connectors.k8s import KubernetesCluster, connect
from app.connectors.kubernetes.api import Connection, ReadApi
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.reading.informer import WatchTiming
from app.connectors.kubernetes.reading.objects import LiveObjects
from app.connectors.kubernetes.reading.view import ClusterView
from app.connectors.kubernetes.watch import KubernetesWatch
from app.errors import Conflict, Forbidden, TransientError, UnknownOutcome
from testbed.rbac import AGENT, READONLY
from testbed.world import TestBed
from tests.contract.cluster_suite import (
    INTENT,
    Listening,
    action,
    deploy_shop,
    deployment,
    key_of,
    view_of,
)
from tests.contract.kubernetes_harness import KubernetesHarness, cluster_for, settings_for
from tests.contract.loopback import Answer, Fate, Loopback, Request, kubeconfig_for, loopback, relay, status

pytestmark = pytest.mark.real

FAST = WatchTiming(coalesce_seconds=0.05, stream_seconds=30, backoff=Backoff.of_seconds(0.1, 0.5))


@pytest.fixture
async def cluster(testbed_world: TestBed, namespace: str) -> AsyncIterator[KubernetesHarness]:
    """A fresh namespace, reached without a detour."""
    harness = KubernetesHarness(testbed_world, namespace)
    yield harness
    await harness.close()


@pytest.fixture
async def network(testbed_world: TestBed) -> AsyncIterator[Loopback]:
    """The network between the agent and the API server."""
    async with loopback(kubeconfig=testbed_world.control_plane.kubeconfig(AGENT)) as made:
        yield made


@asynccontextmanager
async def agent_behind(
    network: Loopback, cluster: KubernetesHarness, folder: Path, *, timeout_seconds: float = 10.0
) -> AsyncIterator[KubernetesCluster]:
    """The agent's ports, behind that network."""
    like = cluster.bed.control_plane.kubeconfig(AGENT)
    kubeconfig = kubeconfig_for(network.url, folder, like=like)
    settings = settings_for(
        cluster.bed,
        cluster.namespace,
        AGENT,
        kubeconfig=kubeconfig,
        kube_timeout_seconds=timeout_seconds,
    )
    made = connect(settings, SystemClock())
    assert made is not None
    yield made
    await made.close()


def on_patch(fate: Fate) -> Callable[[Request], Fate]:
    return lambda request: fate if request.method == "PATCH" else Fate.RELAY


def patches_of(cluster: KubernetesHarness) -> int:
    """How many patches of this namespace's Deployments persisted, by the API server's own audit log."""
    return sum(
        event.verb == "patch"
        and event.namespace == cluster.namespace
        and event.resource == "deployments"
        and event.user == AGENT
        and event.effective
        for event in cluster.bed.control_plane.audit_events()
    )


# ------------------------------------------------------------------ preconditions


async def test_the_api_server_itself_refuses_a_stale_version_and_another_uid(
    cluster: KubernetesHarness,
) -> None:
    """The preconditions in the patch work without any check of our own before it."""
    await deploy_shop(cluster)
    await cluster.quiet()
    found = await cluster.ports.reader.target(action(ActionName.PAUSE, deployment(cluster)))
    for uid, version in ((found.uid, "1"), ("0" * 8 + found.uid[8:], found.resource_version)):
        operations: list[dict[str, object]] = [
            {"op": "replace", "path": "/metadata/uid", "value": uid},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/spec/paused", "value": True},
        ]
        with pytest.raises(ApiError) as refusal:
            cluster.patch(Deployment, "shop", operations)
        assert refusal.value.status.code in (409, 422)
    assert not (await view_of(cluster)).paused


async def test_a_write_that_loses_the_race_at_the_server_is_a_conflict(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """The object moves after the writer looked and before its patch arrives."""
    await deploy_shop(cluster)
    await cluster.quiet()
    scale = action(ActionName.SCALE, deployment(cluster), replicas=5)
    target = await cluster.ports.reader.target(scale)

    def overtake(request: Request) -> Fate:
        if request.method == "PATCH":
            cluster.client.set(Deployment, "shop", namespace=cluster.namespace, annotations={"a": "b"})
        return Fate.RELAY

    network.rule = overtake
    async with agent_behind(network, cluster, tmp_path) as agent:
        assert agent.writer is not None
        with pytest.raises(Conflict):
            await agent.writer.apply(scale, INTENT, target, None)
    assert (await view_of(cluster)).desired_replicas == 2
    assert patches_of(cluster) == 0


async def test_an_intent_is_not_applied_again_on_a_later_state(cluster: KubernetesHarness) -> None:
    """Two writes for one intent, even with another read in between, have one effect."""
    await deploy_shop(cluster)
    await cluster.quiet()
    restart = action(ActionName.RESTART, deployment(cluster))
    await cluster.ports.writer.apply(restart, INTENT, await cluster.ports.reader.target(restart), None)
    await cluster.quiet()
    with pytest.raises(Conflict, match="already"):
        await cluster.ports.writer.apply(restart, INTENT, await cluster.ports.reader.target(restart), None)
    assert patches_of(cluster) == 1


# ------------------------------------------------------------------ rights


async def test_reading_rights_alone_rehearse_and_write_nothing(
    cluster: KubernetesHarness, testbed_world: TestBed
) -> None:
    """An agent with read rights only gets a refusal of its patch, in dry run and with writes allowed."""
    await deploy_shop(cluster)
    await cluster.quiet()
    readonly = cluster_for(testbed_world, cluster.namespace, READONLY)
    assert readonly.writer is not None
    scale = action(ActionName.SCALE, deployment(cluster), replicas=5)
    target = await readonly.reader.target(scale)
    answer = await readonly.rehearsal.rehearse(scale, target, None)
    assert not answer.accepted
    assert f"cannot patch deployments {cluster.namespace}/shop" in answer.message
    with pytest.raises(Forbidden, match=f"cannot patch deployments {cluster.namespace}/shop"):
        await readonly.writer.apply(scale, INTENT, target, None)
    await readonly.close()
    assert (await view_of(cluster)).desired_replicas == 2


async def test_an_identity_the_server_does_not_know_is_forbidden(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """A wrong token is a missing right, not a reason to ask again and again."""
    kubeconfig = kubeconfig_for(network.url, tmp_path)
    settings = settings_for(cluster.bed, cluster.namespace, AGENT, kubeconfig=kubeconfig)
    stranger = connect(settings, SystemClock())
    assert stranger is not None
    with pytest.raises(Forbidden, match="identity"):
        await stranger.reader.workload(key_of(cluster))
    await stranger.close()


# ------------------------------------------------------------------ writes into a broken network


async def test_a_write_whose_answer_is_lost_is_unknown_and_leaves_its_marker(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """The effect is there once, and the marker says whose it is."""
    await deploy_shop(cluster)
    await cluster.quiet()
    scale = action(ActionName.SCALE, deployment(cluster), replicas=3)
    target = await cluster.ports.reader.target(scale)
    network.rule = on_patch(Fate.SWALLOW)
    async with agent_behind(network, cluster, tmp_path) as agent:
        assert agent.writer is not None
        with pytest.raises(UnknownOutcome, match="may have happened"):
            await agent.writer.apply(scale, INTENT, target, None)
    seen = await cluster.ports.reader.target(scale)
    assert seen.marker == INTENT
    assert patches_of(cluster) == 1


@pytest.mark.parametrize("fate", [Fate.CLOSE, Fate.HANG])
async def test_a_write_without_an_answer_is_unknown(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path, fate: Fate
) -> None:
    """This side cannot know whether the server saw it."""
    await deploy_shop(cluster)
    await cluster.quiet()
    scale = action(ActionName.SCALE, deployment(cluster), replicas=3)
    target = await cluster.ports.reader.target(scale)
    network.rule = on_patch(fate)
    async with agent_behind(network, cluster, tmp_path, timeout_seconds=2.0) as agent:
        assert agent.writer is not None
        with pytest.raises(UnknownOutcome):
            await agent.writer.apply(scale, INTENT, target, None)
        with pytest.raises(TransientError):
            await agent.rehearsal.rehearse(scale, target, None)
    assert (await cluster.ports.reader.target(scale)).marker is None


async def test_a_refused_connection_is_no_unknown_outcome(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """What was certainly not sent can be tried again."""
    await deploy_shop(cluster)
    await cluster.quiet()
    scale = action(ActionName.SCALE, deployment(cluster), replicas=3)
    target = await cluster.ports.reader.target(scale)

    def hang_up(request: Request) -> Fate:
        if request.method == "GET":
            network.stop_listening()
        return Fate.RELAY

    network.rule = hang_up
    async with agent_behind(network, cluster, tmp_path) as agent:
        assert agent.writer is not None
        with pytest.raises(TransientError, match="patch deployments"):
            await agent.writer.apply(scale, INTENT, target, None)
    assert [request.method for request in network.requests] == ["GET"]


# ------------------------------------------------------------------ a dry run


async def test_a_dry_run_has_no_writer_and_persists_nothing(cluster: KubernetesHarness) -> None:
    """Promise 5, as the API server's audit log and every resourceVersion tell it."""
    await deploy_shop(cluster)
    await cluster.quiet()
    before = await cluster.versions()
    dry = cluster_for(cluster.bed, cluster.namespace, AGENT, dry_run=True)
    assert dry.writer is None
    scale = action(ActionName.SCALE, deployment(cluster), replicas=5)
    answer = await dry.rehearsal.rehearse(scale, await dry.reader.target(scale), None)
    assert answer.accepted
    await dry.close()
    assert patches_of(cluster) == 0
    assert await cluster.versions() == before


# ------------------------------------------------------------------ the watch


class Watching:
    """A watch behind the network, listened to."""

    def __init__(
        self, network: Loopback, cluster: KubernetesHarness, folder: Path, timing: WatchTiming
    ) -> None:
        like = cluster.bed.control_plane.kubeconfig(AGENT)
        kubeconfig = kubeconfig_for(network.url, folder, like=like)
        config = load_config(settings_for(cluster.bed, cluster.namespace, AGENT, kubeconfig=kubeconfig))
        assert config is not None
        self._connection = Connection(config, timeout_seconds=1.0, dry_run=True)
        services = ServiceMap(environment_namespaces={"prod": cluster.namespace}, service_workloads={})
        clock = SystemClock()
        api = ReadApi(self._connection)
        live = LiveObjects(api, services, clock)
        view = ClusterView(lambda _: api, live, services, clock, timing=timing, jitter=lambda: 1.0)
        self.told = Listening(KubernetesWatch(view, clock).events())

    async def close(self) -> None:
        self.told.task.cancel()
        await asyncio.gather(self.told.task, return_exceptions=True)
        await self._connection.close()


@asynccontextmanager
async def watching(
    network: Loopback, cluster: KubernetesHarness, folder: Path, timing: WatchTiming = FAST
) -> AsyncIterator[Listening]:
    """A watch of a healthy `shop`, past its first events."""
    await deploy_shop(cluster, config={"mode": "fast"})
    await cluster.quiet()
    made = Watching(network, cluster, folder, timing)
    await made.told.until(key_of(cluster))
    await made.told.silence()
    yield made.told
    await made.close()


async def test_a_change_made_while_the_network_is_down_is_reported(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """Every stream is cut and nothing comes through for a while; afterwards nothing was lost."""
    async with watching(network, cluster, tmp_path) as told:
        network.rule = lambda _: Fate.CLOSE
        network.cut()
        await cluster.put_config_map("shop-config", {"mode": "broken"})
        network.rule = relay
        await told.until(key_of(cluster))
        await told.silence()
        await cluster.put_config_map("shop-config", {"mode": "fast"})
        await told.until(key_of(cluster))


async def test_a_change_made_while_one_stream_is_down_is_reported(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """The other streams being well does not make up for what one of them missed."""
    async with watching(network, cluster, tmp_path) as told:
        network.rule = lambda request: Fate.CLOSE if "/configmaps" in request.target else Fate.RELAY
        network.cut()
        await told.silence()
        await cluster.put_config_map("shop-config", {"mode": "broken"})
        network.rule = relay
        await told.until(key_of(cluster))


async def test_a_workload_deleted_while_the_network_is_down_is_reported(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """What is missing from the new list moved too."""
    async with watching(network, cluster, tmp_path) as told:
        network.rule = lambda _: Fate.CLOSE
        network.cut()
        await cluster.delete_deployment("shop")
        network.rule = relay
        await told.until(key_of(cluster))


def _watched_twice(requests: list[Request], collection: str) -> bool:
    return sum(request.watches and collection in request.target for request in requests) >= 2


@pytest.mark.parametrize("in_stream", [False, True], ids=["as-answer", "as-event"])
async def test_an_expired_version_leads_to_a_new_list(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path, in_stream: bool
) -> None:
    """410, as an answer or inside the stream: resumed once, listed again, then watched from the new list."""
    gone = status(410, "too old resource version: 1 (2)", reason="Expired")
    event = b'{"type":"ERROR","object":' + gone.body + b"}\n"
    async with watching(network, cluster, tmp_path) as told:
        seen = len(network.requests)
        refused: set[str] = set()

        def expire(request: Request) -> Fate | Answer:
            collection = request.target.partition("?")[0]
            always_there = not collection.endswith("/rollouts")
            if request.watches and always_there and collection not in refused:
                refused.add(collection)
                return Answer(code=200, body=event) if in_stream else gone
            return Fate.RELAY

        network.rule = expire
        network.cut()
        await network.until(lambda requests: _watched_twice(requests[seen:], "/configmaps"))
        await told.silence()
        assert len(refused) >= 5
        for collection in refused:
            asked = [r for r in network.requests[seen:] if r.target.partition("?")[0] == collection]
            order = [request.watches for request in asked][:3]
            assert order == [True, False, True][: len(order)]
        await cluster.put_config_map("shop-config", {"mode": "broken"})
        await told.until(key_of(cluster))


async def test_a_stream_that_carries_nothing_any_more_is_taken_up_again(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """A connection that died without a word is noticed by its silence."""
    timing = WatchTiming(coalesce_seconds=0.05, stream_seconds=1, backoff=Backoff.of_seconds(0.1, 0.5))
    async with watching(network, cluster, tmp_path, timing) as told:
        seen = len(network.requests)
        network.thawed.clear()
        await cluster.put_config_map("shop-config", {"mode": "broken"})
        await network.until(lambda requests: _watched_twice(requests[seen:], "/configmaps"))
        network.thawed.set()
        await told.until(key_of(cluster))


async def test_rights_taken_away_end_the_watch_aloud(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """A watch that may no longer look says so instead of going blind."""
    async with watching(network, cluster, tmp_path) as told:
        network.rule = lambda _: status(403, "deployments.apps is forbidden", reason="Forbidden")
        network.cut()
        with pytest.raises(Forbidden):
            async with asyncio.timeout(120):
                await asyncio.shield(told.task)


async def test_a_look_from_the_view_is_the_look_from_the_api_server(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """And costs no request while the watches are current; when they are cut the API server is asked.

    What carries requests to the pods is part of the look at an incident alone.
    """
    await deploy_shop(cluster, config={"mode": "fast"})
    key = key_of(cluster)
    async with agent_behind(network, cluster, tmp_path) as agent:
        assert await agent.steady.workload(key) is not None
        told = Listening(agent.watch.events())
        await told.until(key)
        await cluster.quiet()
        await told.silence()
        asked = len(network.requests)
        seen = await agent.steady.workload(key)
        assert seen is not None
        assert await agent.steady.services() == (key,)
        owner = await agent.steady.owner(cluster.ref("Pod", seen.pods[0].name))
        assert owner is not None
        assert owner.key == key
        assert len(network.requests) == asked
        live = await agent.reader.workload(key)
        assert live is not None
        assert live.routes is not None
        assert live == replace(seen, observed_at=live.observed_at, routes=live.routes)
        fresh = [request.target for request in network.requests[asked:]]
        assert any(target.endswith("/deployments/shop") for target in fresh)
        network.rule = lambda _: Fate.CLOSE
        network.cut()
        await network.until(lambda requests: len(requests) > asked + len(fresh))
        with pytest.raises(TransientError):
            await agent.steady.workload(key)
        told.task.cancel()
        await asyncio.gather(told.task, return_exceptions=True)


async def test_a_burst_is_reported_a_few_times_only(
    cluster: KubernetesHarness, network: Loopback, tmp_path: Path
) -> None:
    """A crashing rollout changes many objects; the observer is not called for each of them."""
    timing = WatchTiming(coalesce_seconds=0.5)
    async with watching(network, cluster, tmp_path, timing) as told:
        for number in range(40):
            await cluster.put_config_map("shop-config", {"mode": str(number)})
        await told.until(key_of(cluster))
        assert await told.silence() <= 3

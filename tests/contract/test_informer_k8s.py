"""The informer keeps its promises over a real API server behind a network that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.informer_suite")

from lightkube.resources.core_v1 import ConfigMap  # noqa: E402 - after the rewrite is registered

from app.agent.ids import JsonObject  # noqa: E402 - as above
from app.bounds.backoff import Backoff  # noqa: E402 - as above
from app.clock import SystemClock  # noqa: E402 - as above
from app.connectors.kubernetes.api import Connection, Kind, ReadApi  # noqa: E402 - as above
from app.connectors.kubernetes.config import load_config  # noqa: E402 - as above
from app.connectors.kubernetes.reading.informer import Informer, WatchTiming  # noqa: E402 - as above
from app.connectors.kubernetes.reading.pruning import pruned  # noqa: E402 - as above
from app.connectors.kubernetes.reading.store import ObjectStore  # noqa: E402 - as above
from testbed.rbac import AGENT  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - as above
from tests.contract.collection import ended, kept  # noqa: E402 - as above
from tests.contract.informer_suite import *  # noqa: E402, F403 - the shared contract
from tests.contract.kubernetes_harness import KubernetesHarness, settings_for  # noqa: E402 - as above
from tests.contract.loopback import (  # noqa: E402 - as above
    Answer,
    Fate,
    Loopback,
    Request,
    Rule,
    kubeconfig_for,
    loopback,
    relay,
    status,
)

pytestmark = pytest.mark.real

DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.05
TIMING = WatchTiming(backoff=Backoff.of_seconds(0.2, 0.5), resumes=10_000)


@dataclass
class OverNetwork:
    """`InformerHarness` in one namespace of the test bed."""

    cluster: KubernetesHarness
    network: Loopback
    informer: Informer
    direct: ReadApi
    after: Rule = relay
    """The rule once the network works again."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        self.tasks.append(asyncio.create_task(self.informer.run()))

    async def put(self, name: str, value: str) -> None:
        await self.cluster.put_config_map(name, {"mode": value})

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self.cluster.client.delete, ConfigMap, name, namespace=self.cluster.namespace)

    async def cut(self) -> None:
        self.network.rule = lambda _: Fate.CLOSE
        self.network.cut()

    async def restore(self) -> None:
        self.network.rule = self.after

    async def expire(self) -> None:
        self.after = _ExpiresOnce()

    async def fresh(self) -> dict[str, JsonObject]:
        listing = await self.direct.list(Kind.CONFIG_MAP, self.cluster.namespace)
        return {str(item["metadata"]["name"]): item for item in listing.items}  # type: ignore[index, call-overload] # a list's items have names

    async def follows(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                wanted = {name: pruned(Kind.CONFIG_MAP, item) for name, item in (await self.fresh()).items()}
                if kept(self.informer) == wanted:
                    return
                await asyncio.sleep(POLL_SECONDS)

    def asked(self) -> tuple[int, int]:
        watches = sum(request.watches for request in self.network.requests)
        return len(self.network.requests) - watches, watches


class _ExpiresOnce:
    """A rule that answers the first watch with 410 and lets everything else through."""

    def __init__(self) -> None:
        self.expired = False

    def __call__(self, request: Request) -> Fate | Answer:
        if request.watches and not self.expired:
            self.expired = True
            return status(410, "too old resource version: 1 (2)", reason="Expired")
        return Fate.RELAY


@pytest.fixture
async def shelf(testbed_world: TestBed, namespace: str, tmp_path: Path) -> AsyncIterator[OverNetwork]:
    """The ConfigMaps of a fresh namespace and their informer at work."""
    cluster = KubernetesHarness(testbed_world, namespace)
    like = testbed_world.control_plane.kubeconfig(AGENT)
    async with loopback(kubeconfig=like) as network:
        connections = []
        for kubeconfig in (kubeconfig_for(network.url, tmp_path, like=like), like):
            config = load_config(settings_for(testbed_world, namespace, AGENT, kubeconfig=kubeconfig))
            assert config is not None
            connections.append(Connection(config, timeout_seconds=10.0, dry_run=True))
        behind, direct = (ReadApi(one) for one in connections)
        informer = Informer(
            api=behind,
            kind=Kind.CONFIG_MAP,
            namespace=namespace,
            store=ObjectStore(Kind.CONFIG_MAP),
            keeps=lambda _: True,
            changed=lambda *_: None,
            clock=SystemClock(),
            timing=TIMING,
            gate=asyncio.Semaphore(1),
            required=True,
        )
        made = OverNetwork(cluster, network, informer, direct)
        yield made
        await ended(made.tasks)
        for one in connections:
            await one.close()
    await cluster.close()

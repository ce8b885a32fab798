"""What the view of a cluster reads, and reports, while its first lists are not complete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.agent.ids import JsonObject, ServiceKey
from app.clock import SystemClock
from app.config import Settings
from app.connectors.kubernetes.api import Connection, ReadApi, load_config
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.reading.objects import LiveObjects
from app.connectors.kubernetes.reading.view import ClusterView
from tests.contract.loopback import Answer, Fate, Loopback, Request, kubeconfig_for, loopback

SHOP = ServiceKey(environment="prod", service="shop")


@asynccontextmanager
async def view_of(server: Loopback, folder: Path) -> AsyncIterator[ClusterView]:
    """A view of that server, followed by no one yet."""
    config = load_config(Settings(_env_file=None, kubeconfig=kubeconfig_for(server.url, folder)))
    assert config is not None
    connection = Connection(config, timeout_seconds=30, dry_run=False)
    api, clock = ReadApi(connection), SystemClock()
    services = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    yield ClusterView(lambda _: api, LiveObjects(api, services, clock), services, clock)
    await connection.close()


def _listed(*items: JsonObject) -> Answer:
    body = {"metadata": {"resourceVersion": "5"}, "items": list(items)}
    return Answer(code=200, body=json.dumps(body).encode())


def _deployment(name: str) -> JsonObject:
    return {"metadata": {"name": name, "namespace": "payments", "uid": name}}


def _pod(owner: str) -> JsonObject:
    """A pod that is not ready, of that ReplicaSet."""
    controller: JsonObject = {"kind": "ReplicaSet", "name": owner, "uid": "of a set", "controller": True}
    return {
        "metadata": {
            "name": f"{owner}-a",
            "namespace": "payments",
            "uid": "a pod",
            "ownerReferences": [controller],
        },
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }


def _while_long_lists_hang(request: Request) -> Fate | Answer:
    if request.watches or "/replicasets" in request.target or "/configmaps" in request.target:
        return Fate.HANG
    if "/deployments" in request.target:
        return _listed(_deployment("bag"), _deployment("shop"))
    return _listed(_pod("shop-7d4b9")) if "/pods" in request.target else _listed()


async def test_a_crash_is_reported_before_the_long_lists_are_complete(tmp_path: Path) -> None:
    """Of a pod that is not ready the service is known by the name of its ReplicaSet; no other is reported."""
    async with loopback() as server, view_of(server, tmp_path) as view:
        server.rule = _while_long_lists_hang
        async with view.followed() as feed, asyncio.timeout(120):
            await feed.wait()
            assert feed.take() == [(SHOP, True)]
            assert "Deployment" in view.ages()
            assert "ConfigMap" not in view.ages()  # not listed yet


async def test_readers_wait_for_the_lists_that_are_under_way(tmp_path: Path) -> None:
    """The poller starts a moment before the watcher, and has no workload listed a second time."""
    async with loopback() as server, view_of(server, tmp_path) as view:
        server.rule = _while_long_lists_hang
        async with asyncio.timeout(120):
            first = asyncio.create_task(view.workloads("payments"))
            await asyncio.sleep(0)
            async with view.followed():
                found = [await first, await view.workloads("payments")]
        assert [sorted(one.name for one in each["payments"].claims) for each in found] == [
            ["bag", "shop"]
        ] * 2
        lists = [one.target for one in server.requests if not one.watches and "/deployments" in one.target]
        assert len(lists) == 1

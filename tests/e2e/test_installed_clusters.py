"""The Helm chart with several clusters, installed on a real API server, and the agent over two of them.

The agent is started from what the API server then holds: environment and mounted files of its
Deployment, out of the live ConfigMap and Secrets. Its pod itself is not run, for the bed has no
container runtime: paths of mounts, address and port are those of the test.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.chart import CHART
from testbed.helm import helm
from testbed.kubeapi import Api
from testbed.ports import free_ports
from testbed.rbac import ADMIN
from testbed.waiting import NotYet, wait_for
from testbed.world import TestBed
from tests.contract.manifests import created, of_kind, rendered
from tests.contract.service_account import kubeconfig_of
from tests.e2e.agent_process import story
from tests.forked import forked

pytestmark = pytest.mark.real

RELEASE = "heal"
INSTALLED = f"{RELEASE}-self-healing-devops-agent"
SERVICE = "shop"
NAMES = ("east", "west")
QUICK = {
    "INCIDENT_SETTLE_SECONDS": "1",
    "VERIFY_SOAK_SECONDS": "4",
    "VERIFY_TIMEOUT_SECONDS": "5",
    "VERIFY_INTERVAL_SECONDS": "0.5",
    "VERIFY_MAX_SAMPLE_AGE_SECONDS": "5",
}
"""Minutes become seconds."""


@pytest.fixture(scope="module")
def west(testbed_world: TestBed) -> Iterator[TestBed]:
    """A second control plane with nodes of its own."""
    with TestBed(nodes=1) as bed:
        yield bed


@dataclass(frozen=True, slots=True)
class Place:
    """One of the clusters."""

    name: str
    bed: TestBed
    namespace: str
    api: Api


@pytest.fixture
async def places(testbed_world: TestBed, west: TestBed, namespace: str) -> AsyncIterator[tuple[Place, ...]]:
    """Both clusters; the agent is installed in the first."""
    found = []
    for name, bed in zip(NAMES, (testbed_world, west), strict=True):
        there = namespace if name == NAMES[0] else bed.create_namespace()
        found.append(Place(name, bed, there, Api(bed.control_plane.kubeconfig(ADMIN))))
    yield tuple(found)
    for place in found:
        await place.api.close()


async def account(place: Place, folder: Path) -> Path:
    """The role of the chart in a cluster, and a kubeconfig of its account, as docs/install.md says."""
    scope = ("--set", f"environmentNamespaces.prod-{place.name}={place.namespace}")
    options = (*scope, "--set", "rbac.tryPods=false", "--show-only", "templates/rbac.yaml")
    objects = rendered(*options, namespace=place.namespace, release="reach")
    for one in objects:
        await created(place.api, one, place.namespace)
    (made,) = of_kind(objects, "ServiceAccount")
    (folder / place.name).mkdir()
    name = made["metadata"]["name"]
    return await kubeconfig_of(name, place.namespace, place.api, place.bed, folder / place.name)


async def live(api: Api, path: str) -> dict[str, Any]:
    """An object as the API server holds it."""
    answer = await api.request("GET", path)
    answer.raise_for_status()
    return dict(answer.json())


async def start_of(api: Api, namespace: str, root: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the agent's container, its mounted files written below `root`."""
    deployment = await live(api, f"/apis/apps/v1/namespaces/{namespace}/deployments/{INSTALLED}")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            path = f"/api/v1/namespaces/{namespace}/configmaps/{source['configMapRef']['name']}"
            environment |= (await live(api, path))["data"]
        else:
            environment |= await secret(api, namespace, source["secretRef"]["name"])
    volumes = {one["name"]: one for one in pod["volumes"]}
    for mount in container["volumeMounts"]:
        there = root / mount["mountPath"].lstrip("/")
        there.mkdir(parents=True)
        for source in volumes[mount["name"]].get("projected", {}).get("sources", ()):
            held = await secret(api, namespace, source["secret"]["name"])
            for item in source["secret"]["items"]:
                (there / item["path"]).write_text(held[item["key"]])
        for name, value in environment.items():
            environment[name] = value.replace(f"{mount['mountPath']}/", f"{there}/")
    return container["args"], environment


async def secret(api: Api, namespace: str, name: str) -> dict[str, str]:
    """What a Secret holds."""
    data = (await live(api, f"/api/v1/namespaces/{namespace}/secrets/{name}"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


async def test_the_installed_agent_rehearses_in_two_clusters(
    places: tuple[Place, ...], tmp_path: Path
) -> None:
    """A bad release in each: an incident in the environment of its cluster, and a rollback tried there."""
    home = places[0]
    where = ("--namespace", home.namespace, "--kubeconfig", home.bed.control_plane.kubeconfig(ADMIN))
    clusters = {}
    for place in places:
        held = {"kubeconfig": base64.b64encode((await account(place, tmp_path)).read_bytes()).decode()}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"reach-{place.name}"},
            "data": held,
        }
        await created(home.api, body, home.namespace)
        clusters[place.name] = {
            "kubeconfig": {"secret": f"reach-{place.name}", "key": "kubeconfig"},
            "environment_namespaces": {f"prod-{place.name}": place.namespace},
        }
    values = {"ownCluster": False, "clusters": clusters, "settings": QUICK}
    options = [
        part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}")
    ]
    helm("install", RELEASE, CHART, *where, *options)
    for place in places:
        place.bed.deploy(place.namespace, SERVICE, "shop:1")
        place.bed.wait_rolled_out(place.namespace, SERVICE)
        place.bed.set_image(place.namespace, SERVICE, "shop:2-missing")
        place.bed.wait_waiting(place.namespace, SERVICE, "ImagePullBackOff")

    arguments, environment = await start_of(home.api, home.namespace, tmp_path / "root")
    token, (port,) = environment["INITIAL_ADMIN_TOKEN"], free_ports(1)
    started = forked(
        arguments,
        folder=tmp_path / "root" / "data",
        environment={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "root" / "tmp"),
            **environment,
            "HOST": "127.0.0.1",
            "PORT": str(port),
        },
        log=tmp_path / "agent.log",
    )

    def get(path: str) -> dict[str, Any] | NotYet:
        if started.poll() is not None:
            raise AssertionError((tmp_path / "agent.log").read_text()[-3_000:])
        try:
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx2.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60)
        except httpx2.TransportError as error:
            return NotYet(repr(error))
        return answer.json() if answer.status_code == 200 else NotYet(answer.text)

    def ended(environment: str) -> dict[str, Any] | NotYet:
        found = get(f"/incidents?environment={environment}&service={SERVICE}")
        if isinstance(found, NotYet) or not found["items"]:
            return NotYet(str(found))
        incident = get(f"/incidents/{found['items'][0]['id']}")
        if isinstance(incident, NotYet) or incident["state"] in ("open", "verifying", "executing"):
            return NotYet(str(incident))
        return incident

    try:
        wait_for("the agent to be ready", lambda: get("/readyz"), timeout_seconds=300)
        for place in places:
            its_end = partial(ended, f"prod-{place.name}")
            incident = wait_for("its incident to end", its_end, timeout_seconds=120)
            assert incident["state"] == "proposed", story(incident)
            (action,) = incident["actions"]
            assert (action["name"], action["outcome"]) == ("rollback", "rehearsed"), story(incident)
            tried = [
                (event.verb, event.name)
                for event in place.bed.control_plane.audit_events()
                if event.namespace == place.namespace and event.dry_run
            ]
            assert ("patch", SERVICE) in tried
            assert place.bed.image(place.namespace, SERVICE) == "shop:2-missing"
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(120)
        helm("uninstall", RELEASE, *where)

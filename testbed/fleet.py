"""Runs a sample service for every Deployment, each on a port of its own, in one process.

`python -m testbed.fleet`, started by `testbed.world`. It follows the control
plane, so what is served is what the ready pods of a Deployment were started with.
Its file of targets names the addresses for Prometheus and the load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import uvicorn

from testbed.behaviour import SERVICE_LABEL
from testbed.environment import environment_of
from testbed.kubeapi import Api, ConfigMap, Deployment, Gone, Listed, Meta, Pod
from testbed.sample_service import Manners, SampleService, manners_of

_HTTP_PORTS = (None, 80, 8080)
_REFUSING_PORT = 1
_CLUSTER_NAME = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)(?:\.svc(?:\.cluster\.local)?)?")


def _key(meta: Meta) -> tuple[str, str]:
    return meta.namespace, meta.name


def _service(deployment: Deployment) -> tuple[str, str]:
    """Namespace and service, by the label convention that the agent knows too."""
    meta = deployment.metadata
    return meta.namespace, meta.labels.get(SERVICE_LABEL, meta.name)


class Target(msgspec.Struct):
    """One entry in Prometheus's file_sd format."""

    targets: list[str]
    labels: dict[str, str]


def read_targets(path: Path) -> dict[tuple[str, str], str]:
    """(namespace, service) to `host:port`, as the fleet last wrote it."""
    if not path.exists():
        return {}
    entries = msgspec.json.decode(path.read_bytes(), type=list[Target])
    return {(entry.labels["namespace"], entry.labels["service"]): entry.targets[0] for entry in entries}


class _Server(uvicorn.Server):
    """One of several in a process: signals are the process's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """A sample service on its port."""

    def __init__(self, service: SampleService) -> None:
        self.service = service
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(service.app, log_level="warning", access_log=False, lifespan="off")
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        self._server.should_exit = True
        await self._task
        self._socket.close()


class Fleet:
    """What the control plane says, turned into listening services."""

    def __init__(self, api: Api, targets: Path, http: httpx2.AsyncClient) -> None:
        self._api = api
        self._targets = targets
        self._http = http
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._deployments: dict[str, Deployment] = {}
        self._pods: dict[str, Pod] = {}
        self._config_maps: dict[tuple[str, str], dict[str, str]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        self._write_targets()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_deployments())
            group.create_task(self._follow_pods())
            group.create_task(self._follow_config_maps())

    def route(self, host: str, port: int | None) -> tuple[str, int] | None:
        """`name.namespace[.svc]` is the service of that Deployment; its other ports refuse."""
        name = _CLUSTER_NAME.fullmatch(host)
        if name is None or re.fullmatch(r"[\d.]+", host):
            return host, port or 80
        listener = self._listeners.get((name.group(2), name.group(1)))
        if listener is None:
            return None
        return "127.0.0.1", listener.port if port in _HTTP_PORTS else _REFUSING_PORT

    # -------------------------------------------------------------- what the control plane says

    async def _follow_deployments(self) -> None:
        async for change in self._api.follow("/apis/apps/v1/deployments", Deployment):
            if isinstance(change, Listed):
                self._deployments = {found.metadata.uid: found for found in change.objects}
            elif isinstance(change, Gone):
                self._deployments.pop(change.object.metadata.uid, None)
            else:
                self._deployments[change.object.metadata.uid] = change.object
            await self._match_listeners()

    async def _follow_pods(self) -> None:
        async for change in self._api.follow("/api/v1/pods", Pod):
            if isinstance(change, Listed):
                self._pods = {pod.metadata.uid: pod for pod in change.objects}
                self._direct_traffic(None)
                continue
            if isinstance(change, Gone):
                self._pods.pop(change.object.metadata.uid, None)
            else:
                self._pods[change.object.metadata.uid] = change.object
            self._direct_traffic(change.object.metadata.namespace)

    async def _follow_config_maps(self) -> None:
        async for change in self._api.follow("/api/v1/configmaps", ConfigMap):
            if isinstance(change, Listed):
                self._config_maps = {_key(found.metadata): found.data for found in change.objects}
                self._direct_traffic(None)
                continue
            if isinstance(change, Gone):
                self._config_maps.pop(_key(change.object.metadata), None)
            else:
                self._config_maps[_key(change.object.metadata)] = change.object.data
            self._direct_traffic(change.object.metadata.namespace)

    # -------------------------------------------------------------- what follows from it

    async def _match_listeners(self) -> None:
        wanted = {_service(found): found for found in self._deployments.values()}
        for key in self._listeners.keys() - wanted.keys():
            await self._listeners.pop(key).close()
        for key in wanted.keys() - self._listeners.keys():
            self._listeners[key] = Listener(SampleService(self, self._http))
        self._write_targets()
        self._direct_traffic(None)

    def _direct_traffic(self, namespace: str | None) -> None:
        """Tell the services of a namespace (or of all) which pods are ready, and how those answer."""
        for deployment in self._deployments.values():
            meta = deployment.metadata
            listener = self._listeners.get(_service(deployment))
            if listener is None or namespace not in (None, meta.namespace):
                continue
            wanted = deployment.spec.selector.match_labels.items()
            listener.service.set_pods(
                {
                    uid: self._manners(pod)
                    for uid, pod in self._pods.items()
                    if pod.metadata.namespace == meta.namespace
                    and pod.ready
                    and wanted <= pod.metadata.labels.items()
                }
            )

    def _manners(self, pod: Pod) -> Manners:
        """Mounted ConfigMaps are read as they are now; the environment wins."""
        settings: dict[str, str] = {}
        for volume in pod.spec.volumes:
            if volume.config_map is not None:
                settings |= self._config_maps.get((pod.metadata.namespace, volume.config_map.name), {})
        settings |= environment_of(pod) or {}
        return manners_of(pod.spec.containers[0].image, settings)

    def _write_targets(self) -> None:
        entries = [
            Target(targets=[f"127.0.0.1:{listener.port}"], labels={"namespace": namespace, "service": name})
            for (namespace, name), listener in sorted(self._listeners.items())
        ]
        content = msgspec.json.encode(entries)
        if not self._targets.exists() or self._targets.read_bytes() != content:
            unfinished = self._targets.with_suffix(".new")
            unfinished.write_bytes(content)
            unfinished.replace(self._targets)


async def _main(arguments: argparse.Namespace) -> None:
    api = Api(arguments.kubeconfig)
    try:
        async with httpx2.AsyncClient() as http:
            await Fleet(api, arguments.targets, http).run()
    finally:
        await api.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m testbed.fleet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    asyncio.run(_main(parser.parse_args()))

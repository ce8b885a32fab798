"""A small asynchronous client of the Kubernetes API: what the stand-in kubelet and the sample fleet need.

Deliberately apart from the product's own connector, so that the bed does not
test it with itself. Objects are read only as far as the bed cares for them.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx2
import msgspec
import yaml

RETRY_SECONDS = 0.2
_WATCH_SECONDS = 300


class Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    generation: int = 0


class KeyRef(msgspec.Struct):
    name: str = ""
    key: str = ""
    optional: bool = False


class EnvSource(msgspec.Struct, rename="camel"):
    config_map_key_ref: KeyRef | None = None


class EnvVar(msgspec.Struct, rename="camel"):
    name: str
    value: str = ""
    value_from: EnvSource | None = None


class EnvFrom(msgspec.Struct, rename="camel"):
    config_map_ref: KeyRef | None = None


class Resources(msgspec.Struct):
    limits: dict[str, str] = {}


class HttpGet(msgspec.Struct):
    path: str = "/"


class Probe(msgspec.Struct, rename="camel"):
    http_get: HttpGet | None = None
    initial_delay_seconds: float = 0.0


class ContainerPort(msgspec.Struct, rename="camel"):
    container_port: int = 0


class Container(msgspec.Struct, rename="camel"):
    name: str
    image: str = ""
    command: list[str] = []
    env: list[EnvVar] = []
    env_from: list[EnvFrom] = []
    resources: Resources = msgspec.field(default_factory=Resources)
    readiness_probe: Probe | None = None
    ports: list[ContainerPort] = []


class Volume(msgspec.Struct, rename="camel"):
    name: str = ""
    config_map: KeyRef | None = None


class PodSpec(msgspec.Struct, rename="camel"):
    containers: list[Container] = []
    volumes: list[Volume] = []
    node_name: str = ""
    node_selector: dict[str, str] = {}


class PodTemplate(msgspec.Struct):
    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class PodCondition(msgspec.Struct):
    type: str
    status: str


class ContainerStatus(msgspec.Struct, rename="camel"):
    name: str
    restart_count: int = 0


class PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    start_time: str | None = None
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []


class Pod(msgspec.Struct):
    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def ready(self) -> bool:
        """Gets traffic: condition Ready, and not on its way out."""
        return self.metadata.deletion_timestamp is None and any(
            condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions
        )


class Node(msgspec.Struct):
    metadata: Meta


class ConfigMap(msgspec.Struct):
    metadata: Meta
    data: dict[str, str] = {}


class Selector(msgspec.Struct, rename="camel"):
    match_labels: dict[str, str] = {}


class DeploymentSpec(msgspec.Struct):
    selector: Selector = msgspec.field(default_factory=Selector)
    replicas: int = 1
    paused: bool = False
    template: PodTemplate = msgspec.field(default_factory=PodTemplate)


class DeploymentStatus(msgspec.Struct, rename="camel"):
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    replicas: int = 0
    observed_generation: int = 0


class Deployment(msgspec.Struct):
    metadata: Meta
    spec: DeploymentSpec = msgspec.field(default_factory=DeploymentSpec)
    status: DeploymentStatus = msgspec.field(default_factory=DeploymentStatus)


T = TypeVar("T", Pod, Node, ConfigMap, Deployment)


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The whole truth at one instant: whatever is not in it is gone."""

    objects: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """One object appeared or changed."""

    object: T


@dataclass(frozen=True, slots=True)
class Gone(Generic[T]):
    """One object was removed; this is its last state."""

    object: T


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw]


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Api:
    """One connection pool to one API server, as one user."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._http = httpx2.AsyncClient(
            base_url=cluster["server"],
            verify=ssl.create_default_context(cadata=ca),
            headers={"Authorization": f"Bearer {content['users'][0]['user']['token']}"},
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=32),
            timeout=httpx2.Timeout(20, pool=None),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self, method: str, path: str, body: object | None = None, *, merge: str = "strategic-merge-patch"
    ) -> httpx2.Response:
        """One request; PATCH merges, lists by key or, with `merge-patch`, as a whole.

        Raises `httpx2.HTTPError` when there is no answer.
        """
        kind = f"application/{merge}+json" if method == "PATCH" else "application/json"
        content = None if body is None else msgspec.json.encode(body)
        return await self._http.request(method, path, content=content, headers={"Content-Type": kind})

    async def get(self, path: str, kind: type[T]) -> T | None:
        """The object, or None when there is none."""
        answer = await self.request("GET", path)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=kind)

    async def follow(
        self, path: str, kind: type[T], **parameters: str
    ) -> AsyncIterator[Listed[T] | Seen[T] | Gone[T]]:
        """List, then watch, without end; list again after an expired version or a broken connection."""
        while True:
            try:
                answer = await self._http.get(path, params=parameters)
                answer.raise_for_status()
                listing = msgspec.json.decode(answer.content, type=_List)
                yield Listed(tuple(msgspec.json.decode(item, type=kind) for item in listing.items))
                async for change in self._watch(path, kind, listing.metadata.resource_version, parameters):
                    yield change
            except (httpx2.HTTPError, msgspec.DecodeError) as error:
                print(f"watch of {path}: {type(error).__name__}: {error}; listing again", flush=True)
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(
        self, path: str, kind: type[T], version: str, parameters: dict[str, str]
    ) -> AsyncIterator[Seen[T] | Gone[T]]:
        """Events from `version` on until the version expires; quiet time-outs are resumed."""
        while True:
            query: dict[str, Any] = {**parameters, "watch": "1", "timeoutSeconds": _WATCH_SECONDS}
            timeout = httpx2.Timeout(20, read=_WATCH_SECONDS + 20, pool=None)
            async with self._http.stream(
                "GET", path, params={**query, "resourceVersion": version}, timeout=timeout
            ) as stream:
                if stream.status_code == 410:
                    return
                stream.raise_for_status()
                async for line in stream.aiter_lines():
                    event = msgspec.json.decode(line, type=_Event)
                    if event.type == "ERROR":
                        return
                    seen = msgspec.json.decode(event.object, type=kind)
                    version = seen.metadata.resource_version
                    yield Gone(seen) if event.type == "DELETED" else Seen(seen)

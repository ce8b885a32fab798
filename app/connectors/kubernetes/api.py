"""Talks HTTP with one Kubernetes API server: get, list, watch and patch of plain JSON objects.

Called by the adapters in `k8s` and `k8s_watch`. lightkube contributes kubeconfig,
TLS, credentials and request building; answers are read here, because its typed
objects drop fields they do not know and its watch reconnects without a pause.
Reading and patching are separate classes: an object that only reads cannot be
made to write.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, cast

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from lightkube.core.generic_client import ALL_NS, BasicRequest, GenericAsyncClient
from lightkube.core.resource import GlobalResource, NamespacedResourceG, api_info
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.types import PatchType

from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef
from app.bounds.body import read_bounded
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.errors import (
    Expired,
    KubernetesCall,
    failure,
    rejection,
    status_of,
)
from app.connectors.kubernetes.fields import (
    mapping,
    number,
    objects,
    text,
)
from app.errors import ConfigurationError

__all__ = [
    "EVERYWHERE",
    "FIELD_MANAGER",
    "PAGE_SIZE",
    "Connection",
    "DryRunApi",
    "Kind",
    "Listing",
    "PatchApi",
    "ReadApi",
    "WatchType",
    "Watched",
    "load_config",
    "plural",
]

EVERYWHERE = ALL_NS
"""Stands for all namespaces."""
FIELD_MANAGER = "self-healing-devops-agent"
PAGE_SIZE = 500
_MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""More than any page of objects is long."""
_LIST_ATTEMPTS = 3


class Kind(StrEnum):
    """The kinds of objects the agent reads; the first two it may change."""

    DEPLOYMENT = "Deployment"
    CONFIG_MAP = "ConfigMap"
    REPLICA_SET = "ReplicaSet"
    POD = "Pod"
    EVENT = "Event"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NAMESPACE = "Namespace"
    HORIZONTAL_POD_AUTOSCALER = "HorizontalPodAutoscaler"
    VERTICAL_POD_AUTOSCALER = "VerticalPodAutoscaler"
    SCALED_OBJECT = "ScaledObject"
    ROLLOUT = "Rollout"
    CANARY = "Canary"


_RESOURCES: dict[Kind, type[NamespacedResourceG] | type[GlobalResource]] = {
    Kind.DEPLOYMENT: Deployment,
    Kind.CONFIG_MAP: ConfigMap,
    Kind.REPLICA_SET: ReplicaSet,
    Kind.POD: Pod,
    Kind.EVENT: Event,
    Kind.DISRUPTION_BUDGET: PodDisruptionBudget,
    Kind.NAMESPACE: Namespace,
    Kind.HORIZONTAL_POD_AUTOSCALER: HorizontalPodAutoscaler,
    Kind.VERTICAL_POD_AUTOSCALER: create_namespaced_resource(
        "autoscaling.k8s.io", "v1", "VerticalPodAutoscaler", "verticalpodautoscalers"
    ),
    Kind.SCALED_OBJECT: create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    Kind.ROLLOUT: create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
    Kind.CANARY: create_namespaced_resource("flagger.app", "v1beta1", "Canary", "canaries"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A consistent list and the version a watch goes on from."""

    items: tuple[JsonObject, ...]
    version: str


class WatchType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One event of a watch."""

    type: WatchType
    item: JsonObject

    @property
    def version(self) -> str | None:
        return text(self.item, "metadata", "resourceVersion")


class _Sender(Protocol):
    """What is used of lightkube's client, with the types it does not declare."""

    def prepare_request(
        self,
        method: str,
        *,
        res: type[NamespacedResourceG] | type[GlobalResource],
        obj: Sequence[JsonObject] | None = None,
        name: str | None = None,
        namespace: str | None = None,
        watch: bool = False,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> BasicRequest: ...

    def build_adapter_request(self, br: BasicRequest) -> httpx2.Request: ...

    async def send(self, req: httpx2.Request, stream: bool = False) -> httpx2.Response: ...

    async def close(self) -> None: ...


class Connection:
    """One authenticated connection pool to one API server."""

    def __init__(self, config: SingleConfig, *, timeout_seconds: float, dry_run: bool) -> None:
        """`dry_run` puts `dryRun=All` on every patch that ever goes over this connection."""
        self.timeout_seconds = timeout_seconds
        self.dry_run = dry_run
        params = ConnectionParams(timeout=httpx2.Timeout(timeout_seconds))
        try:
            client = GenericAsyncClient(params, config, field_manager=FIELD_MANAGER, dry_run=dry_run)
        except (ConfigError, OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"the certificates of the kubeconfig's context {config.context_name!r} cannot be loaded:"
                f" {type(error).__name__}"
            ) from error
        self._sender = cast("_Sender", client)

    def prepare(self, method: str, kind: Kind, namespace: str, **more: str | bool | None) -> BasicRequest:
        """A request for objects of `kind`; `more` holds `name`, `watch`, and query parameters."""
        name = more.pop("name", None)
        watch = more.pop("watch", False)
        return self._sender.prepare_request(
            method,
            res=_RESOURCES[kind],
            name=name if isinstance(name, str) else None,
            namespace=None if kind is Kind.NAMESPACE else namespace,
            watch=watch is True,
            params={key: str(value) for key, value in more.items() if value is not None},
        )

    def prepare_patch(self, kind: Kind, ref: ObjectRef, operations: Sequence[JsonObject]) -> BasicRequest:
        return self._sender.prepare_request(
            "patch",
            res=_RESOURCES[kind],
            obj=operations,
            name=ref.name,
            namespace=ref.namespace,
            headers={"Content-Type": PatchType.JSON.value},
        )

    def prepare_dry_create(self, kind: Kind, namespace: str, body: JsonObject) -> BasicRequest:
        """A request that creates nothing, over any connection; lightkube's own takes typed objects only."""
        request = self.prepare("list", kind, namespace)
        request.method, request.data = "POST", body
        request.params = {"dryRun": "All", "fieldManager": FIELD_MANAGER}
        return request

    async def exchange(self, call: KubernetesCall, request: BasicRequest) -> JsonObject:
        """Send one request and read its whole answer."""
        try:
            async with asyncio.timeout(3 * self.timeout_seconds):  # connect, send, receive
                response = await self._sender.send(self._sender.build_adapter_request(request), stream=True)
                content = await _bounded(response)
        except (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, ValueError, KeyError) as error:
            # The last three come from credential plugins and token files; TimeoutError is an OSError.
            raise failure(call, error) from error
        if not response.is_success:
            raise rejection(call, response.status_code, response.headers, status_of(content))
        try:
            answer = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise failure(call, error) from error
        if not isinstance(answer, dict):
            raise failure(call, ValueError("the answer is no object"))
        return cast("JsonObject", answer)

    async def lines(
        self, call: KubernetesCall, request: BasicRequest, silence_seconds: float
    ) -> AsyncGenerator[str, None]:
        """Send one request and give the lines of its answer as they come."""
        request.timeout = httpx2.Timeout(self.timeout_seconds, read=silence_seconds)
        try:
            response = await self._sender.send(self._sender.build_adapter_request(request), stream=True)
            try:
                if not response.is_success:
                    body = await response.aread()
                    raise rejection(call, response.status_code, response.headers, status_of(body))
                async for line in response.aiter_lines():
                    yield line
            finally:
                await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, ValueError, KeyError) as error:
            raise failure(call, error) from error

    async def close(self) -> None:
        await self._sender.close()


async def _bounded(response: httpx2.Response) -> bytes:
    """The whole body; `ValueError` for one that is longer than any page of objects."""
    try:
        return await read_bounded(
            response.aiter_bytes(),
            _MAX_ANSWER_BYTES,
            lambda: ValueError(f"the answer is longer than {_MAX_ANSWER_BYTES:,} bytes"),
        )
    finally:
        await response.aclose()


class ReadApi:
    """Reads objects; has no way to change one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, kind: Kind, namespace: str, name: str) -> JsonObject:
        """One object; `NotFound` when it is not there."""
        call = KubernetesCall(verb="get", what=f"{plural(kind)} {namespace}/{name}", effect=False)
        answer = await self._connection.exchange(
            call, self._connection.prepare("get", kind, namespace, name=name)
        )
        if text(answer, "metadata", "name") != name:
            raise failure(call, ValueError("the answer is not the object that was asked for"))
        return answer

    async def list(
        self, kind: Kind, namespace: str, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        """All objects of a kind that match both selectors, page by page; restarts when a page expires."""
        for _ in range(_LIST_ATTEMPTS):
            try:
                return await self._list(kind, namespace, labels, fields)
            except Expired as error:
                expired = error
        raise expired

    async def _list(self, kind: Kind, namespace: str, labels: str | None, fields: str | None) -> Listing:
        items: list[JsonObject] = []
        page: str | None = None
        while True:
            answer = await self._page(kind, namespace, labels, fields, page=page, limit=PAGE_SIZE)
            if not isinstance(answer.get("items", ()), list | None):
                # An empty object is not an empty list: a gateway answered, or an answer was cut off.
                call = _collection_call("list", kind, namespace)
                raise failure(call, ValueError("the answer is no list of objects"))
            items.extend(objects(answer, "items"))
            page = text(answer, "metadata", "continue")
            if page is None:
                version = text(answer, "metadata", "resourceVersion") or ""
                return Listing(items=tuple(items), version=version)

    async def version(self, kind: Kind, namespace: str) -> str:
        """The version of the collection as it is now, without reading it."""
        answer = await self._page(kind, namespace, None, None, page=None, limit=1)
        return text(answer, "metadata", "resourceVersion") or ""

    async def _page(
        self,
        kind: Kind,
        namespace: str,
        labels: str | None,
        fields: str | None,
        *,
        page: str | None,
        limit: int,
    ) -> JsonObject:
        request = self._connection.prepare(
            "list",
            kind,
            namespace,
            limit=str(limit),
            labelSelector=labels,
            fieldSelector=fields,
            **{"continue": page},
        )
        return await self._connection.exchange(_collection_call("list", kind, namespace), request)

    async def watch(
        self, kind: Kind, namespace: str, version: str, *, seconds: int
    ) -> AsyncGenerator[Watched, None]:
        """Changes after `version`, until the server ends the stream, at the latest after `seconds`.

        Raises `Expired` when the version is too old.
        """
        call = _collection_call("watch", kind, namespace)
        request = self._connection.prepare(
            "list",
            kind,
            namespace,
            watch=True,
            resourceVersion=version,
            timeoutSeconds=str(seconds),
            allowWatchBookmarks="true",
        )
        silence = seconds + self._connection.timeout_seconds
        async with aclosing(self._connection.lines(call, request, silence)) as lines:
            async for line in lines:
                if line:
                    yield _watched(call, line)


class DryRunApi:
    """Has the API server judge an object that is never made."""

    def __init__(self, connection: Connection) -> None:
        if not connection.dry_run:
            raise ValueError("a dry run over a connection that persists")
        self._connection = connection

    async def create(self, kind: Kind, namespace: str, body: JsonObject) -> None:
        """Ask with `dryRun=All` for `body` to be created; raises what the server answers instead."""
        call = KubernetesCall(verb="create", what=f"{plural(kind)} in namespace {namespace}", effect=False)
        await self._connection.exchange(call, self._connection.prepare_dry_create(kind, namespace, body))


class PatchApi:
    """Patches objects; over a dry-run connection no patch persists."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def dry_run(self) -> bool:
        return self._connection.dry_run

    async def patch(self, ref: ObjectRef, operations: Sequence[JsonObject]) -> JsonObject:
        """Apply a JSON patch in one request; the object as it is, or would be, after it."""
        kind = Kind(ref.kind)
        call = KubernetesCall(
            verb="patch",
            what=f"{plural(kind)} {ref.namespace}/{ref.name}",
            effect=not self.dry_run,
        )
        return await self._connection.exchange(call, self._connection.prepare_patch(kind, ref, operations))


def group(kind: Kind) -> str:
    """The API group of its resource; empty for the core group."""
    return str(api_info(_RESOURCES[kind]).resource.group)


def plural(kind: Kind) -> str:
    """The resource's name in URLs and in RBAC."""
    return str(api_info(_RESOURCES[kind]).plural)


def _collection_call(verb: str, kind: Kind, namespace: str) -> KubernetesCall:
    where = "all namespaces" if namespace == EVERYWHERE else f"namespace {namespace}"
    return KubernetesCall(verb=verb, what=f"{plural(kind)} in {where}", effect=False)


def _watched(call: KubernetesCall, line: str) -> Watched:
    try:
        event = msgspec.json.decode(line)
        if not isinstance(event, dict):
            raise failure(call, ValueError("the event is no object"))
        item = mapping(event, "object")
        if event.get("type") == "ERROR":
            raise rejection(call, number(item, "code") or 500, {}, item)
        return Watched(type=WatchType(str(event.get("type"))), item=item)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise failure(call, error) from error

"""One connection to an API server, and the kinds of objects that are asked for over it.

Called by `api`, which says what is asked. lightkube contributes kubeconfig, TLS,
credentials and request building; answers are read here, because its typed objects drop
fields they do not know.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from enum import StrEnum
from typing import Protocol, TypeAlias, cast

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from lightkube.core.generic_client import ALL_NS, BasicRequest, GenericAsyncClient
from lightkube.core.resource import GlobalResource, NamespacedResourceG, api_info
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob, Job
from lightkube.resources.core_v1 import ConfigMap, Event, Namespace, Node, Pod, PodLog, Secret, Service
from lightkube.resources.networking_v1 import Ingress, NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.types import PatchType

from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef
from app.bounds.body import read_bounded, read_start
from app.connectors.kubernetes.errors import KubernetesCall, failure, rejection, status_of
from app.errors import ConfigurationError

EVERYWHERE = ALL_NS
"""Stands for all namespaces."""
FIELD_MANAGER = "self-healing-devops-agent"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_MOST_METADATA = 100
_MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""More than any page of objects is long."""


CustomResource: TypeAlias = type[NamespacedResourceG]
"""A kind that a vendor's own folder knows."""


def custom_resource(group: str, version: str, kind: str, plural: str) -> CustomResource:
    """A namespaced kind by its group, version, name and plural."""
    return create_namespaced_resource(group, version, kind, plural)


class Kind(StrEnum):
    """The kinds of objects that the agent reads or changes."""

    DEPLOYMENT = "Deployment"
    STATEFUL_SET = "StatefulSet"
    DAEMON_SET = "DaemonSet"
    CONFIG_MAP = "ConfigMap"
    REPLICA_SET = "ReplicaSet"
    CONTROLLER_REVISION = "ControllerRevision"
    POD = "Pod"
    EVENT = "Event"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NAMESPACE = "Namespace"
    NODE = "Node"
    HORIZONTAL_POD_AUTOSCALER = "HorizontalPodAutoscaler"
    VERTICAL_POD_AUTOSCALER = "VerticalPodAutoscaler"
    SCALED_OBJECT = "ScaledObject"
    ROLLOUT = "Rollout"
    CANARY = "Canary"
    JOB = "Job"
    CRON_JOB = "CronJob"
    SERVICE = "Service"
    INGRESS = "Ingress"
    NETWORK_POLICY = "NetworkPolicy"
    SECRET = "Secret"  # noqa: S105 - a kind, of which only metadata is read


_ROLLOUT = create_namespaced_resource("argoproj.io", "v1alpha1", "Rollout", "rollouts")
_RESOURCES: dict[Kind, type[NamespacedResourceG] | type[GlobalResource]] = {
    Kind.DEPLOYMENT: Deployment,
    Kind.STATEFUL_SET: StatefulSet,
    Kind.DAEMON_SET: DaemonSet,
    Kind.CONFIG_MAP: ConfigMap,
    Kind.REPLICA_SET: ReplicaSet,
    Kind.CONTROLLER_REVISION: ControllerRevision,
    Kind.POD: Pod,
    Kind.EVENT: Event,
    Kind.DISRUPTION_BUDGET: PodDisruptionBudget,
    Kind.NAMESPACE: Namespace,
    Kind.NODE: Node,
    Kind.SECRET: Secret,
    Kind.JOB: Job,
    Kind.CRON_JOB: CronJob,
    Kind.SERVICE: Service,
    Kind.INGRESS: Ingress,
    Kind.NETWORK_POLICY: NetworkPolicy,
    Kind.HORIZONTAL_POD_AUTOSCALER: HorizontalPodAutoscaler,
    Kind.VERTICAL_POD_AUTOSCALER: create_namespaced_resource(
        "autoscaling.k8s.io", "v1", "VerticalPodAutoscaler", "verticalpodautoscalers"
    ),
    Kind.SCALED_OBJECT: create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    Kind.ROLLOUT: _ROLLOUT,
    Kind.CANARY: create_namespaced_resource("flagger.app", "v1beta1", "Canary", "canaries"),
}


_STATUS: dict[Kind, type[NamespacedResourceG]] = {Kind.ROLLOUT: _ROLLOUT.Status}
"""The subresource `status` of the kinds whose status an action changes."""

_WITHOUT_NAMESPACE = frozenset({Kind.NAMESPACE, Kind.NODE})


class _Sender(Protocol):
    """What is used of lightkube's client, with the types it does not declare."""

    def prepare_request(
        self,
        method: str,
        *,
        res: type[NamespacedResourceG] | type[GlobalResource] | type[PodLog],
        obj: Sequence[JsonObject] | JsonObject | None = None,
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
            namespace=None if kind in _WITHOUT_NAMESPACE else namespace,
            watch=watch is True,
            params={key: str(value) for key, value in more.items() if value is not None},
        )

    def prepare_metadata_list(self, kind: Kind, namespace: str, labels: str) -> BasicRequest:
        """A request for the metadata of objects: the API server leaves out everything else."""
        request = self.prepare("list", kind, namespace, labelSelector=labels, limit=str(_MOST_METADATA))
        request.headers = {"Accept": _METADATA_LIST}
        return request

    def prepare_patch(
        self, kind: Kind, ref: ObjectRef, operations: Sequence[JsonObject], *, status: bool = False
    ) -> BasicRequest:
        """A JSON patch of an object, or of its subresource `status`."""
        resource = _STATUS[kind] if status else _RESOURCES[kind]
        return self._sender.prepare_request(
            "patch",
            res=resource,
            obj=operations,
            name=ref.name,
            namespace=None if kind in _WITHOUT_NAMESPACE else ref.namespace,
            headers={"Content-Type": PatchType.JSON.value},
        )

    def prepare_read(
        self, resource: CustomResource, namespace: str, name: str | None = None, **more: str
    ) -> BasicRequest:
        """A request for one object of a custom resource, or for a page of them without `name`."""
        verb = "list" if name is None else "get"
        return self._sender.prepare_request(verb, res=resource, name=name, namespace=namespace, params=more)

    def prepare_merge(
        self, resource: CustomResource, namespace: str, name: str, body: JsonObject
    ) -> BasicRequest:
        """A merge patch of an object of a custom resource."""
        return self._sender.prepare_request(
            "patch",
            res=resource,
            obj=body,
            name=name,
            namespace=namespace,
            headers={"Content-Type": PatchType.MERGE.value},
        )

    def prepare_dry_create(self, kind: Kind, namespace: str, body: JsonObject) -> BasicRequest:
        """A request that creates nothing, over any connection; lightkube's own takes typed objects only."""
        request = self.prepare("list", kind, namespace)
        request.method, request.data = "POST", body
        request.params = {"dryRun": "All", "fieldManager": FIELD_MANAGER}
        return request

    def prepare_create(self, kind: Kind, namespace: str, body: JsonObject) -> BasicRequest:
        """A request that creates an object; over a dry-run connection it creates nothing."""
        request = self.prepare_dry_create(kind, namespace, body)
        if not self.dry_run:
            request.params = {"fieldManager": FIELD_MANAGER}
        return request

    def prepare_delete(self, kind: Kind, ref: ObjectRef, uid: str, version: str) -> BasicRequest:
        """A request that deletes exactly this object in exactly this version.

        The API server takes `dryRun` from the query only where there is no body.
        """
        request = self.prepare("get", kind, ref.namespace, name=ref.name)
        request.method = "DELETE"
        request.data = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid, "resourceVersion": version},
            **({"dryRun": ["All"]} if self.dry_run else {}),
        }
        return request

    def prepare_eviction(self, ref: ObjectRef, uid: str) -> BasicRequest:
        """A request for the eviction of exactly this pod, against its disruption budgets.

        The API server takes `dryRun` from the body, as for a deletion.
        """
        request = self.prepare("get", Kind.POD, ref.namespace, name=ref.name)
        request.method, request.url = "POST", f"{request.url}/eviction"
        request.data = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": ref.name, "namespace": ref.namespace},
            "deleteOptions": {
                "preconditions": {"uid": uid},
                **({"dryRun": ["All"]} if self.dry_run else {}),
            },
        }
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
            raise failure(call, ValueError("the answer is not an object"))
        return cast("JsonObject", answer)

    def prepare_log(self, namespace: str, pod: str, **more: str) -> BasicRequest:
        """A request for the log of a container, which is text; `more` holds query parameters."""
        return self._sender.prepare_request(
            "get", res=PodLog, name=pod, namespace=namespace, params=more, headers={"Accept": "*/*"}
        )

    async def text(self, call: KubernetesCall, request: BasicRequest, *, seconds: float, most: int) -> bytes:
        """Send one request and read at most `most` bytes of its answer, within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._sender.send(self._sender.build_adapter_request(request), stream=True)
                try:
                    content = await read_start(response.aiter_bytes(), most)
                finally:
                    await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, ValueError, KeyError) as error:
            raise failure(call, error) from error
        if not response.is_success:
            raise rejection(call, response.status_code, response.headers, status_of(content))
        return content

    async def lines(
        self, call: KubernetesCall, request: BasicRequest, silence_seconds: float, opened: Callable[[], None]
    ) -> AsyncGenerator[str, None]:
        """Send one request and give the lines of its answer as they come; `opened` when they may come."""
        request.timeout = httpx2.Timeout(self.timeout_seconds, read=silence_seconds)
        try:
            response = await self._sender.send(self._sender.build_adapter_request(request), stream=True)
            try:
                if not response.is_success:
                    body = await response.aread()
                    raise rejection(call, response.status_code, response.headers, status_of(body))
                opened()
                async for line in response.aiter_lines():
                    yield line
            finally:
                await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, ConfigError, OSError, ValueError, KeyError) as error:
            raise failure(call, error) from error

    async def close(self) -> None:
        await self._sender.close()


class ConnectionMaker(Protocol):
    """Opens one connection: `Connection`, unless answers are to be read in another way."""

    def __call__(self, config: SingleConfig, *, timeout_seconds: float, dry_run: bool) -> Connection: ...


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


def group(kind: Kind) -> str:
    """The API group of its resource; empty for the core group."""
    return str(api_info(_RESOURCES[kind]).resource.group)


def plural(kind: Kind) -> str:
    """The resource's name in URLs and in RBAC."""
    return str(api_info(_RESOURCES[kind]).plural)

"""The Kubernetes cluster behind the cluster ports.

`connect` builds what the settings allow and is called by `app.bootstrap` alone.
In a dry run there is no `KubernetesWriter` (promise 5); `KubernetesRehearsal`
asks the API server with `dryRun=All`. Reading, request building and error
mapping live in `kubernetes/views`, `patches.py` and `errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.opt_out import OptOut, opt_out_of, said
from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import Action, Snapshot
from app.agent.ports.cluster import PodOwner
from app.agent.workload import (
    ConfigRecord,
    ObjectRef,
    RevisionHealth,
    TargetState,
    WorkloadView,
)
from app.clock import Clock
from app.config import Settings
from app.connectors.kubernetes.api import (
    Connection,
    Kind,
    PatchApi,
    ReadApi,
)
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.disruption import disruption_of
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import (
    controller,
    mapping,
    name,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.mapping import (
    ServiceMap,
    is_label_value,
    is_namespace_name,
    is_object_name,
)
from app.connectors.kubernetes.patches import snapshot_body, target_ref
from app.connectors.kubernetes.reading.objects import LiveObjects, Objects
from app.connectors.kubernetes.reading.view import ClusterView
from app.connectors.kubernetes.templates import config_map_names, template_of
from app.connectors.kubernetes.views import (
    WorkloadObjects,
    config_data_hash,
    target_state,
    workload_view,
)
from app.connectors.kubernetes.watch import KubernetesWatch
from app.connectors.kubernetes.writing import (
    KubernetesRehearsal,
    KubernetesWriter,
    get_object,
)
from app.errors import Forbidden, Invalid


class KubernetesReader:
    """`ClusterReader` over one API server.

    What an action rests on is read by name from the API server each time. `objects` are
    what a view of a workload is made from, `around` what it is completed with.
    """

    def __init__(
        self, api: ReadApi, services: ServiceMap, clock: Clock, *, objects: Objects, around: Objects
    ) -> None:
        self._api = api
        self._services = services
        self._clock = clock
        self._objects = objects
        self._around = around

    async def ping(self) -> None:
        """Raises when the API server does not answer, or does not let the agent read."""
        await self._api.version(Kind.DEPLOYMENT, self._services.namespaces()[0])

    async def services(self) -> tuple[ServiceKey, ...]:
        return await self._around.services()

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        deployment = await self._deployment(key)
        if deployment is None:
            return None
        namespace = text(deployment, "metadata", "namespace") or ""
        selector = mapping(deployment, "spec", "selector")
        replica_sets = await self._objects.controlled(
            Kind.REPLICA_SET, namespace, selector, {uid(deployment)}
        )
        owners = {uid(item) for item in replica_sets}
        pods = await self._objects.controlled(Kind.POD, namespace, selector, owners)
        config_maps = await self._config_maps(deployment)
        about = {uid(item) for item in (deployment, *replica_sets, *pods)}
        warnings = await self._around.warnings(namespace, about)
        controllers = await self._around.controllers(namespace)
        found = WorkloadObjects(
            deployment=deployment,
            replica_sets=replica_sets,
            pods=tuple(item for item in pods if text(item, "metadata", "deletionTimestamp") is None),
            config_maps=config_maps,
            events=warnings.items,
            unread=(*warnings.unread, *controllers.unread),
            autoscalers=controllers.autoscalers,
            stand_ins=controllers.stand_ins,
        )
        ref = ObjectRef(kind=Kind.DEPLOYMENT, namespace=namespace, name=name(deployment))
        return workload_view(found, ref, self._clock.now())

    async def target(self, action: Action) -> TargetState:
        ref = target_ref(action)
        return target_state(ref, await get_object(self._api, ref), action)

    async def snapshot(self, action: Action) -> Snapshot:
        ref = target_ref(action)
        current = await get_object(self._api, ref)
        return Snapshot(ref=ref, token=target_state(ref, current).token, body=snapshot_body(ref, current))

    async def disruption(self, action: Action) -> Disruption | None:
        ref = target_ref(action)
        if ref.kind != Kind.DEPLOYMENT:
            return None
        deployment = await get_object(self._api, ref)
        budgets = await self._around.budgets(ref.namespace)
        return disruption_of(deployment, budgets.items, "; ".join(budgets.unread) or None)

    async def consent(self, action: Action) -> OptOut:
        ref = target_ref(action)
        marks = {str(ref): _said(await get_object(self._api, ref))}
        try:
            namespace = await self._api.get(Kind.NAMESPACE, ref.namespace, ref.namespace)
        except Forbidden as error:
            return opt_out_of(marks, str(error))
        return opt_out_of({**marks, f"Namespace {ref.namespace}": _said(namespace)})

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """Read by name each time: no contents are kept anywhere but in the agent's history."""
        deployment = await self._deployment(key)
        if deployment is None:
            return ()
        namespace = text(deployment, "metadata", "namespace") or ""
        found = []
        for wanted in _config_map_names(deployment):
            try:
                found.append(await self._api.get(Kind.CONFIG_MAP, namespace, wanted))
            except Absent:
                continue
        return tuple(
            ConfigRecord(
                key=key,
                name=name(item),
                content_hash=config_data_hash(item),
                data=texts(item, "data"),
                health=RevisionHealth.UNKNOWN,
                seen_at=self._clock.now(),
            )
            for item in found
        )

    async def owner(self, namespace: str, pod: str) -> PodOwner | None:
        """By the controllers of the pod and of its ReplicaSet; reading a workload needs the same rights."""
        if not is_namespace_name(namespace) or not is_object_name(pod):
            return None
        found = await self._around.find(Kind.POD, namespace, pod)
        if found is None:
            return None
        owner = controller(found) or ("Pod", pod)
        if owner[0] == Kind.REPLICA_SET:
            replica_set = await self._around.find(Kind.REPLICA_SET, namespace, owner[1])
            owner = (controller(replica_set) if replica_set is not None else None) or owner
        if owner[0] != Kind.DEPLOYMENT:
            return PodOwner(kind=owner[0], name=owner[1])
        deployment = await self._around.find(Kind.DEPLOYMENT, namespace, owner[1])
        key = None if deployment is None else self._services.key(deployment)
        return PodOwner(kind=owner[0], name=owner[1], key=key)

    async def _deployment(self, key: ServiceKey) -> JsonObject | None:
        """The one Deployment of a service: by settings, by label, or by name."""
        place = self._services.place(key)
        if place is not None:
            return await self._objects.find(Kind.DEPLOYMENT, place.namespace, place.name)
        namespace = self._services.namespace(key.environment)
        if namespace is None or not is_label_value(key.service):
            return None
        labelled = await self._objects.labelled(Kind.DEPLOYMENT, namespace, key.service)
        candidates = {name(item): item for item in labelled}
        if is_object_name(key.service) and key.service not in candidates:
            namesake = await self._objects.find(Kind.DEPLOYMENT, namespace, key.service)
            if namesake is not None:
                candidates[key.service] = namesake
        ours = [item for item in candidates.values() if self._services.belongs(item, key)]
        if len(ours) > 1:
            names = ", ".join(sorted(name(item) for item in ours))
            raise Invalid(
                f"{key} maps to several Deployments of namespace {namespace}: {names};"
                " name one in SERVICE_WORKLOADS"
            )
        return ours[0] if ours else None

    async def _config_maps(self, deployment: JsonObject) -> tuple[JsonObject, ...]:
        """The ConfigMaps that the template refers to and that exist."""
        namespace = text(deployment, "metadata", "namespace") or ""
        found = [
            await self._objects.find(Kind.CONFIG_MAP, namespace, wanted)
            for wanted in _config_map_names(deployment)
        ]
        return tuple(item for item in found if item is not None)


def _config_map_names(deployment: JsonObject) -> tuple[str, ...]:
    return tuple(one for one in config_map_names(template_of(deployment)) if is_object_name(one))


def _said(item: JsonObject) -> bool | None:
    return said(texts(item, "metadata", "labels"), texts(item, "metadata", "annotations"))


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesCluster:
    """Everything `connect` built."""

    reader: KubernetesReader
    """Workloads from the API server: for an incident under way."""
    steady: KubernetesReader
    """Workloads from the view: for what looks at every service again and again."""
    rehearsal: KubernetesRehearsal
    watch: KubernetesWatch
    writer: KubernetesWriter | None
    """None in a dry run."""
    connections: Connections

    async def close(self) -> None:
        """Close every connection; the ports must not be used after it."""
        await self.connections.close()


class Connections:
    """Opens connections to the configured API server and closes them all."""

    def __init__(self, open_one: Callable[[bool], Connection]) -> None:
        self._open_one = open_one
        self._open: list[Connection] = []

    def reading(self) -> ReadApi:
        """A connection that reads; should it ever be made to write, the server would not persist it."""
        return ReadApi(self._add(dry_run=True))

    def patching(self, *, dry_run: bool) -> PatchApi:
        return PatchApi(self._add(dry_run=dry_run))

    def _add(self, *, dry_run: bool) -> Connection:
        self._open.append(self._open_one(dry_run))
        return self._open[-1]

    async def close(self) -> None:
        while self._open:
            await self._open.pop().close()


def connect(settings: Settings, clock: Clock) -> KubernetesCluster | None:
    """The cluster of the settings, without asking it anything yet; None when they name none.

    Raises `ConfigurationError` when the settings or the kubeconfig are wrong.
    """
    config = load_config(settings)
    if config is None:
        return None
    services = ServiceMap(
        environment_namespaces=settings.environment_namespaces,
        service_workloads=settings.service_workloads,
    )
    connections = Connections(
        lambda dry_run: Connection(config, timeout_seconds=settings.kube_timeout_seconds, dry_run=dry_run)
    )
    api = connections.reading()
    streams: dict[str, ReadApi] = {}

    def stream(namespace: str) -> ReadApi:
        if namespace not in streams:
            streams[namespace] = connections.reading()
        return streams[namespace]

    live = LiveObjects(api, services, clock)
    view = ClusterView(stream, live, services, clock)
    return KubernetesCluster(
        reader=KubernetesReader(api, services, clock, objects=live, around=view),
        steady=KubernetesReader(api, services, clock, objects=view, around=view),
        rehearsal=KubernetesRehearsal(api, connections.patching(dry_run=True)),
        watch=KubernetesWatch(view, clock),
        writer=None if settings.dry_run else KubernetesWriter(api, connections.patching(dry_run=False)),
        connections=connections,
    )

"""The Kubernetes cluster behind the cluster ports.

`connect` builds what the settings allow and is called by `app.bootstrap` alone.
In a dry run there is no `KubernetesWriter` (promise 5); `KubernetesRehearsal`
asks the API server with `dryRun=All`. Reading, request building and error
mapping live in `kubernetes/views`, `patches.py` and `errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.agent.batch.runs import JOB
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut, opt_out_of, said
from app.agent.guardrails.workload_kinds import CLUSTER_WIDE
from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import Action, Snapshot
from app.agent.ports.cluster import PodOwner, UnwatchedWorkload
from app.agent.workload import (
    ConfigRecord,
    ObjectRef,
    ReleaseRecord,
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
from app.connectors.kubernetes.catalog import WorkloadCatalog
from app.connectors.kubernetes.changes.nodes import OWN_CORDONS, own_cordon
from app.connectors.kubernetes.changes.repeating import owner_of_job, read_repeated
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.connection import ConnectionMaker
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import (
    condition_of,
    controller,
    flag,
    kind_of,
    mapping,
    name,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.mapping import (
    WORKLOADS,
    ServiceMap,
    is_namespace_name,
    is_object_name,
)
from app.connectors.kubernetes.patches import snapshot_body, target_ref
from app.connectors.kubernetes.reading.batches import KubernetesBatches
from app.connectors.kubernetes.reading.logs import KubernetesLogs
from app.connectors.kubernetes.reading.nodes import read_load
from app.connectors.kubernetes.reading.objects import LiveObjects, Objects
from app.connectors.kubernetes.reading.view import ClusterView
from app.connectors.kubernetes.releases.records import release_of, release_records, selector_of
from app.connectors.kubernetes.routes.calls import services_called
from app.connectors.kubernetes.templates import config_maps_of
from app.connectors.kubernetes.views import (
    WorkloadObjects,
    config_data_hash,
    target_state,
    workload_view,
)
from app.connectors.kubernetes.views.disruption import disruption_of
from app.connectors.kubernetes.watch import KubernetesWatch
from app.connectors.kubernetes.writing import (
    REVISIONS,
    KubernetesRehearsal,
    KubernetesWriter,
    get_object,
    owners_of_pods,
)
from app.errors import Forbidden


class KubernetesReader:
    """`ClusterReader` over one API server.

    What an action rests on is read by name from the API server each time. `objects` are
    what a view of a workload is made from, and the PodDisruptionBudgets of an action;
    `around` is what a view is completed with.
    """

    def __init__(
        self,
        api: ReadApi,
        services: ServiceMap,
        clock: Clock,
        *,
        objects: Objects,
        around: Objects,
        releases: bool = False,
        routes: bool = False,
    ) -> None:
        """`releases`: read the records of Helm's releases; `routes`: what carries requests to pods."""
        self._releases = releases
        self._routes = routes
        self._api = api
        self._services = services
        self._clock = clock
        self._objects = objects
        self._around = around
        self._catalog = WorkloadCatalog(services, objects=objects, around=around)

    async def ping(self) -> None:
        """Raises when the API server does not answer, or does not let the agent read."""
        await self._api.version(Kind.DEPLOYMENT, self._services.namespaces()[0])

    async def services(self) -> tuple[ServiceKey, ...]:
        return await self._catalog.services()

    async def unwatched(self) -> tuple[UnwatchedWorkload, ...]:
        return await self._catalog.unwatched()

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        workload = await self._catalog.workload(key)
        if workload is None:
            return None
        namespace = text(workload, "metadata", "namespace") or ""
        selector = mapping(workload, "spec", "selector")
        revisions = await self._objects.controlled(
            REVISIONS[Kind(kind_of(workload))], namespace, selector, {uid(workload)}
        )
        owners = owners_of_pods(workload, revisions)
        pods = await self._objects.controlled(Kind.POD, namespace, selector, owners)
        config_maps = await self._config_maps(workload)
        about = {uid(item) for item in (workload, *revisions, *pods)}
        warnings = await self._around.warnings(namespace, about)
        controllers = await self._around.controllers(namespace)
        records, unread = await self._release_records(workload)
        found = WorkloadObjects(
            workload=workload,
            revisions=revisions,
            pods=tuple(item for item in pods if text(item, "metadata", "deletionTimestamp") is None),
            config_maps=config_maps,
            events=warnings.items,
            unread=(*warnings.unread, *controllers.unread, *unread),
            autoscalers=controllers.autoscalers,
            stand_ins=controllers.stand_ins,
            own_cordons=await self._own_cordons(pods),
            release_records=records,
            migrations=await self._around.migrations(namespace),
            routes=await self._around.routes(namespace, key.environment) if self._routes else None,
            service=key.service,
            calls=services_called(workload, config_maps, self._services),
        )
        ref = ObjectRef(kind=kind_of(workload), namespace=namespace, name=name(workload))
        return workload_view(found, ref, self._clock.now())

    async def _release_records(
        self, workload: JsonObject
    ) -> tuple[tuple[ReleaseRecord, ...], tuple[str, ...]]:
        """The revisions of the release that wrote it, and why they could not be read."""
        release = release_of(workload) if self._releases else None
        if release is None:
            return (), ()
        try:
            items = await self._api.metadata(Kind.SECRET, release[0], labels=selector_of(release[1]))
        except Forbidden as error:
            return (), (str(error),)
        return release_records(items), ()

    async def _own_cordons(self, pods: Sequence[JsonObject]) -> tuple[str, ...]:
        """The nodes that the agent cordoned; asked for only while a pod has no place."""
        waiting = (text(condition_of(pod, "PodScheduled"), "status") for pod in pods)
        if "False" not in waiting:
            return ()
        try:
            listing = await self._api.list(Kind.NODE, "", labels=OWN_CORDONS)
        except Forbidden:
            return ()
        return tuple(sorted(name(item) for item in listing.items if own_cordon(item)))

    async def target(self, action: Action) -> TargetState:
        ref = target_ref(action)
        if ref.kind == JOB:
            return await read_repeated(self._api, ref)
        return target_state(ref, await get_object(self._api, ref), action)

    async def snapshot(self, action: Action) -> Snapshot:
        ref = target_ref(action)
        if ref.kind == JOB:
            return Snapshot(ref=ref, token=(await read_repeated(self._api, ref)).token, body={})
        current = await get_object(self._api, ref)
        return Snapshot(ref=ref, token=target_state(ref, current).token, body=snapshot_body(ref, current))

    async def disruption(self, action: Action) -> Disruption | None:
        ref = target_ref(action)
        if ref.kind not in WORKLOADS:
            return None
        workload = await get_object(self._api, ref)
        budgets = await self._objects.budgets(ref.namespace)
        return disruption_of(workload, budgets.items, "; ".join(budgets.unread) or None)

    async def cordons(self, node: ObjectRef) -> NodeCordons:  # noqa: ARG002 - there is one cluster
        """Counted from the nodes as they are, not from the agent's record."""
        nodes, cordoned, own = 0, [], []
        try:
            async for page in self._api.pages(Kind.NODE, ""):
                nodes += len(page.items)
                cordoned += [name(item) for item in page.items if flag(item, "spec", "unschedulable")]
                own += [name(item) for item in page.items if own_cordon(item)]
        except Forbidden as error:
            return NodeCordons(nodes=0, unread=str(error))
        return NodeCordons(nodes=nodes, cordoned=tuple(sorted(cordoned)), own=tuple(sorted(own)))

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        return await read_load(self._api, node.name, rooms=rooms)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        ref, served = target_ref(action), None
        item = await get_object(self._api, ref)
        marks = {str(ref): _said(item)}
        if ref.kind == JOB:
            above = await owner_of_job(self._api, item)
            if above is not None:
                marks[f"CronJob {ref.namespace}/{name(above)}"] = _said(above)
        elif ref.kind not in WORKLOADS:
            workload = await self._catalog.workload(key)
            if workload is None:
                return opt_out_of(marks, f"{key} has no workload", shared=ref.kind in CLUSTER_WIDE)
            home = text(workload, "metadata", "namespace") or ""
            served = ObjectRef(kind=kind_of(workload), namespace=home, name=name(workload))
            marks[str(served)] = _said(workload)
        unread = None
        for home in sorted({one.namespace for one in (ref, served) if one is not None and one.namespace}):
            try:
                marks[f"Namespace {home}"] = _said(await self._api.get(Kind.NAMESPACE, home, home))
            except Forbidden as error:
                unread = str(error)
        return opt_out_of(marks, unread, shared=ref.kind in CLUSTER_WIDE)

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """Read by name each time: no contents are kept anywhere but in the agent's history."""
        workload = await self._catalog.workload(key)
        if workload is None:
            return ()
        namespace = text(workload, "metadata", "namespace") or ""
        found = []
        for wanted in _config_map_names(workload):
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

    async def owner(self, pod: ObjectRef) -> PodOwner | None:
        """By the controllers of the pod and of its ReplicaSet; reading a workload needs the same rights."""
        namespace = pod.namespace
        if not is_namespace_name(namespace) or not is_object_name(pod.name):
            return None
        found = await self._around.find(Kind.POD, namespace, pod.name)
        if found is None:
            return None
        kind, named = controller(found) or ("Pod", pod.name)
        if kind == Kind.REPLICA_SET:
            replica_set = await self._around.find(Kind.REPLICA_SET, namespace, named)
            kind, named = (controller(replica_set) if replica_set is not None else None) or (kind, named)
        return PodOwner(kind=kind, name=named, key=await self._catalog.key_of(kind, namespace, named))

    async def _config_maps(self, workload: JsonObject) -> tuple[JsonObject, ...]:
        """The ConfigMaps that the template refers to and that exist."""
        namespace = text(workload, "metadata", "namespace") or ""
        found = [
            await self._objects.find(Kind.CONFIG_MAP, namespace, wanted)
            for wanted in _config_map_names(workload)
        ]
        return tuple(item for item in found if item is not None)


def _config_map_names(workload: JsonObject) -> tuple[str, ...]:
    return tuple(one for one in config_maps_of(workload) if is_object_name(one))


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
    ages: Callable[[], Mapping[str, float]]
    """Seconds since the API server last sent something, by the kinds that are watched."""
    logs: KubernetesLogs | None = None
    """None unless LOG_EVIDENCE is set."""
    batches: KubernetesBatches | None = None
    """None unless WATCH_JOBS is set."""

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

    def plain(self) -> Connection:
        """A connection that reads what is no object."""
        return self._add(dry_run=True)

    def patching(self, *, dry_run: bool) -> PatchApi:
        return PatchApi(self._add(dry_run=dry_run))

    def _add(self, *, dry_run: bool) -> Connection:
        self._open.append(self._open_one(dry_run))
        return self._open[-1]

    async def close(self) -> None:
        while self._open:
            await self._open.pop().close()


def connect(
    settings: Settings, clock: Clock, opened: ConnectionMaker = Connection
) -> KubernetesCluster | None:
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
        lambda dry_run: opened(config, timeout_seconds=settings.kube_timeout_seconds, dry_run=dry_run)
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
        reader=KubernetesReader(
            api, services, clock, objects=live, around=view, releases=settings.helm_releases, routes=True
        ),
        steady=KubernetesReader(api, services, clock, objects=view, around=view),
        rehearsal=KubernetesRehearsal(api, connections.patching(dry_run=True)),
        watch=KubernetesWatch(view, clock),
        writer=None if settings.dry_run else KubernetesWriter(api, connections.patching(dry_run=False)),
        connections=connections,
        ages=view.ages,
        logs=KubernetesLogs(connections.plain()) if settings.log_evidence else None,
        batches=KubernetesBatches(api, services, clock) if settings.watch_jobs else None,
    )

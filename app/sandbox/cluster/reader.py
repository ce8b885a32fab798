"""Reading: services, workloads, and what bounds an action."""

from __future__ import annotations

from app.agent.guardrails import workload_kinds
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut, opt_out_of, said
from app.agent.guardrails.workload_kinds import DEPLOYMENT
from app.agent.ids import ServiceKey
from app.agent.models import Action, Snapshot
from app.agent.ports.cluster import PodOwner, UnwatchedWorkload
from app.agent.routes import ROUTE_KINDS, RoutesView
from app.agent.services.annotated import SLO_PREFIX
from app.agent.workload import ConfigRecord, ObjectRef, RevisionHealth, TargetState, WorkloadView
from app.errors import Forbidden, Invalid
from app.sandbox.cluster.access import WorldAccess
from app.sandbox.cluster.batches import state_of
from app.sandbox.cluster.drains import load_of
from app.sandbox.cluster.views import (
    GITOPS,
    RELEASE,
    WITHOUT_TRAFFIC,
    autoscalers_of,
    config_map_view,
    last_scaled,
    managed_as,
    pod_view,
    released_by,
    revision_view,
    target_of,
)
from app.sandbox.objects import (
    ClusterNode,
    ConfigMap,
    Deployment,
    Job,
    Pod,
    ReplicaSet,
    StatefulSet,
    config_maps_of,
)
from app.sandbox.operations import Target, own_cordon, snapshot_body

_MAX_WARNINGS = 20


class SandboxReader:
    """A `ClusterReader` over a `World`."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access

    async def services(self) -> tuple[ServiceKey, ...]:
        self._access.ask("list", "Deployment")
        keys = (self._access.naming.key(*name) for name in self._access.world.services())
        return tuple(key for key in keys if key is not None)

    async def unwatched(self) -> tuple[UnwatchedWorkload, ...]:
        self._access.ask("list", "Deployment")
        world, naming = self._access.world, self._access.naming
        watched = {workload.meta.uid for workload, _ in world.named()}
        return tuple(
            UnwatchedWorkload(
                what=f"{workload.kind} {workload.meta.namespace}/{workload.meta.name}",
                why="another workload has its name",
            )
            for workload in world.api.workloads()
            if workload.meta.uid not in watched
            and naming.key(workload.meta.namespace, workload.meta.name) is not None
        )

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        deployment = self._deployment(key)
        return None if deployment is None else self._view(deployment)

    async def target(self, action: Action) -> TargetState:
        job = self._job(action)
        if job is not None:
            return state_of(self._access.world, job)
        return target_of(self._access.find(action, "get"), action)

    async def snapshot(self, action: Action) -> Snapshot:
        job = self._job(action)
        if job is not None:
            failed = state_of(self._access.world, job)
            return Snapshot(ref=failed.ref, token=failed.token, body={})
        found = self._access.find(action, "get")
        state = target_of(found)
        return Snapshot(ref=state.ref, token=state.token, body=snapshot_body(found))

    async def disruption(self, action: Action) -> Disruption | None:
        if self._job(action) is not None:
            return None
        found = self._access.find(action, "get")
        if not isinstance(found, Deployment):
            return None
        return Disruption(
            replicas=found.replicas, missing_at_once=found.missing_at_once, serving=found.status.available
        )

    async def cordons(self, node: ObjectRef) -> NodeCordons:  # noqa: ARG002 - there is one cluster
        world = self._access.world
        try:
            self._access.ask("list", ClusterNode.kind)
        except Forbidden as error:
            return NodeCordons(nodes=0, unread=str(error))
        cordoned = [one for one in world.api.list(ClusterNode) if one.unschedulable]
        return NodeCordons(
            nodes=len(world.nodes),
            cordoned=tuple(sorted(one.meta.name for one in cordoned)),
            own=tuple(sorted(one.meta.name for one in cordoned if own_cordon(one))),
        )

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        try:
            self._access.ask("list", "Pod")
            self._access.ask("list", ClusterNode.kind)
        except Forbidden as error:
            return NodeLoad(node=node.name, unread=str(error))
        return load_of(self._access.world, node.name, rooms=rooms)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        job = self._job(action)
        if job is not None:
            return self._opt_out_of(job)
        found = self._access.find(action, "get")
        ref = target_of(found).ref
        shared = ref.kind in workload_kinds.CLUSTER_WIDE
        things: list[Target] = [found]
        if not isinstance(found, Deployment):
            workload = self._deployment(key)
            if workload is None:
                marks = {str(ref): said(found.meta.labels, found.meta.annotations)}
                return opt_out_of(marks, f"{key} has no workload", shared=shared)
            things.append(workload)
        marks = {str(target_of(one).ref): said(one.meta.labels, one.meta.annotations) for one in things}
        try:
            self._access.ask("get", "Namespace")
        except Forbidden as error:
            return opt_out_of(marks, str(error), shared=shared)
        for home in sorted({one.meta.namespace for one in things if one.meta.namespace}):
            marks[f"Namespace {home}"] = said(self._access.world.namespaces.get(home, {}))
        return opt_out_of(marks, shared=shared)

    def _job(self, action: Action) -> Job | None:
        """The Job that the action is on; None for an action on something else."""
        ref = action.target
        if ref is None or ref.kind != Job.kind:
            return None
        self._access.ask("get", Job.kind)
        return self._access.world.api.get(Job, ref.namespace, ref.name)

    def _opt_out_of(self, job: Job) -> OptOut:
        world, home = self._access.world, job.meta.namespace
        marks = {f"Job {home}/{job.meta.name}": said(job.meta.labels, job.meta.annotations)}
        cron = world.jobs.cron_jobs.get((home, job.cron_job or ""))
        if cron is not None:
            marks[f"CronJob {home}/{cron.name}"] = said(cron.annotations)
        try:
            self._access.ask("get", "Namespace")
        except Forbidden as error:
            return opt_out_of(marks, str(error))
        marks[f"Namespace {home}"] = said(world.namespaces.get(home, {}))
        return opt_out_of(marks)

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        deployment = self._deployment(key)
        if deployment is None:
            return ()
        return tuple(
            ConfigRecord(
                key=key,
                name=config.meta.name,
                content_hash=config.content_hash,
                data=dict(config.data),
                health=RevisionHealth.UNKNOWN,
                seen_at=self._access.world.engine.now,
            )
            for config in self._config_maps(deployment)
        )

    async def owner(self, pod: ObjectRef) -> PodOwner | None:
        self._access.ask("list", "Pod")
        api, namespace = self._access.world.api, pod.namespace
        found = next((p for p in api.list(Pod, namespace) if p.meta.name == pod.name), None)
        if found is None:
            return None
        self._access.ask("list", "ReplicaSet")
        above = next((r for r in api.list(ReplicaSet, namespace) if r.meta.uid == found.owner_uid), None)
        if above is None:
            return PodOwner(kind="Pod", name=pod.name)
        workload = next((w for w in api.workloads(namespace) if w.meta.uid == above.owner_uid), None)
        if workload is None:
            return PodOwner(kind="ReplicaSet", name=above.meta.name)
        service = self._access.world.service_of(workload)
        key = None if service is None else self._access.naming.key(namespace, service)
        return PodOwner(kind=workload.kind, name=workload.meta.name, key=key)

    def _deployment(self, key: ServiceKey) -> Deployment | None:
        self._access.ask("list", "Deployment")
        namespace, service = self._access.naming.name(key)
        found = self._access.world.workload(namespace, service)
        rivals = self._access.world.labelled(namespace, service)
        if found is None and len(rivals) > 1:
            names = ", ".join(sorted(w.meta.name for w in rivals))
            raise Invalid(f"{key} maps to several workloads: {names}; each is the service of its own name")
        return found

    def _config_maps(self, deployment: Deployment) -> list[ConfigMap]:
        self._access.ask("get", "ConfigMap")
        there = self._access.world.api.list(ConfigMap, deployment.meta.namespace)
        return [c for c in there if c.meta.name in config_maps_of(deployment)]

    def _routes(self, deployment: Deployment) -> RoutesView:
        """What carries requests to its pods, without the kinds that the agent may not list."""
        unread = []
        for kind in ROUTE_KINDS:
            try:
                self._access.ask("list", kind)
            except Forbidden:
                unread.append(kind)
        world = self._access.world
        service = world.service_of(deployment) or deployment.meta.name
        return world.routes.view(deployment.meta.namespace, service, tuple(unread))

    def _view(self, deployment: Deployment) -> WorkloadView:
        world = self._access.world
        owned = world.controller.replica_sets(deployment)
        status, annotations = deployment.status, deployment.meta.annotations
        wanted = deployment.replicas
        observed = status.observed_generation == deployment.meta.generation
        complete = observed and status.updated == status.replicas == status.available == wanted
        labelled = {**deployment.meta.labels, **annotations}
        warnings = [
            f"{event.reason}: {event.message}"
            for event in reversed(world.kubelet.events)
            if (event.namespace, event.owner) == (deployment.meta.namespace, deployment.meta.name)
        ]
        return WorkloadView(
            target=target_of(deployment),
            observed_at=world.engine.now,
            desired_replicas=wanted,
            updated_replicas=status.updated,
            ready_replicas=status.ready,
            available_replicas=status.available,
            total_replicas=status.replicas,
            spec_observed=observed,
            paused=deployment.paused,
            rollout_complete=complete,
            progress_deadline_exceeded=status.reason == "ProgressDeadlineExceeded"
            and deployment.kind == DEPLOYMENT,
            replica_failure=status.replica_failure,
            replica_failure_since=status.replica_failure_since,
            progress_deadline_seconds=int(deployment.progress_deadline_seconds),
            trusted_without_traffic=annotations.get(WITHOUT_TRAFFIC) == "true",
            current_revision=owned[0].revision if owned else 0,
            revisions=tuple(revision_view(r, world.controller.pods(r), current=r is owned[0]) for r in owned),
            pods=tuple(pod_view(p, r) for r in owned for p in world.controller.pods(r)),
            config_maps=tuple(config_map_view(c) for c in self._config_maps(deployment)),
            warnings=tuple(warnings[:_MAX_WARNINGS]),
            managed_by=next((owner for name, owner in GITOPS.items() if name in labelled), None),
            managed_as=managed_as(labelled),
            released_by=released_by(deployment),
            release_records=world.release_records.get(
                (deployment.meta.namespace, annotations.get(RELEASE, "")), ()
            ),
            slo_annotations=tuple(
                (name, value) for name, value in sorted(annotations.items()) if name.startswith(SLO_PREFIX)
            ),
            scaled=last_scaled(deployment),
            autoscalers=autoscalers_of(world, deployment),
            opted_out=said(deployment.meta.labels, annotations) is False,
            replaced_by_hand=isinstance(deployment, StatefulSet) and deployment.on_delete,
            partition=deployment.partition if isinstance(deployment, StatefulSet) else 0,
            one_by_one=isinstance(deployment, StatefulSet) and deployment.ordered,
            routes=self._routes(deployment),
            own_cordons=tuple(one.meta.name for one in world.api.list(ClusterNode) if own_cordon(one)),
        )

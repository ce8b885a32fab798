"""The four cluster ports over the simulated world, each a class of its own as the ports are.

They obey the same contract suite as the Kubernetes connector. Every message
that a person may read says that this is a simulation where that matters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import parts_held, same_ground
from app.agent.guardrails import workload_kinds
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.opt_out import OptOut, opt_out_of, said
from app.agent.guardrails.target_token import REPLICAS, makes_pods, workload_token
from app.agent.guardrails.workload_kinds import DEPLOYMENT, WORKLOAD_KINDS
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, ActionName, Rehearsal, Snapshot
from app.agent.ports.cluster import ClusterEvent, PodOwner, UnwatchedWorkload
from app.agent.services.annotated import SLO_PREFIX
from app.agent.workload import (
    AutoscalerView,
    ConfigMapView,
    ConfigRecord,
    FailingContainer,
    LogTail,
    ObjectRef,
    PodView,
    Revision,
    RevisionHealth,
    ScaleChange,
    TargetState,
    WorkloadView,
)
from app.errors import Conflict, Forbidden, Invalid, NotFound, PermanentError
from app.sandbox.api import Identity, Precondition, Thing
from app.sandbox.objects import (
    WORKLOADS,
    ClusterNode,
    ConfigMap,
    Deployment,
    Pod,
    ReplicaSet,
    digest,
    template_body,
)
from app.sandbox.operations import (
    FIELD_MANAGER,
    MARKER,
    Target,
    change_other,
    change_workload,
    check_deletable,
    mark,
    own_cordon,
    removed_token,
    snapshot_body,
    token_of,
)
from app.sandbox.world import AUTOSCALER, SAME_NAMES, ContainerLog, Naming, World, WorldSource

IRREVERSIBLE = "self-healing-devops-agent/irreversible"
WITHOUT_TRAFFIC = "self-healing-devops-agent/trust-without-traffic"
GITOPS = {
    "argocd.argoproj.io/tracking-id": "argocd",
    "argocd.argoproj.io/instance": "argocd",
    "kustomize.toolkit.fluxcd.io/name": "flux",
    "helm.toolkit.fluxcd.io/name": "flux",
}

RELEASE = "meta.helm.sh/release-name"

AGENT = Identity(name=FIELD_MANAGER)
WATCH_SECONDS = 0.5
_MAX_WARNINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """A world as one identity sees it, under one naming of environments."""

    worlds: WorldSource
    naming: Naming
    identity: Identity

    @property
    def world(self) -> World:
        """The world of this moment."""
        return self.worlds()

    def ask(self, verb: str, kind: str) -> None:
        self.world.api.ask(self.identity, verb, kind)

    def find(self, action: Action, verb: str) -> Target:
        """The object that an action names, if the identity may do `verb` with it."""
        ref = action.target
        if ref is None:
            raise Invalid(f"{action.name} touches no object")
        for kind in WORKLOADS:
            if ref.kind == kind.__name__:
                self.ask(verb, ref.kind)
                return self.world.api.get(kind, ref.namespace, ref.name)
        if ref.kind == "ConfigMap":
            self.ask(verb, ref.kind)
            return self.world.api.get(ConfigMap, ref.namespace, ref.name)
        if ACTIONS[action.name].removes and verb == "patch":
            verb = "delete"
        self.ask(verb, ref.kind)
        match ref.kind:
            case workload_kinds.NODE:
                return self.world.node(ref.name)
            case workload_kinds.POD:
                return self.world.api.get(Pod, ref.namespace, ref.name)
            case workload_kinds.AUTOSCALER:
                return self.world.bounds(ref.namespace, ref.name)
        raise Invalid(f"the agent does not work on a {ref.kind}")


class SandboxReader:
    """A `ClusterReader` over a `World`."""

    def __init__(self, access: _Access) -> None:
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
        return target_of(self._access.find(action, "get"), action)

    async def snapshot(self, action: Action) -> Snapshot:
        found = self._access.find(action, "get")
        state = target_of(found)
        return Snapshot(ref=state.ref, token=state.token, body=snapshot_body(found))

    async def disruption(self, action: Action) -> Disruption | None:
        found = self._access.find(action, "get")
        if not isinstance(found, Deployment):
            return None
        return Disruption(
            replicas=found.replicas, missing_at_once=found.missing_at_once, serving=found.status.available
        )

    async def cordons(self) -> NodeCordons:
        world = self._access.world
        try:
            self._access.ask("list", ClusterNode.kind)
        except Forbidden as error:
            return NodeCordons(nodes=0, unread=str(error))
        cordoned = [node for node in world.api.list(ClusterNode) if node.unschedulable]
        return NodeCordons(
            nodes=len(world.nodes),
            cordoned=tuple(sorted(node.meta.name for node in cordoned)),
            own=tuple(sorted(node.meta.name for node in cordoned if own_cordon(node))),
        )

    async def consent(self, action: Action, key: ServiceKey) -> OptOut:
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

    async def owner(self, namespace: str, pod: str) -> PodOwner | None:
        self._access.ask("list", "Pod")
        api = self._access.world.api
        found = next((p for p in api.list(Pod, namespace) if p.meta.name == pod), None)
        if found is None:
            return None
        self._access.ask("list", "ReplicaSet")
        above = next((r for r in api.list(ReplicaSet, namespace) if r.meta.uid == found.owner_uid), None)
        if above is None:
            return PodOwner(kind="Pod", name=pod)
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
        return [c for c in there if c.meta.name in deployment.template.config_maps]

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
            revisions=tuple(_revision(r, world.controller.pods(r)) for r in owned),
            pods=tuple(_pod(p, r) for r in owned for p in world.controller.pods(r)),
            config_maps=tuple(_config_map(c) for c in self._config_maps(deployment)),
            warnings=tuple(warnings[:_MAX_WARNINGS]),
            managed_by=next((owner for name, owner in GITOPS.items() if name in labelled), None),
            managed_as=next((labelled[name] for name in GITOPS if name in labelled), None),
            released_by=_released_by(deployment),
            release_records=world.release_records.get(
                (deployment.meta.namespace, annotations.get(RELEASE, "")), ()
            ),
            slo_annotations=tuple(
                (name, value) for name, value in sorted(annotations.items()) if name.startswith(SLO_PREFIX)
            ),
            scaled=_scaled(deployment),
            autoscalers=_autoscalers(world, deployment),
            opted_out=said(deployment.meta.labels, annotations) is False,
            own_cordons=tuple(one.meta.name for one in world.api.list(ClusterNode) if own_cordon(one)),
        )


LOG_LINES, LOG_BYTES = 200, 64 * 1024


class SandboxLogs:
    """`ContainerLogs` over a `World`."""

    def __init__(self, access: _Access) -> None:
        self._access = access

    async def tail(self, namespace: str, pod: str, container: str, *, previous: bool) -> LogTail:
        self._access.ask("get", "Pod/log")
        owner = await SandboxReader(self._access).owner(namespace, pod)
        if owner is None or container != "app":
            raise NotFound(f"pods/log {namespace}/{pod}: there is no such container")
        log = self._access.world.container_logs.get((namespace, owner.name), ContainerLog())
        ended = log.previous if previous else None
        lines = log.current if ended is None else ended
        kept = "\n".join(lines[-LOG_LINES:]).encode()[-LOG_BYTES:]
        return LogTail(lines=tuple(kept.decode(errors="replace").splitlines()), previous=ended is not None)


class _Changes:
    """One request to change an object, rehearsed or real."""

    def __init__(self, access: _Access) -> None:
        self._access = access

    def change(
        self,
        action: Action,
        target: TargetState,
        snapshot: Snapshot | None,
        *,
        intent_id: IntentId | None,
    ) -> TargetState:
        """Without an intent it is a dry run."""
        found = self._access.find(action, "patch")
        world = self._access.world
        if action.target != target.ref:
            raise Invalid(f"decided on {target.ref}, asked for {action.target}")
        only_if = Precondition(uid=target.uid, resource_version=target.resource_version)
        if isinstance(found, Deployment):
            owned = world.controller.replica_sets(found)
            moment = world.engine.now.isoformat()
            change = change_workload(action, owned, snapshot, moment)

            def mutate(deployment: Deployment) -> None:
                change(deployment)
                if intent_id is not None:
                    mark(deployment.meta.annotations, intent_id)

            dry = intent_id is None
            return target_of(
                world.api.change(found, mutate, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry), action
            )
        dry = intent_id is None
        if isinstance(found, Pod):
            check_deletable(action, found)
            world.api.remove(found, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry)
            return replace(target, token=removed_token(found))
        put = change_other(action, snapshot, intent_id)
        return target_of(
            world.api.change(found, put, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry), action
        )


class SandboxRehearsal:
    """A `ClusterRehearsal` over a `World`; holds no way to persist a change."""

    def __init__(self, access: _Access) -> None:
        self._access = access
        self._changes = _Changes(access)

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        try:
            now = target_of(self._access.find(action, "patch"))
            if same_ground(action, target.token, now.token):
                # Only the status moved since it was decided on.
                target = replace(target, resource_version=now.resource_version)
            after = self._changes.change(action, target, snapshot, intent_id=None)
            pods = self._with_a_pod(now, after)
            if pods and action.name is not ActionName.RESTORE:
                self._with_references(action)
        except (PermanentError, Conflict) as error:
            return Rehearsal(accepted=False, message=str(error))
        return Rehearsal(
            accepted=True, message=f"{action.target} would be changed (simulated API server){pods}"
        )

    def _with_references(self, action: Action) -> None:
        """`Invalid` where a ConfigMap that the new pods need does not exist."""
        found = self._access.find(action, "get")
        if not isinstance(found, Deployment):
            return
        wanted = action.parameters.get("revision")
        owned = self._access.world.controller.replica_sets(found)
        template = next((one.template for one in owned if one.revision == wanted), found.template)
        there = {one.meta.name for one in self._access.world.api.list(ConfigMap, found.meta.namespace)}
        for name in template.config_maps:
            if name not in there:
                raise Invalid(f"new pods would not start: ConfigMap {name} does not exist")

    def _with_a_pod(self, before: TargetState, after: TargetState) -> str:
        """Have one of the pods judged that would be made; how that ended, as the end of a sentence."""
        world, ref = self._access.world, after.ref
        if ref.kind not in WORKLOAD_KINDS or not makes_pods(before.token, after.token):
            return ""
        try:
            self._access.ask("create", "Pod")
        except Forbidden:
            return "; whether new pods would be admitted is not known: the agent has no right to create pods"
        try:
            world.api.admit_pod(ref.namespace, f"{ref.name}-rehearsal")
        except Forbidden as error:
            raise Invalid(f"new pods would be refused: {error}") from error
        return ", and a new pod from its template would be admitted"


class SandboxWriter:
    """A `ClusterWriter` over a `World`."""

    def __init__(self, access: _Access) -> None:
        self._changes = _Changes(access)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        return self._changes.change(action, target, snapshot, intent_id=intent_id)


class SandboxWatch:
    """A `ClusterWatch` over a `World`: looks what moved every so many seconds of the world's time."""

    def __init__(self, access: _Access, every_seconds: float = WATCH_SECONDS) -> None:
        self._access = access
        self._every_seconds = every_seconds

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        access, world = self._access, self._access.world
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "ConfigMap"):
            access.ask("watch", kind)
        moved = set(world.services())

        def notice(thing: Thing) -> None:
            moved.update(world.affected(thing))

        world.api.changed.append(notice)
        try:
            while True:
                if access.world is not world:
                    world.api.changed.remove(notice)
                    world = access.world
                    world.api.changed.append(notice)
                    moved = set(world.services())
                told = [access.naming.key(*name) for name in sorted(moved)]
                moved.clear()
                for key in told:
                    if key is not None:
                        yield ClusterEvent(key=key)
                await world.clock.sleep(self._every_seconds)
                world.catch_up()
        finally:
            world.api.changed.remove(notice)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxCluster:
    """The ports over a world, as one identity sees it; a writer exists only where one is asked for."""

    reader: SandboxReader
    rehearsal: SandboxRehearsal
    watch: SandboxWatch
    _access: _Access

    @classmethod
    def over(
        cls,
        world: World,
        *,
        naming: Naming = SAME_NAMES,
        identity: Identity = AGENT,
        watch_seconds: float = WATCH_SECONDS,
    ) -> SandboxCluster:
        """The ports over one world."""
        return cls.following(lambda: world, naming=naming, identity=identity, watch_seconds=watch_seconds)

    @classmethod
    def following(
        cls,
        worlds: WorldSource,
        *,
        naming: Naming = SAME_NAMES,
        identity: Identity = AGENT,
        watch_seconds: float = WATCH_SECONDS,
    ) -> SandboxCluster:
        """The ports over whichever world `worlds` returns: a watch notices that it is another one."""
        access = _Access(worlds=worlds, naming=naming, identity=identity)
        return cls(
            reader=SandboxReader(access),
            rehearsal=SandboxRehearsal(access),
            watch=SandboxWatch(access, watch_seconds),
            _access=access,
        )

    @property
    def logs(self) -> SandboxLogs:
        """The lines of containers; a dry run may read them too."""
        return SandboxLogs(self._access)

    def writer(self) -> SandboxWriter:
        """The side that changes the world; a dry run never asks for it (promise 5)."""
        return SandboxWriter(self._access)


def target_of(thing: Target, action: Action | None = None) -> TargetState:
    """The state that a decision or a write is bound to; with an action, who changed what it is about."""
    meta = thing.meta
    marker = meta.annotations.get(MARKER)
    held = () if action is None else parts_held(action)
    changers = [meta.changers[part] for part in held if part in meta.changers]
    return TargetState(
        ref=ObjectRef(kind=thing.kind, namespace=meta.namespace, name=meta.name),
        uid=meta.uid,
        resource_version=str(meta.resource_version),
        token=_token(thing) if isinstance(thing, Deployment) else token_of(thing),
        marker=None if marker is None else IntentId(marker),
        changed_by=changers[0] if changers else meta.changed_by,
    )


def _released_by(deployment: Deployment) -> str | None:
    release = deployment.meta.annotations.get(RELEASE)
    return None if release is None else f"Helm release {release}"


def _autoscalers(world: World, deployment: Deployment) -> tuple[AutoscalerView, ...]:
    found = world.autoscalers.get((deployment.meta.namespace, deployment.meta.name))
    return () if found is None else (found,)


def _scaled(deployment: Deployment) -> ScaleChange | None:
    """Who set the replicas last, in a change of its own; the subresource keeps no name with 0 replicas."""
    by = deployment.meta.changers.get(REPLICAS)
    if by is None:
        return None
    unnamed = by == AUTOSCALER and deployment.replicas == 0
    return ScaleChange(by=None if unnamed else by, at=deployment.meta.changed_at)


def _token(deployment: Deployment) -> str:
    return workload_token(
        deployment.meta.uid,
        generation=deployment.meta.generation,
        template=digest(template_body(deployment.template)),
        paused=deployment.paused,
        replicas=deployment.replicas,
        rest=digest(deployment.progress_deadline_seconds),
    )


def _revision(replica_set: ReplicaSet, pods: list[Pod]) -> Revision:
    template = replica_set.template
    marked = {**replica_set.meta.annotations, **dict(template.annotations)}
    return Revision(
        number=replica_set.revision,
        template_hash=template.hash_of("code", "config"),
        code_hash=template.hash_of("code"),
        config_hash=template.hash_of("config"),
        fields=template.fields,
        images=(template.image,),
        created_at=replica_set.meta.created_at,
        replicas=replica_set.replicas,
        ready_replicas=sum(pod.ready for pod in pods),
        irreversible=marked.get(IRREVERSIBLE) == "true",
        references=frozenset(f"ConfigMap {name}" for name in template.config_maps),
        memory_limits=() if template.memory_bytes is None else (("app", template.memory_bytes),),
    )


def _pod(pod: Pod, owner: ReplicaSet) -> PodView:
    return PodView(
        name=pod.meta.name,
        node=pod.node,
        phase=pod.phase,
        ready=pod.ready,
        restarts=pod.restarts,
        waiting_reason=pod.waiting_reason,
        last_termination_reason=pod.last_termination_reason,
        template_hash=owner.template.hash_of("code", "config"),
        created_at=pod.meta.created_at,
        failing=None
        if pod.ready
        else FailingContainer(name="app", message=pod.waiting_message, exit_code=pod.exit_code),
        ready_changed_at=pod.ready_changed_at,
    )


def _config_map(config: ConfigMap) -> ConfigMapView:
    return ConfigMapView(
        name=config.meta.name,
        content_hash=config.content_hash,
        resource_version=str(config.meta.resource_version),
        keys=tuple(sorted(config.data)),
        changed_at=config.meta.changed_at,
    )

"""What the agent reads, made of the objects of the world."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.target_parts import parts_held
from app.agent.guardrails.target_token import REPLICAS, workload_token
from app.agent.ids import IntentId
from app.agent.models import Action
from app.agent.workload import (
    AutoscalerView,
    ConfigMapView,
    FailingContainer,
    ObjectRef,
    PodView,
    Revision,
    ScaleChange,
    TargetState,
)
from app.sandbox.objects import ConfigMap, Deployment, Pod, ReplicaSet, digest, template_body
from app.sandbox.operations import MARKER, Target, token_of
from app.sandbox.world import AUTOSCALER, World

IRREVERSIBLE = "self-healing-devops-agent/irreversible"
WITHOUT_TRAFFIC = "self-healing-devops-agent/trust-without-traffic"
GITOPS = {
    "argocd.argoproj.io/tracking-id": "argocd",
    "argocd.argoproj.io/instance": "argocd",
    "kustomize.toolkit.fluxcd.io/name": "flux",
    "helm.toolkit.fluxcd.io/name": "flux",
}
"""What marks the workloads of a GitOps controller."""

_FLUX_KINDS = {"kustomize": "Kustomization", "helm": "HelmRelease"}

RELEASE = "meta.helm.sh/release-name"


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


def managed_as(marks: Mapping[str, str]) -> str | None:
    """What a GitOps controller wrote on a workload to find it again, of its labels and annotations."""
    for group, kind in _FLUX_KINDS.items():
        space, named = (marks.get(f"{group}.toolkit.fluxcd.io/{part}") for part in ("namespace", "name"))
        if space and named:
            return f"{kind}:{space}/{named}"
    return next((marks[name] for name, owner in GITOPS.items() if owner != "flux" and name in marks), None)


def released_by(deployment: Deployment) -> str | None:
    """The Helm release that wrote it, in words; None for one that no release wrote."""
    release = deployment.meta.annotations.get(RELEASE)
    return None if release is None else f"Helm release {release}"


def autoscalers_of(world: World, deployment: Deployment) -> tuple[AutoscalerView, ...]:
    """The autoscalers that set its replicas."""
    found = world.autoscalers.get((deployment.meta.namespace, deployment.meta.name))
    return () if found is None else (found,)


def last_scaled(deployment: Deployment) -> ScaleChange | None:
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


def revision_view(replica_set: ReplicaSet, pods: list[Pod], *, current: bool) -> Revision:
    """A revision, with those of its pods that are ready."""
    taken_up = replica_set.taken_up_at if current else None  # a cluster does not keep it of the others
    template = replica_set.template
    marked = {**replica_set.meta.annotations, **dict(template.annotations)}
    return Revision(
        number=replica_set.revision,
        template_hash=template.hash_of("code", "config"),
        code_hash=template.hash_of("code"),
        config_hash=template.hash_of("config"),
        fields=template.fields,
        images=(template.image,),
        created_at=taken_up or replica_set.meta.created_at,
        replicas=replica_set.replicas,
        ready_replicas=sum(pod.ready for pod in pods),
        irreversible=marked.get(IRREVERSIBLE) == "true",
        references=frozenset(f"ConfigMap {name}" for name in template.config_maps),
        memory_limits=() if template.memory_bytes is None else (("app", template.memory_bytes),),
    )


def pod_view(pod: Pod, owner: ReplicaSet) -> PodView:
    """A pod of a revision."""
    return PodView(
        name=pod.meta.name,
        uid=pod.meta.uid,
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
        else FailingContainer(
            name="app",
            message=pod.waiting_message,
            exit_code=pod.exit_code,
            last_ended_at=pod.last_ended_at,
        ),
        ready_changed_at=pod.ready_changed_at,
        containers=("app",),
    )


def config_map_view(config: ConfigMap) -> ConfigMapView:
    """A ConfigMap by its content and its keys; never a value."""
    return ConfigMapView(
        name=config.meta.name,
        content_hash=config.content_hash,
        resource_version=str(config.meta.resource_version),
        keys=tuple(sorted(config.data)),
        changed_at=config.meta.changed_at,
    )

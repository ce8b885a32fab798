"""Who else holds a workload: controllers, release tools, autoscalers, what runs in its place. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from app.agent.ids import JsonObject
from app.agent.workload import AutoscalerView, ObjectRef, ScaleChange
from app.connectors.kubernetes.fields import (
    controller,
    kind_of,
    mapping,
    moment,
    name,
    number,
    objects,
    text,
    texts,
)
from app.connectors.kubernetes.views.targets import last_change

_ARGO = "argocd.argoproj.io/"
TRACKING_PREFIXES = (_ARGO, "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/")
"""Labels by which a GitOps controller takes an object for its own, and prunes one that it did not make."""
_MANAGERS = {
    "argocd-controller": "argocd",
    "argocd-application-controller": "argocd",
    "kustomize-controller": "flux",
    "helm-controller": "flux",
    "configsync": "Config Sync",
    "fleetagent": "Fleet",
    "kapp-controller": "kapp-controller",
}
"""Field managers of controllers that put back what others change in a specification."""
_MARKS = {
    "configmanagement.gke.io/managed": "Config Sync",
    "objectset.rio.cattle.io/id": "Fleet",
    "kapp.k14s.io/app": "kapp-controller",
}
"""Labels and annotations of such controllers."""
_FLUX_KINDS = {"kustomize": "Kustomization", "helm": "HelmRelease"}
"""The groups of Flux's labels, and the kind of the object that they name."""
_STAND_IN_MANAGERS = {"rollouts-controller": "a Rollout", "flagger": "a Canary"}
"""Field managers of controllers that scale a workload to 0 and run its pods themselves."""
_HELM = "Helm"


def managed_by(workload: JsonObject) -> str | None:
    """The controller that owns a workload: `argocd`, `flux`, kind and name of an object, or None.

    An owner reference outranks labels and annotations, and these outrank the field
    managers that hold a part of the specification.
    """
    owner = controller(workload)
    if owner is not None:
        return " ".join(owner).strip()
    annotations = texts(workload, "metadata", "annotations")
    labels = texts(workload, "metadata", "labels")
    if _ARGO + "tracking-id" in annotations or _ARGO + "instance" in labels:
        return "argocd"
    if "app.kubernetes.io/instance" in labels and any(item.startswith(_ARGO) for item in annotations):
        return "argocd"
    if any(f"{group}.toolkit.fluxcd.io/name" in labels for group in _FLUX_KINDS):
        return "flux"
    marked = next((by for mark, by in _MARKS.items() if mark in annotations or mark in labels), None)
    return marked or next((_MANAGERS[by] for by in _spec_managers(workload) if by in _MANAGERS), None)


def managed_as(workload: JsonObject) -> str | None:
    """What a GitOps controller wrote on a workload to find it again.

    The object that deploys it (`Kustomization:NAMESPACE/NAME`), a tracking id, else an instance.
    """
    labels = texts(workload, "metadata", "labels")
    if managed_by(workload) == "flux":
        for group, kind in _FLUX_KINDS.items():
            space, named = (labels.get(f"{group}.toolkit.fluxcd.io/{part}") for part in ("namespace", "name"))
            if space and named:
                return f"{kind}:{space}/{named}"
        return None
    tracking = texts(workload, "metadata", "annotations").get(_ARGO + "tracking-id")
    return tracking or labels.get(_ARGO + "instance") or labels.get("app.kubernetes.io/instance")


def _spec_managers(workload: JsonObject) -> Iterator[str]:
    """The field managers that hold a part of the specification, by more than its scale."""
    for entry in objects(workload, "metadata", "managedFields"):
        by = text(entry, "manager")
        if by is not None and text(entry, "subresource") is None and "f:spec" in mapping(entry, "fieldsV1"):
            yield by


def released_by(workload: JsonObject) -> str | None:
    """The Helm release of a workload that no controller watches."""
    annotations = texts(workload, "metadata", "annotations")
    release = annotations.get("meta.helm.sh/release-name")
    by_helm = text(workload, "metadata", "labels", "app.kubernetes.io/managed-by") == _HELM
    if release is None and not by_helm:
        return None
    return f"Helm release {release or text(workload, 'metadata', 'labels', 'app.kubernetes.io/instance')}"


def scaled(workload: JsonObject, replica_sets: Iterable[JsonObject] = ()) -> ScaleChange | None:
    """Who wrote the replicas last; None where `managedFields` does not say.

    A write through the subresource `scale` keeps no time, and one of 0 replicas no name either: then
    the ReplicaSets say when they followed.
    """
    replicas = (("f:spec", "f:replicas"),)
    entry = last_change(workload, replicas)
    by, at = text(entry, "manager"), moment(entry, "time")
    zero = number(workload, "spec", "replicas") == 0
    if by is None and not (zero and objects(workload, "metadata", "managedFields")):
        return None
    if at is None:
        followed = (moment(last_change(item, replicas), "time") for item in replica_sets)
        at = max((time for time in followed if time is not None), default=None)
    return ScaleChange(by=by, at=at)


def served_by(workload: JsonObject, stand_ins: Iterable[JsonObject]) -> str | None:
    """The object that runs a workload's pods in its place, of those that were read, else by its mark."""
    named, kind = name(workload), kind_of(workload)
    for item in stand_ins:
        for field in ("workloadRef", "targetRef"):
            ref = mapping(item, "spec", field)
            if text(ref, "kind") == kind and text(ref, "name") == named:
                return f"{text(item, 'kind')} {name(item)}"
    last = scaled(workload)
    if last is None or last.by is None or number(workload, "spec", "replicas") != 0:
        return None
    return next((words for by, words in _STAND_IN_MANAGERS.items() if last.by.startswith(by)), None)


def autoscalers_of(ref: ObjectRef, replicas: int, items: Iterable[JsonObject]) -> tuple[AutoscalerView, ...]:
    """Those of the autoscalers of a namespace that aim at this workload, by kind and name.

    `replicas` is what the workload asks for: what an autoscaler wants, unless it says otherwise.
    """
    views = (_autoscaler(item, replicas) for item in items if _aims_at(item, ref))
    return tuple(sorted(views, key=lambda one: (one.kind, one.name)))


def _aims_at(item: JsonObject, ref: ObjectRef) -> bool:
    field = "targetRef" if text(item, "kind") == "VerticalPodAutoscaler" else "scaleTargetRef"
    aim = mapping(item, "spec", field)
    return (text(aim, "kind") or "Deployment") == ref.kind and text(aim, "name") == ref.name


_BOUNDS: Mapping[str, tuple[str, str, int, int]] = {
    "HorizontalPodAutoscaler": ("minReplicas", "maxReplicas", 1, 1),
    "ScaledObject": ("minReplicaCount", "maxReplicaCount", 0, 100),
}
"""The fields of the bounds, and what holds where they are not set."""


def _autoscaler(item: JsonObject, replicas: int) -> AutoscalerView:
    kind = text(item, "kind") or ""
    bounds = _BOUNDS.get(kind)
    if bounds is None:
        return AutoscalerView(kind=kind, name=name(item))
    low, high, least, most = bounds
    minimum, maximum = number(item, "spec", low), number(item, "spec", high)
    wanted = number(item, "status", "desiredReplicas")
    return AutoscalerView(
        kind=kind,
        name=name(item),
        minimum=least if minimum is None else minimum,
        maximum=most if maximum is None else maximum,
        wanted=replicas if wanted is None else wanted,
    )

"""The spelling of label names: of several dialects, each has one canonical name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SEPARATORS = re.compile(r"[./-]")
_DIALECTS: Mapping[str, tuple[str, ...]] = {
    "namespace": (
        "k8s_namespace_name",
        "kube_namespace",
        "kubernetes_namespace",
        "kubernetes_namespace_name",
        "namespace_name",
    ),
    "app_kubernetes_io_name": ("label_app_kubernetes_io_name", "kube_service"),
    "deployment": (
        "k8s_deployment_name",
        "kube_deployment",
        "kubernetes_deployment",
        "kubernetes_deployment_name",
    ),
    "pod": ("k8s_pod_name", "pod_name", "kube_pod_name", "kubernetes_pod_name"),
    "container": ("k8s_container_name", "container_name", "kube_container_name", "kubernetes_container_name"),
    "statefulset": ("k8s_statefulset_name", "kube_stateful_set", "kubernetes_statefulset_name"),
    "daemonset": ("k8s_daemonset_name", "kube_daemon_set", "kubernetes_daemonset_name"),
    "cronjob": ("k8s_cronjob_name", "kube_cronjob", "kubernetes_cronjob_name"),
    "job_name": ("k8s_job_name", "kube_job", "kubernetes_job_name"),
}
KINDS: Mapping[str, str] = {
    "cronjob": "CronJob",
    "job_name": "Job",
    "horizontalpodautoscaler": "HorizontalPodAutoscaler",
    "hpa": "HorizontalPodAutoscaler",
    "scaledobject": "ScaledObject",
    "scaledjob": "ScaledJob",
    "replicationcontroller": "ReplicationController",
    "poddisruptionbudget": "PodDisruptionBudget",
    "resourcequota": "ResourceQuota",
    "persistentvolumeclaim": "PersistentVolumeClaim",
    "persistentvolume": "PersistentVolume",
}
"""Labels that name an object which the agent does not act on."""


def spelled(name: str) -> str:
    """The name with one separator: dots, slashes and dashes read as underscores."""
    return _SEPARATORS.sub("_", name)


def canonical_name(name: str) -> str:
    """The one spelling and, of several dialects, the one name of a label; `exported_` is kept."""
    plain = spelled(name)
    plain = plain.lower() if plain.lower() in KINDS else plain
    prefix = "exported_" if plain.startswith("exported_") else ""
    bare = plain.removeprefix("exported_")
    return prefix + next((one for one, others in _DIALECTS.items() if bare in others), bare)


def canonical_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Non-empty labels under one spelling and, of several dialects, one name."""
    found: dict[str, str] = {}
    for name, value in labels.items():
        if value:
            plain = spelled(name)
            found.setdefault(plain.lower() if plain.lower() in KINDS else plain, value)
    for name, others in _DIALECTS.items():
        for prefix in ("", "exported_"):
            replacement = next((found[prefix + o] for o in others if prefix + o in found), None)
            if replacement is not None:
                found.setdefault(prefix + name, replacement)
    return found

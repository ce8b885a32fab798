"""The settings of each connected cluster, and which cluster an environment is in.

Without CLUSTERS there is one cluster, whose name is empty, and its settings are the settings.
"""

from __future__ import annotations

from app.agent.guardrails.limits.clusters import UNNAMED, Clusters
from app.config import Settings


def clusters_of(settings: Settings) -> Clusters:
    """Which cluster each environment is in."""
    return Clusters(
        environments={
            environment: name
            for name, one in settings.clusters.items()
            for environment in one.environment_namespaces
        }
    )


def cluster_names(settings: Settings) -> tuple[str, ...]:
    """The names of the clusters, the one without a name first, where it is connected or the only one."""
    unnamed = not settings.clusters or settings.kube_in_cluster or settings.kubeconfig is not None
    return (*((UNNAMED,) if unnamed else ()), *settings.clusters)


def of_cluster(settings: Settings, name: str) -> Settings:
    """The settings as they are for one cluster alone; `KeyError` for a name that CLUSTERS does not have."""
    if not settings.clusters:
        return settings
    clusters = clusters_of(settings)
    update: dict[str, object] = {
        "clusters": {},
        "service_workloads": {
            service: place
            for service, place in settings.service_workloads.items()
            if clusters.of(service.partition("/")[0]) == name
        },
    }
    if name:
        one = settings.clusters[name]
        update |= {
            "kubeconfig": one.kubeconfig,
            "kube_context": one.context,
            "kube_in_cluster": one.in_cluster,
            "environment_namespaces": one.environment_namespaces,
            "alert_home_labels": one.labels(name),
        }
    return settings.model_copy(update=update)


def all_namespaces(settings: Settings) -> dict[str, str]:
    """The namespace of each environment of every cluster, as far as the settings name it."""
    found = dict(settings.environment_namespaces)
    for one in settings.clusters.values():
        found |= one.environment_namespaces
    return found

"""Opens a connection to each cluster that the settings name."""

from __future__ import annotations

from app.clock import Clock
from app.config import Settings
from app.connectors.k8s import KubernetesCluster, connect
from app.connectors.kubernetes.connection import Connection, ConnectionMaker
from app.errors import ConfigurationError
from app.terms.clusters import cluster_names, of_cluster

_FIELDS = {
    "KUBECONFIG": "kubeconfig",
    "KUBE_CONTEXT": "context",
    "KUBE_IN_CLUSTER": "in_cluster",
    "ENVIRONMENT_NAMESPACES": "environment_namespaces",
}
"""The settings of the cluster without a name, and the fields of CLUSTERS that stand for them."""


def connect_named(
    settings: Settings, clock: Clock, opened: ConnectionMaker = Connection
) -> dict[str, KubernetesCluster]:
    """The clusters by name, without asking them anything yet; empty where the settings name none.

    Raises `ConfigurationError`, naming the cluster, for one that cannot be connected.
    """
    found: dict[str, KubernetesCluster] = {}
    for name in cluster_names(settings):
        cluster = connect_one(settings, name, clock, opened)
        if cluster is not None:
            found[name] = cluster
    return found


def connect_one(
    settings: Settings, name: str, clock: Clock, opened: ConnectionMaker = Connection
) -> KubernetesCluster | None:
    """One cluster by its name; raises as `connect_named`."""
    try:
        return connect(of_cluster(settings, name), clock, opened)
    except ConfigurationError as error:
        if not name:
            raise
        raise ConfigurationError(f"CLUSTERS.{name}: {_with_fields(str(error))}") from error


def _with_fields(message: str) -> str:
    for setting, name in _FIELDS.items():
        message = message.replace(setting, name)
    return message

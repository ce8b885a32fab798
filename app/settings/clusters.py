"""CLUSTERS: further clusters beside the one of KUBECONFIG, each with a name, and what contradicts in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.settings.values import Named, Namespace


class ClusterSetting(BaseModel):
    """One cluster of CLUSTERS: how it is reached, its environments, and how its alerts are labelled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: Path | None = None
    context: str | None = None
    in_cluster: bool = False
    environment_namespaces: dict[Named, Namespace] = Field(default_factory=dict)
    alert_labels: dict[Named, str] = Field(default_factory=dict)
    argocd_destination: str | None = None
    """The `server` or the `name` of this cluster in the destination of an Application."""

    @model_validator(mode="after")
    def _reached_and_named(self) -> ClusterSetting:
        if self.in_cluster is (self.kubeconfig is not None):
            raise ValueError("give either kubeconfig or in_cluster: true")
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("context names a context of kubeconfig; give both")
        if not self.environment_namespaces:
            raise ValueError(
                'environment_namespaces is missing; name its environments: {"prod-east": "payments"}'
            )
        return self

    def labels(self, name: str) -> dict[str, str]:
        """The labels of its alerts: `cluster` with its name where none are given."""
        return dict(self.alert_labels) or {"cluster": name}


def check_clusters(given: Mapping[str, Any]) -> None:
    """`ValueError` for clusters that cannot be told apart, naming both and the fix."""
    clusters: Mapping[str, ClusterSetting] = given["clusters"]
    if not clusters:
        return
    unnamed = given["kube_in_cluster"] or given["kubeconfig"] is not None
    own: Mapping[str, str] = given["environment_namespaces"]
    if unnamed and not own:
        raise ValueError(
            "CLUSTERS needs ENVIRONMENT_NAMESPACES for the cluster of KUBECONFIG: without it every namespace "
            "is an environment of that cluster"
        )
    if own and not unnamed:
        raise ValueError(
            "ENVIRONMENT_NAMESPACES belongs to no cluster: set KUBECONFIG, or move the environments to "
            "environment_namespaces of a cluster of CLUSTERS"
        )
    _once("environment", _environments(clusters, own), "an environment is in one cluster: rename one of them")
    _once("connection", _connections(clusters, given), "two names of one cluster: keep one")
    _once("labels", _labels(clusters, given), "set alert_labels that only its own alerts have")
    _measured_apart(given, clusters, own)
    known = {environment for environment, _ in _environments(clusters, own)}
    for service in given["service_workloads"]:
        environment = service.partition("/")[0]
        if environment not in known and not unnamed:
            raise ValueError(
                f"SERVICE_WORKLOADS names {service}, and no cluster has environment {environment}: add it to "
                "environment_namespaces of a cluster of CLUSTERS"
            )


_QUERIES = (
    (
        "prometheus_url",
        ("prometheus_error_rate_query", "prometheus_p95_query", "prometheus_request_rate_query"),
    ),
    ("datadog_api_key", ("datadog_errors_query", "datadog_p95_query", "datadog_requests_query")),
)
"""A metric source, and the queries that it is asked."""
_APART = re.compile(r"\{\{\s*(?:cluster|environment)\s*\}\}")


def _measured_apart(
    given: Mapping[str, Any], clusters: Mapping[str, ClusterSetting], own: Mapping[str, str]
) -> None:
    """`ValueError` where a query cannot tell services of one namespace in two clusters apart."""
    places = [*own.values()] + [
        n for one in clusters.values() for n in {*one.environment_namespaces.values()}
    ]
    shared = sorted({one for one in places if places.count(one) > 1})
    for source, queries in _QUERIES:
        for query in queries:
            if shared and given[source] is not None and not _APART.search(given[query]):
                raise ValueError(
                    f"{query.upper()} measures namespace {shared[0]} of several clusters as one: select by "
                    "{{cluster}} or {{environment}} too, with the label that your metrics have"
                )


def _environments(
    clusters: Mapping[str, ClusterSetting], own: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    yield from ((environment, "ENVIRONMENT_NAMESPACES") for environment in own)
    for name, one in clusters.items():
        yield from ((environment, f"CLUSTERS.{name}") for environment in one.environment_namespaces)


def _connections(
    clusters: Mapping[str, ClusterSetting], given: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    if given["kube_in_cluster"]:
        yield "in_cluster", "KUBE_IN_CLUSTER"
    elif given["kubeconfig"] is not None:
        yield _reached(given["kubeconfig"], given["kube_context"]), "KUBECONFIG"
    for name, one in clusters.items():
        reached = "in_cluster" if one.kubeconfig is None else _reached(one.kubeconfig, one.context)
        yield reached, f"CLUSTERS.{name}"


def _reached(kubeconfig: Path, context: str | None) -> str:
    return f"{kubeconfig} with context {context or 'current-context'}"


def _labels(clusters: Mapping[str, ClusterSetting], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if given["alert_home_labels"]:
        yield _written(given["alert_home_labels"]), "ALERT_HOME_LABELS"
    for name, one in clusters.items():
        yield _written(one.labels(name)), f"CLUSTERS.{name}"


def _written(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _once(what: str, places: Iterator[tuple[str, str]], fix: str) -> None:
    found: dict[str, str] = {}
    for value, place in places:
        if value in found:
            raise ValueError(f"{found[value]} and {place} have the same {what} ({value}): {fix}")
        found[value] = place

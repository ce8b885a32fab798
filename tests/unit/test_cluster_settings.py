"""CLUSTERS: what it gives each cluster, and which contradictions stop the start, with a fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.clock import SystemClock
from app.config import Settings
from app.connectors.clusters.connect import connect_named
from app.connectors.kubernetes.access import asked_of, needed_rights
from app.errors import ConfigurationError
from app.terms import guardrails
from app.terms.clusters import all_namespaces, cluster_names, clusters_of, of_cluster
from tests.contract.loopback import kubeconfig_for

EAST = {"kubeconfig": "east.yaml", "environment_namespaces": {"prod-east": "payments"}}
WEST = {"kubeconfig": "west.yaml", "environment_namespaces": {"prod-west": "payments"}}
HOME: dict[str, Any] = {"kubeconfig": "home.yaml", "environment_namespaces": {"prod": "payments"}}


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def test_without_clusters_there_is_one_with_an_empty_name() -> None:
    """Its settings are the settings, unchanged, and every environment is in it."""
    given = settings(**HOME)
    assert cluster_names(given) == ("",)
    assert of_cluster(given, "") is given
    assert clusters_of(given).of("prod") == ""
    assert guardrails(given).shared.clusters.names == ()


def test_each_cluster_has_settings_of_its_own() -> None:
    """Kubeconfig, environments, labels of alerts, and those of SERVICE_WORKLOADS that are in it."""
    workloads = {"prod/api": "payments/api", "prod-east/api": "payments/api-v2"}
    given = settings(**HOME, clusters={"east": EAST, "west": WEST}, service_workloads=workloads)
    assert cluster_names(given) == ("", "east", "west")
    east, home = of_cluster(given, "east"), of_cluster(given, "")
    assert (east.kubeconfig, east.environment_namespaces) == (Path("east.yaml"), {"prod-east": "payments"})
    assert east.alert_home_labels == {"cluster": "east"}
    assert east.service_workloads == {"prod-east/api": "payments/api-v2"}
    assert home.service_workloads == {"prod/api": "payments/api"}
    assert all_namespaces(given) == {"prod": "payments", "prod-east": "payments", "prod-west": "payments"}
    assert guardrails(given).shared.clusters.of("prod-west") == "west"


def test_flux_is_that_of_the_cluster_without_a_name() -> None:
    """`heal doctor` asks no other cluster for rights on objects of Flux."""
    given = settings(**HOME, clusters={"east": EAST}, flux_enabled=True)
    asked = {
        name: {access.resource for access in needed_rights(asked_of(given, name))} for name in ("", "east")
    }
    assert "gitrepositories" in asked[""]
    assert "gitrepositories" not in asked["east"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clusters": {"East": EAST}}, "'East' is not a cluster name"),
        ({"clusters": {"east": {**EAST, "in_cluster": True}}}, "give either kubeconfig or in_cluster"),
        ({"clusters": {"east": {"kubeconfig": "e"}}}, "environment_namespaces is missing"),
        ({"clusters": {"east": EAST, "west": {**WEST, **HOME, "kubeconfig": "w"}}, **HOME}, "(prod)"),
        (
            {"clusters": {"east": EAST, "west": {**EAST, "kubeconfig": "w"}}},
            "CLUSTERS.east and CLUSTERS.west have the same environment (prod-east)",
        ),
        ({"clusters": {"east": EAST, "west": {**WEST, "kubeconfig": "east.yaml"}}}, "same connection"),
        (
            {"clusters": {"east": EAST, "west": {**WEST, "alert_labels": {"cluster": "east"}}}},
            "the same labels (cluster=east)",
        ),
        (
            {
                "clusters": {
                    "east": {**EAST, "argocd_destination": "https://east"},
                    "west": {**WEST, "argocd_destination": "https://east"},
                }
            },
            "the same argocd_destination (https://east)",
        ),
        ({"clusters": {"east": EAST}, "kubeconfig": "home.yaml"}, "CLUSTERS needs ENVIRONMENT_NAMESPACES"),
        ({"clusters": {"east": EAST}, "environment_namespaces": {"prod": "p"}}, "belongs to no cluster"),
        (
            {"clusters": {"east": EAST}, "service_workloads": {"test/api": "test/api"}},
            "no cluster has environment test",
        ),
        (
            {"clusters": {"east": EAST, "west": WEST}, "prometheus_url": "http://prometheus:9090"},
            "PROMETHEUS_ERROR_RATE_QUERY measures namespace payments of several clusters as one",
        ),
    ],
)
def test_clusters_that_cannot_be_distinguished_stop_the_start(values: dict[str, Any], said: str) -> None:
    """Each message names the setting and what to write."""
    with pytest.raises(ValidationError) as caught:
        settings(**values)
    assert said in str(caught.value)


def test_a_query_by_cluster_measures_one_namespace_of_two_clusters() -> None:
    """The placeholder distinguishes them."""
    query = 'sum(rate(errors{cluster="{{cluster}}",namespace="{{namespace}}",service="{{service}}"}[1m]))'
    given = settings(
        clusters={"east": EAST, "west": WEST},
        prometheus_url="http://prometheus:9090",
        prometheus_error_rate_query=query,
        prometheus_p95_query=query,
        prometheus_request_rate_query=query,
    )
    assert cluster_names(given) == ("east", "west")


async def test_a_context_that_does_not_exist_is_named_with_its_cluster(tmp_path: Path) -> None:
    """In the words of CLUSTERS, not of the settings of the cluster without a name."""
    file = kubeconfig_for("http://127.0.0.1:1", tmp_path)
    east = {**EAST, "kubeconfig": file, "context": "gone"}
    with pytest.raises(ConfigurationError) as caught:
        connect_named(settings(clusters={"east": east}), SystemClock())
    assert str(caught.value).startswith("CLUSTERS.east: kubeconfig ")
    assert "set context to a context of the file" in str(caught.value)
    found = connect_named(settings(clusters={"east": {**EAST, "kubeconfig": file}}), SystemClock())
    assert list(found) == ["east"]
    assert found["east"].writer is None, "a dry run constructs no writer for any cluster"
    await found["east"].close()

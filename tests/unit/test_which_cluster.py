"""The labels of an alert choose the cluster before the service."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.ids import ServiceKey
from app.config import Settings
from app.connectors.alerts.labels import PodRef, Unmapped, cluster_of, pod_to_ask, service_of

HOME: dict[str, Any] = {"kubeconfig": "home.yaml", "environment_namespaces": {"prod": "shop"}}


def settings(*, home: bool = True, **more: Any) -> Settings:
    clusters = {
        "east": {"kubeconfig": "e", "environment_namespaces": {"prod-east": "shop", "tools": "tools"}},
        "west": {
            "kubeconfig": "w",
            "environment_namespaces": {"prod-west": "shop"},
            "alert_labels": {"region": "us-west", "tier": "prod"},
        },
    }
    return Settings(_env_file=None, clusters=clusters, **(HOME if home else {}), **more)


@pytest.mark.parametrize(
    ("labels", "environment"),
    [
        ({"cluster": "east", "namespace": "shop"}, "prod-east"),
        ({"k8s.cluster": "x", "cluster": "east", "namespace": "tools"}, "tools"),
        ({"region": "us-west", "tier": "prod", "namespace": "shop"}, "prod-west"),
        ({"environment": "prod-west", "namespace": "shop"}, "prod-west"),
        ({"environment": "prod-east"}, "prod-east"),
        ({"namespace": "tools"}, "tools"),
        ({"namespace": "billing"}, "billing"),
    ],
)
def test_labels_name_one_cluster(labels: dict[str, str], environment: str) -> None:
    """By the labels of its alerts, else by environment, else by a namespace that one cluster has."""
    found = service_of({**labels, "service": "api"}, settings(), None)
    assert found == ServiceKey(environment=environment, service="api")


@pytest.mark.parametrize(
    ("labels", "home", "said"),
    [
        ({"namespace": "shop"}, True, "in the cluster and cluster east and cluster west, and no label names"),
        (
            {"cluster": "north", "namespace": "shop"},
            True,
            "no connected cluster has the labels cluster=north",
        ),
        ({"region": "us-west", "namespace": "shop"}, True, "no connected cluster has the labels"),
        ({"cluster": "east", "environment": "prod"}, True, "environment prod is none of it"),
        ({"cluster": "east", "namespace": "billing"}, True, "environment billing is none of it"),
        ({"namespace": "billing"}, False, "no label names the cluster"),
    ],
)
def test_an_alert_of_no_certain_cluster_is_mapped_to_none(
    labels: dict[str, str], home: bool, said: str
) -> None:
    """A guess could act on the wrong cluster."""
    with pytest.raises(Unmapped) as caught:
        service_of({**labels, "service": "api"}, settings(home=home), None)
    assert said in str(caught.value)


def test_the_pod_of_an_alert_is_asked_for_in_its_cluster() -> None:
    """Two clusters may have pods of one name."""
    labels = {"cluster": "east", "namespace": "shop", "pod": "api-7f9d8c6b5f-k8s2z"}
    assert pod_to_ask(labels, settings()) == PodRef(
        namespace="shop", name="api-7f9d8c6b5f-k8s2z", cluster="east"
    )
    assert cluster_of(labels, settings()) == "", "the environment says it already"

"""A workload answers to exactly one service, and a service to one workload."""

from __future__ import annotations

import pytest

from app.agent.ids import ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.mapping import Place, ServiceMap
from app.errors import ConfigurationError
from tests.unit.k8s_samples import deployment


def service_map(
    environments: dict[str, str] | None = None, workloads: dict[str, str] | None = None
) -> ServiceMap:
    return ServiceMap(environment_namespaces=environments or {}, service_workloads=workloads or {})


def key(environment: str, service: str) -> ServiceKey:
    return ServiceKey(environment=environment, service=service)


def test_without_settings_a_namespace_is_an_environment() -> None:
    """Everything is watched but the cluster's own namespaces."""
    found = service_map()
    assert found.namespaces() == (EVERYWHERE,)
    assert found.namespace("payments") == "payments"
    assert found.key(deployment()) == key("payments", "shop")
    assert found.namespace("kube-system") is None
    assert found.key(deployment(namespace="kube-system")) is None


def test_a_listed_environment_is_its_namespace_and_no_other_is_watched() -> None:
    """The namespace of another environment is not reachable under its own name."""
    found = service_map({"prod": "payments"})
    assert found.namespaces() == ("payments",)
    assert found.namespace("prod") == "payments"
    assert found.namespace("payments") is None
    assert found.namespace("staging") == "staging"
    assert found.key(deployment()) == key("prod", "shop")
    assert found.key(deployment(namespace="staging")) is None


def test_a_system_namespace_can_be_listed_on_purpose() -> None:
    """Who names it gets it."""
    found = service_map({"platform": "kube-system"})
    assert found.namespace("platform") == "kube-system"
    assert found.namespace("kube-system") is None


@pytest.mark.parametrize("environment", ["", "Prod", "a/b", "..", "*", "a" * 64, "-a", "prod\n"])
def test_an_impossible_environment_is_nowhere(environment: str) -> None:
    """No text from outside gets into a request's path."""
    assert service_map().namespace(environment) is None


def test_the_label_wins_and_an_empty_one_does_not_count() -> None:
    """`app.kubernetes.io/name`, else the Deployment's name."""
    found = service_map()
    labelled = deployment(labels={"app.kubernetes.io/name": "checkout"})
    assert found.key(labelled) == key("payments", "checkout")
    assert found.belongs(labelled, key("payments", "checkout"))
    assert not found.belongs(labelled, key("payments", "shop"))
    assert found.key(deployment(labels={"app.kubernetes.io/name": ""})) == key("payments", "shop")


def test_a_configured_workload_is_only_that_service() -> None:
    """The override takes the Deployment away from its label, and the service from other Deployments."""
    found = service_map({"prod": "payments"}, {"prod/payments-api": "billing/shop", "prod/shop": "billing/x"})
    assert found.namespaces() == ("billing", "payments")
    assert found.place(key("prod", "payments-api")) == Place(namespace="billing", name="shop")
    overridden = deployment(namespace="billing")
    assert found.key(overridden) == key("prod", "payments-api")
    assert not found.belongs(overridden, key("billing", "shop"))
    namesake = deployment(namespace="payments")
    assert found.key(namesake) is None
    assert not found.belongs(namesake, key("prod", "shop"))
    assert found.key(deployment(namespace="billing", name="other")) is None


@pytest.mark.parametrize(
    ("environments", "workloads", "told"),
    [
        ({"prod": "payments", "live": "payments"}, {}, "two environments"),
        ({"prod": "Not A Namespace"}, {}, "no namespace"),
        ({}, {"payments-api": "payments/shop"}, "environment/service"),
        ({}, {"prod/a/b": "payments/shop"}, "environment/service"),
        ({}, {"prod/api": "shop"}, "namespace/deployment"),
        ({}, {"prod/api": "payments/a/b"}, "namespace/deployment"),
        ({}, {"prod/a": "payments/shop", "prod/b": "payments/shop"}, "keep one"),
    ],
)
def test_contradictory_settings_stop_the_start(
    environments: dict[str, str], workloads: dict[str, str], told: str
) -> None:
    """One workload under two keys would be two remediations at a time (promise 3)."""
    with pytest.raises(ConfigurationError, match=told):
        service_map(environments, workloads)

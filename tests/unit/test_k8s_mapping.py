"""A workload answers to exactly one service, and a service to one workload."""

from __future__ import annotations

import pytest

from app.agent.ids import Json, JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.mapping import Place, ServiceMap, WorkloadClaim, claim_of, service_name
from app.errors import ConfigurationError
from tests.unit.k8s_samples import deployment


def service_map(
    environments: dict[str, str] | None = None, workloads: dict[str, str] | None = None
) -> ServiceMap:
    return ServiceMap(environment_namespaces=environments or {}, service_workloads=workloads or {})


def claims(*items: JsonObject) -> list[WorkloadClaim]:
    return [claim_of(item) for item in items]


def key_of(found: ServiceMap, item: JsonObject) -> ServiceKey | None:
    """The service that a workload is where it is the only one of its namespace."""
    return found.assigned(claims(item)).keys.get(claim_of(item))


def workload(kind: str, name: str = "shop", service: str | None = None, **spec: Json) -> JsonObject:
    labels: JsonObject = {} if service is None else {"app.kubernetes.io/name": service}
    return {**deployment(name=name, spec=spec, labels=labels), "kind": kind}


def key(environment: str, service: str) -> ServiceKey:
    return ServiceKey(environment=environment, service=service)


def test_without_settings_a_namespace_is_an_environment() -> None:
    """Everything is watched but the cluster's own namespaces."""
    found = service_map()
    assert found.namespaces() == (EVERYWHERE,)
    assert found.namespace("payments") == "payments"
    assert key_of(found, deployment()) == key("payments", "shop")
    assert found.namespace("kube-system") is None
    assert key_of(found, deployment(namespace="kube-system")) is None


def test_a_listed_environment_is_its_namespace_and_no_other_is_watched() -> None:
    """The namespace of another environment is not reachable under its own name."""
    found = service_map({"prod": "payments"})
    assert found.namespaces() == ("payments",)
    assert found.namespace("prod") == "payments"
    assert found.namespace("payments") is None
    assert found.namespace("staging") == "staging"
    assert key_of(found, deployment()) == key("prod", "shop")
    assert key_of(found, deployment(namespace="staging")) is None


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
    assert key_of(found, labelled) == key("payments", "checkout")
    assert service_name(deployment(annotations={"self-healing-devops-agent/service": "till"})) == "till"
    assert key_of(found, deployment(labels={"app.kubernetes.io/name": ""})) == key("payments", "shop")


def test_a_configured_workload_is_only_that_service() -> None:
    """The override takes the Deployment away from its label, and the service from other Deployments."""
    found = service_map({"prod": "payments"}, {"prod/payments-api": "billing/shop", "prod/shop": "billing/x"})
    assert found.namespaces() == ("billing", "payments")
    assert found.place(key("prod", "payments-api")) == Place(namespace="billing", name="shop")
    overridden = deployment(namespace="billing")
    assert key_of(found, overridden) == key("prod", "payments-api")
    namesake = deployment(namespace="payments")
    assert key_of(found, namesake) is None
    assert "SERVICE_WORKLOADS" in found.assigned(claims(namesake)).unwatched[claim_of(namesake)]
    assert key_of(found, deployment(namespace="billing", name="other")) is None


@pytest.mark.parametrize(
    ("environments", "workloads", "told"),
    [
        ({"prod": "payments", "live": "payments"}, {}, "two environments"),
        ({"prod": "Not A Namespace"}, {}, "not a namespace"),
        ({}, {"payments-api": "payments/shop"}, "environment/service"),
        ({}, {"prod/a/b": "payments/shop"}, "environment/service"),
        ({}, {"prod/api": "shop"}, "namespace/name"),
        ({}, {"prod/api": "payments/a/b"}, "namespace/name"),
        ({}, {"prod/api": "payments/cronjob/a"}, "not a workload"),
        ({}, {"prod/a": "payments/shop", "prod/b": "payments/shop"}, "keep one"),
    ],
)
def test_contradictory_settings_stop_the_start(
    environments: dict[str, str], workloads: dict[str, str], told: str
) -> None:
    """One workload under two keys would be two remediations at a time (promise 3)."""
    with pytest.raises(ConfigurationError, match=told):
        service_map(environments, workloads)


@pytest.mark.parametrize(
    ("items", "wanted", "unwatched"),
    [
        # A chart labels each of its components with the one name.
        (
            [workload("Deployment", "shop", "shop"), workload("StatefulSet", "shop-db", "shop")],
            {"Deployment shop": "shop", "StatefulSet shop-db": "shop-db"},
            (),
        ),
        (
            [workload("Deployment", "r1-web", "shop"), workload("DaemonSet", "r1-cache", "shop")],
            {"Deployment r1-web": "r1-web", "DaemonSet r1-cache": "r1-cache"},
            (),
        ),
        # Of two kinds with one name the Deployment keeps it.
        (
            [workload("StatefulSet", "shop"), workload("Deployment", "shop")],
            {"Deployment shop": "shop"},
            ("StatefulSet shop",),
        ),
        # One that has a name by its own claim keeps it.
        (
            [
                workload("Deployment", "a", "s"),
                workload("Deployment", "b", "s"),
                workload("DaemonSet", "x", "a"),
            ],
            {"Deployment b": "b", "DaemonSet x": "a"},
            ("Deployment a",),
        ),
        # A Rollout is the service of the Deployment whose pods it runs.
        (
            [
                workload("Deployment", "pay", "payments-api", replicas=0),
                workload("Rollout", "pay-canary", workloadRef={"kind": "Deployment", "name": "pay"}),
            ],
            {"Deployment pay": "payments-api", "Rollout pay-canary": "payments-api"},
            (),
        ),
        # So it is where a third workload shares the service, and where it has the Deployment's name.
        (
            [
                workload("Deployment", "pay", "shop", replicas=0),
                workload("Rollout", "pay", workloadRef={"kind": "Deployment", "name": "pay"}),
                workload("StatefulSet", "pay-db", "shop"),
            ],
            {"Deployment pay": "pay", "Rollout pay": "pay", "StatefulSet pay-db": "pay-db"},
            (),
        ),
        # One that runs no pods of its own stands in for nothing.
        (
            [
                workload("Deployment", "pay"),
                workload("Rollout", "new", replicas=0, workloadRef={"kind": "Deployment", "name": "pay"}),
            ],
            {"Deployment pay": "pay", "Rollout new": "new"},
            (),
        ),
    ],
)
def test_workloads_that_share_a_service_are_all_watched_or_named(
    items: list[JsonObject], wanted: dict[str, str], unwatched: tuple[str, ...]
) -> None:
    """Each of several is the service of its own name; none is left out without being named."""
    found = service_map().assigned(claims(*items))
    assert {f"{claim.kind} {claim.name}": key.service for claim, key in found.keys.items()} == wanted
    assert tuple(f"{claim.kind} {claim.name}" for claim in found.unwatched) == unwatched
    for claim, assigned in found.keys.items():
        chosen = found.workload(assigned)
        assert chosen == claim or (chosen is not None and chosen.runs_for == claim.name)


def test_the_settings_name_a_workload_of_any_kind() -> None:
    """With its kind where two have that name; without, whichever has it."""
    found = service_map({"prod": "payments"}, {"prod/db": "payments/statefulset/shop"})
    items = [workload("Deployment", "shop"), workload("StatefulSet", "shop")]
    assert {claim.kind: one for claim, one in found.assigned(claims(*items)).keys.items()} == {
        "StatefulSet": key("prod", "db"),
        "Deployment": key("prod", "shop"),
    }
    assert found.place(key("prod", "db")) == Place(namespace="payments", name="shop", kind="StatefulSet")


def test_a_setting_that_names_a_deployment_means_the_rollout_that_runs_its_pods() -> None:
    """The service stays what it is called when its pods move to a Rollout."""
    found = service_map({"prod": "payments"}, {"prod/till": "payments/pay"})
    items = [
        workload("Deployment", "pay", replicas=0),
        workload("Rollout", "pay", workloadRef={"kind": "Deployment", "name": "pay"}),
    ]
    assigned = found.assigned(claims(*items))
    assert set(assigned.keys.values()) == {key("prod", "till")}
    chosen = assigned.workload(key("prod", "till"))
    assert chosen is not None
    assert chosen.kind == "Rollout"

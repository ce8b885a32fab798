"""A change of a pod or a ConfigMap is told as the services it touches."""

from __future__ import annotations

import pytest

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.index import WorkloadIndex, selector_query, selects
from app.connectors.kubernetes.mapping import ServiceMap
from tests.unit.k8s_samples import container, deployment, template

SHOP = ServiceKey(environment="payments", service="shop")
OTHER = ServiceKey(environment="billing", service="shop")


def index() -> WorkloadIndex:
    made = WorkloadIndex(ServiceMap(environment_namespaces={}, service_workloads={}))
    with_config = template(container(envFrom=[{"configMapRef": {"name": "shop-config"}}]))
    made.replaced(
        EVERYWHERE,
        "Deployment",
        [deployment(spec={"template": with_config}), deployment(namespace="billing", uid="d-2")],
    )
    return made


def item(name: str, namespace: str = "payments", **labels: str) -> JsonObject:
    return {"metadata": {"name": name, "namespace": namespace, "labels": dict(labels)}}


def test_pods_and_config_maps_find_their_service() -> None:
    """Within their namespace only; what belongs to nobody touches nobody."""
    found = index()
    assert found.of_pod(item("x", app="shop")) == {SHOP}
    assert found.of_pod(item("x", "billing", app="shop")) == {OTHER}
    assert found.of_pod(item("x", app="other")) == set()
    assert found.of_config_map(item("shop-config")) == {SHOP}
    assert found.of_config_map(item("shop-config", "billing")) == set()
    assert found.of_config_map(item("leader-election")) == set()


def test_a_new_list_tells_what_vanished_too() -> None:
    """A Deployment deleted while nobody looked moved."""
    found = index()
    assert found.keys("payments") == {SHOP}
    assert found.replaced("payments", "Deployment", []) == {SHOP}
    assert found.keys("payments") == set()
    assert found.keys(EVERYWHERE) == {OTHER}
    assert found.replaced(EVERYWHERE, "Deployment", [deployment()]) == {SHOP, OTHER}


def test_a_relabelled_deployment_touches_both_services() -> None:
    """The service it was needs a look as much as the one it is."""
    found = index()
    renamed = deployment(labels={"app.kubernetes.io/name": "checkout"})
    checkout = ServiceKey(environment="payments", service="checkout")
    assert found.put(renamed) == {SHOP, checkout}
    assert found.removed(renamed) == {checkout}
    assert found.removed(renamed) == set()
    assert found.put(deployment(namespace="kube-system")) == set()


@pytest.mark.parametrize(
    ("expression", "query", "matches"),
    [
        ({"key": "tier", "operator": "In", "values": ["b", "a"]}, "tier in (a,b)", True),
        ({"key": "tier", "operator": "NotIn", "values": ["a"]}, "tier notin (a)", False),
        ({"key": "none", "operator": "NotIn", "values": ["a"]}, "none notin (a)", True),
        ({"key": "tier", "operator": "Exists"}, "tier", True),
        ({"key": "tier", "operator": "DoesNotExist"}, "!tier", False),
    ],
)
def test_selectors_mean_the_same_here_and_there(expression: JsonObject, query: str, matches: bool) -> None:
    """The index and the API server select the same pods."""
    selector: JsonObject = {"matchLabels": {"app": "shop"}, "matchExpressions": [expression]}
    assert selector_query(selector) == f"app=shop,{query}"
    assert selects(selector, {"app": "shop", "tier": "a"}) is matches
    assert not selects(selector, {"app": "other", "tier": "a"})


def test_an_empty_or_unknown_selector_matches_nothing() -> None:
    """A workload without a selector owns no pod."""
    assert not selects({}, {"app": "shop"})
    unknown: JsonObject = {"matchExpressions": [{"key": "app", "operator": "Gt", "values": ["1"]}]}
    assert not selects(unknown, {"app": "shop"})

"""A change of a pod or a ConfigMap is told as the services it touches."""

from __future__ import annotations

import pytest

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.index import WorkloadIndex, selector_query, selects
from app.connectors.kubernetes.mapping import ServiceMap
from tests.unit.k8s_samples import container, deployment, template

SHOP = ServiceKey(environment="payments", service="shop")
OTHER = ServiceKey(environment="billing", service="shop")


def index() -> WorkloadIndex:
    made = WorkloadIndex(ServiceMap(environment_namespaces={}, service_workloads={}))
    with_config = template(container(envFrom=[{"configMapRef": {"name": "shop-config"}}]))
    made.put(deployment(spec={"template": with_config}))
    made.put(deployment(namespace="billing", uid="d-2"))
    return made


def item(name: str, namespace: str = "payments") -> JsonObject:
    return {"metadata": {"name": name, "namespace": namespace}}


def test_owned_objects_and_config_maps_find_their_service() -> None:
    """By the uid of the workload, or by name within its namespace only."""
    found = index()
    assert (found.of_uid("d-1"), found.of_uid("d-2"), found.of_uid("other")) == ({SHOP}, {OTHER}, set())
    assert found.of_config_map(item("shop-config")) == {SHOP}
    assert found.of_config_map(item("shop-config", "billing")) == set()
    assert found.of_config_map(item("leader-election")) == set()


def test_a_changed_template_moves_its_config_maps() -> None:
    """What it no longer refers to does not touch it; a removed workload leaves nothing behind."""
    found = index()
    assert found.services() == (OTHER, SHOP)
    assert found.put(deployment()) == {SHOP}
    assert found.of_config_map(item("shop-config")) == set()
    assert found.services() == (OTHER, SHOP)
    assert found.removed(deployment()) == {SHOP}
    assert (found.services(), found.of_uid("d-1")) == ((OTHER,), set())


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

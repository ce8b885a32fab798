"""A change of a pod or a ConfigMap is reported as the services it touches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.index import WorkloadIndex, selector_query, selects
from app.connectors.kubernetes.mapping import Assignment, ServiceMap, WorkloadClaim
from tests.unit.k8s_samples import container, deployment, template

SHOP = ServiceKey(environment="payments", service="shop")
OTHER = ServiceKey(environment="billing", service="shop")


def index() -> WorkloadIndex:
    made = WorkloadIndex(ServiceMap(environment_namespaces={}, service_workloads={}))
    with_config = template(container(envFrom=[{"configMapRef": {"name": "shop-config"}}]))
    made.put(deployment(spec={"template": with_config}))
    made.put(deployment(namespace="billing", uid="d-2"))
    assert made.resolved(()) == {SHOP, OTHER}
    return made


def item(name: str, namespace: str = "payments") -> JsonObject:
    return {"metadata": {"name": name, "namespace": namespace}}


def test_owned_objects_and_config_maps_find_their_service() -> None:
    """By the uid of the workload, or by name within its namespace only."""
    found = index()
    assert found.resolved(found.of_uid("d-1")) == {SHOP}
    assert found.resolved(found.of_uid("d-2")) == {OTHER}
    assert found.of_uid("other") == set()
    assert found.resolved(found.of_config_map(item("shop-config"))) == {SHOP}
    assert found.of_config_map(item("shop-config", "billing")) == set()
    assert found.of_config_map(item("leader-election")) == set()


def test_a_changed_template_moves_its_config_maps() -> None:
    """What it no longer refers to does not touch it; a removed workload leaves nothing behind."""
    found = index()
    assert found.services() == {OTHER, SHOP}
    assert found.resolved(found.put(deployment())) == {SHOP}
    assert found.of_config_map(item("shop-config")) == set()
    assert found.services() == {OTHER, SHOP}
    assert found.resolved(found.removed(deployment())) == {SHOP}
    assert (found.services(), found.of_uid("d-1")) == ({OTHER}, set())


def test_a_relabelled_deployment_touches_both_services() -> None:
    """The service it was needs a look as much as the one it is."""
    found = index()
    renamed = deployment(labels={"app.kubernetes.io/name": "checkout"})
    checkout = ServiceKey(environment="payments", service="checkout")
    assert found.resolved(found.put(renamed)) == {SHOP, checkout}
    assert found.resolved(found.removed(renamed)) == {checkout}
    assert found.resolved(found.removed(renamed)) == set()
    assert found.resolved(found.put(deployment(namespace="kube-system"))) == set()


def test_a_namespace_is_worked_out_once_for_many_changes() -> None:
    """A list of thousands of workloads costs one assignment, not one for each; a status costs none."""

    class Counted(ServiceMap):
        calls = 0

        def assigned(self, claims: Sequence[WorkloadClaim], environment: str | None = None) -> Assignment:
            self.calls += 1
            return super().assigned(claims, environment)

    services = Counted(environment_namespaces={}, service_workloads={})
    found = WorkloadIndex(services)
    names = [f"shop-{number}" for number in range(50)]
    touched = [found.put(deployment(name=name, uid=name)) for name in names]
    assert len(found.resolved({place for places in touched for place in places})) == 50
    calls = services.calls
    assert calls <= 2
    found.resolved(found.put(deployment(name="shop-1", uid="shop-1", resourceVersion="78")))
    assert services.calls == calls


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

"""What a change of a Service, Ingress or NetworkPolicy can do, and what the view says of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import Json, JsonObject
from app.agent.routes import RouteEffect, RoutesView
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.routes import effects
from app.connectors.kubernetes.routes import view as route_view
from app.connectors.kubernetes.routes.effects import (
    Pods,
    ingress_effect,
    policy_effect,
    service_effect,
)
from app.connectors.kubernetes.routes.view import (
    RoutedWorkload,
    RouteObjects,
    SeenChange,
    routes_view,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PODS = Pods(
    labels=({"app": "shop", "tier": "web"},), named_ports=frozenset({"http"}), numbers=frozenset({8080})
)
CUTS, HARMLESS = RouteEffect.CUTS, RouteEffect.HARMLESS
EVERYBODY: JsonObject = {}


def item(kind: str, name: str, spec: JsonObject, **metadata: Json) -> JsonObject:
    times: JsonObject = {"creationTimestamp": "2026-11-01T00:00:00Z"}
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "prod", "uid": f"{kind}-{name}", **times, **metadata},
        "spec": spec,
    }


def written(by: str, at: datetime) -> list[Json]:
    return [{"manager": by, "time": at.isoformat(), "fieldsV1": {"f:spec": {"f:selector": {}}}}]


def service(target: Json = "http", *, port: int = 80, **selector: str) -> JsonObject:
    ports: list[Json] = [{"port": port, "targetPort": target, "protocol": "TCP"}]
    return item("Service", "shop", {"selector": dict(selector or {"app": "shop"}), "ports": ports})


def policy(*ingress: JsonObject, types: tuple[str, ...] = ("Ingress",), **selector: str) -> JsonObject:
    spec: JsonObject = {
        "podSelector": {"matchLabels": dict(selector)} if selector else {},
        "policyTypes": list(types),
        "ingress": list(ingress),
    }
    return item("NetworkPolicy", "callers", spec)


def peer(*apps: str, ports: tuple[int, ...] = ()) -> JsonObject:
    callers: list[Json] = [{"podSelector": {"matchLabels": {"app": app}}} for app in apps]
    listed: list[Json] = [{"port": one, "protocol": "TCP"} for one in ports]
    return {"from": callers, **({"ports": listed} if listed else {})}


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        (service(), service(app="other"), CUTS),
        (service(), None, CUTS),
        (service(), service(app="shop", tier="web"), HARMLESS),
        (service(), service("web"), CUTS),
        (service("http"), service(8080), HARMLESS),
        (service(8080), service(9090), CUTS),
        (service(), service(port=81), CUTS),
        (service(app="other"), service(), HARMLESS),
        (None, service(), HARMLESS),
    ],
)
def test_a_service_cuts_what_it_no_longer_sends(
    old: JsonObject | None, new: JsonObject | None, effect: RouteEffect
) -> None:
    """A selector that matches no pod, a port that is gone, a target that no container names."""
    assert service_effect(old, new, PODS) is effect


def test_a_number_that_no_container_names_may_be_listened_on() -> None:
    """`containerPort` is information: without any the target says nothing."""
    unnamed = Pods(labels=PODS.labels, named_ports=frozenset(), numbers=frozenset())
    assert service_effect(service(8080), service(9090), unnamed) is HARMLESS


@pytest.mark.parametrize(
    ("old", "new", "others", "effect"),
    [
        (None, policy(app="shop"), (), CUTS),
        (None, policy(), (), CUTS),
        (None, policy(app="other"), (), HARMLESS),
        (None, policy(EVERYBODY, app="shop"), (), HARMLESS),
        (None, policy(peer("a"), app="shop"), (policy(app="shop"),), HARMLESS),
        (policy(peer("a"), app="shop"), policy(peer("a"), peer("b"), app="shop"), (), HARMLESS),
        (policy(peer("a"), peer("b"), app="shop"), policy(peer("a"), app="shop"), (), CUTS),
        (policy(peer("a"), app="shop"), None, (policy(app="shop"),), CUTS),
        (policy(peer("a"), app="shop"), None, (), HARMLESS),
        (policy(app="other"), policy(app="shop"), (), CUTS),
        (None, policy(app="shop", types=("Egress",)), (), CUTS),
        (policy(peer("a")), policy(peer("a", "b")), (), HARMLESS),
        (policy(peer("a", "b")), policy(peer("b", "a")), (), HARMLESS),
        (policy(peer("a", "b")), policy(peer("a")), (), CUTS),
        (policy(peer("a", ports=(80,))), policy(peer("a", ports=(80, 81))), (), HARMLESS),
        (policy(peer("a", ports=(80,))), policy(peer("a")), (), HARMLESS),
        (policy(peer("a")), policy(peer("a", ports=(80,))), (), CUTS),
        (policy(peer("a")), policy(peer(ports=(80,))), (), CUTS),
        (policy(peer("a")), None, (policy(peer("a", "b")),), HARMLESS),
        (policy(peer("a")), policy(peer("b")), (policy(EVERYBODY),), HARMLESS),
    ],
)
def test_a_policy_cuts_where_it_lets_less_through(
    old: JsonObject | None, new: JsonObject | None, others: tuple[JsonObject, ...], effect: RouteEffect
) -> None:
    """Several policies allow what one of them allows, so that a further one can only widen."""
    assert policy_effect(old, new, PODS, others) is effect


def test_an_ingress_cuts_where_a_route_is_gone() -> None:
    """A route of another Service does not concern the pods."""

    def ingress(*services: str) -> JsonObject:
        paths: list[Json] = [{"path": f"/{one}", "backend": {"service": {"name": one}}} for one in services]
        return item("Ingress", "web", {"rules": [{"host": "shop.example", "http": {"paths": paths}}]})

    named = frozenset({"shop"})
    assert ingress_effect(ingress("shop", "cart"), ingress("cart"), named) is CUTS
    assert ingress_effect(ingress("shop", "cart"), ingress("shop"), named) is HARMLESS


# ------------------------------------------------------------------ the view


def view(found: RouteObjects) -> RoutesView:
    template: JsonObject = {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
    }
    workload = item("Deployment", "shop", {"template": template})
    return routes_view(found, RoutedWorkload(workload=workload, service="shop", pods=()), NOW)


def test_a_changed_selector_has_its_difference_its_author_and_its_fault() -> None:
    """And the Service is no longer among what concerns the pods."""
    old, new = service(), service(app="shop-2")
    new = {**new, "metadata": {**dict(new["metadata"]), "managedFields": written("kubectl-edit", NOW)}}  # type: ignore[arg-type]
    found = view(RouteObjects(items=(new,), seen=(SeenChange(at=NOW, old=old, new=new),)))
    [change] = [one for one in found.changes if one.effect is not RouteEffect.UNKNOWN]
    assert (str(change), change.by, change.effect) == ("Service shop", "kubectl-edit", CUTS)
    assert change.difference == ("selector app=shop -> app=shop-2",)
    assert change.services == ("shop",)
    [fault] = found.faults
    assert fault.words == "selects no pod of the namespace (selector app=shop-2)"
    assert found.objects == ()


def test_who_took_away_what_another_wrote_is_not_known() -> None:
    """`managedFields` has no entry of a removal: the entry that is left names another manager."""
    by_helm = written("helm", NOW - timedelta(days=3))
    old = item("Service", "shop", {"selector": {"app": "shop", "tier": "x"}}, managedFields=by_helm)
    new = item("Service", "shop", {"selector": {"app": "shop"}}, managedFields=by_helm)
    [change] = view(RouteObjects(items=(new,), seen=(SeenChange(at=NOW, old=old, new=new),))).changes
    assert (change.by, change.difference) == (None, ("selector app=shop,tier=x -> app=shop",))


def test_a_changed_target_port_is_named_with_its_port() -> None:
    """Without the words of a sentence around the values."""
    seen = SeenChange(at=NOW, old=service(), new=service("web"))
    [change] = view(RouteObjects(items=(service("web"),), seen=(seen,))).changes
    [words] = change.difference
    assert words.startswith("target of port 80 ")
    assert words.endswith("/TCP -> web/TCP")


def test_a_named_port_that_no_container_has_is_a_fault_of_its_own() -> None:
    """Whenever it was changed."""
    assert view(RouteObjects(items=(service(),))).faults == ()
    [fault] = view(RouteObjects(items=(service("web"),))).faults
    assert fault.words == "sends requests to port web, which no container of its pods has"


@pytest.mark.parametrize(
    "other",
    [
        item("Service", "shop", {"selector": {"app": "cart"}}),
        item("Service", "unrelated", {"selector": {"app": "nothing"}}),
        item("Service", "shop", {"selector": {"app": "x"}, "type": "ExternalName"}),
        item("Service", "shop", {"selector": {"rollouts-pod-template-hash": "abc"}}),
        item("Service", "shop", {}),
    ],
)
def test_a_service_that_is_not_meant_for_the_pods_is_no_fault(other: JsonObject) -> None:
    """It selects another workload, has another name, no selector, or one that a controller writes."""
    carts = Pods(labels=({"app": "cart"},), named_ports=frozenset(), numbers=frozenset())
    assert view(RouteObjects(items=(other,), pods={"cart": carts})).faults == ()


def test_what_was_written_before_the_watch_is_a_change_without_a_difference() -> None:
    """A label may have been written: it can be no cause. A write after the first comparison was a label."""
    at = NOW - timedelta(minutes=1)
    there = item("Service", "shop", {"selector": {"app": "shop"}}, managedFields=written("helm", at))
    uid = "Service-shop"
    [change] = view(RouteObjects(items=(there,), compared_since={uid: NOW})).changes
    assert (change.by, change.at, change.difference, change.effect) == ("helm", at, (), RouteEffect.UNKNOWN)
    since = at - timedelta(minutes=5)
    labelled = view(RouteObjects(items=(there,), compared_since={uid: since}))
    assert labelled.changes == ()
    assert [one.unchanged_since for one in labelled.objects] == [since]


def test_a_policy_that_was_just_created_is_known_without_a_watch() -> None:
    """The creation time says that all of it is new."""
    born = NOW - timedelta(minutes=2)
    new = item(
        "NetworkPolicy",
        "deny",
        {"podSelector": {}, "policyTypes": ["Ingress"]},
        creationTimestamp=born.isoformat(),
        managedFields=written("argocd", born),
    )
    [change] = view(RouteObjects(items=(new,))).changes
    assert (change.at, change.by, change.effect) == (born, "argocd", CUTS)
    assert change.difference == (
        "created",
        "podSelector every pod",
        "policyTypes Ingress",
        "allowed ingress nothing",
    )


def born(name: str, at: datetime, **spec: Json) -> JsonObject:
    there: JsonObject = {"podSelector": {}, "policyTypes": ["Ingress"], **spec}
    return item("NetworkPolicy", name, there, creationTimestamp=at.isoformat())


def test_policies_that_come_together_do_not_hide_each_other() -> None:
    """One that denies everything and one that lets a caller through: before them all were let through."""
    at = NOW - timedelta(minutes=2)
    deny, allow = born("deny", at), born("allow", at, ingress=[peer("a")])
    assert {one.effect for one in view(RouteObjects(items=(allow, deny))).changes} == {CUTS}
    everybody = born("allow", at, ingress=[EVERYBODY])
    assert {one.effect for one in view(RouteObjects(items=(everybody, deny))).changes} == {HARMLESS}
    long_there = born("deny", NOW - timedelta(days=9))
    assert {one.effect for one in view(RouteObjects(items=(allow, long_there))).changes} == {HARMLESS}


def test_a_policy_that_restricted_before_it_was_deleted_was_there() -> None:
    """A later deletion of another policy does not make an earlier one the first."""
    deny = born("deny", NOW - timedelta(days=9))
    allow = born("allow", NOW - timedelta(minutes=5), ingress=[peer("a")])
    gone = SeenChange(at=NOW - timedelta(minutes=1), old=deny, new=None)
    became = {one.name: one.effect for one in view(RouteObjects(items=(allow,), seen=(gone,))).changes}
    assert became == {"allow": HARMLESS, "deny": HARMLESS}


def test_a_change_that_the_watch_missed_says_how_old_it_may_be() -> None:
    """A deletion that only a later list showed."""
    since = NOW - timedelta(minutes=20)
    gone = SeenChange(at=NOW, old=born("deny", NOW - timedelta(days=9)), new=None, not_before=since)
    [change] = view(RouteObjects(seen=(gone,))).changes
    assert (change.at, change.not_before) == (NOW, since)


def test_what_is_too_long_to_be_kept_is_neither_cut_nor_about_every_pod() -> None:
    """A list of a thousand addresses that grew by one; a selector that nothing can be read from."""

    def listed(many: int) -> JsonObject:
        blocks: list[Json] = [{"ipBlock": {"cidr": f"10.{n // 250}.{n % 250}.0/24"}} for n in range(many)]
        return pruned(Kind.NETWORK_POLICY, {**policy({"from": blocks}), "kind": "NetworkPolicy"})

    old, new = ({**listed(many), "kind": "NetworkPolicy"} for many in (1000, 1001))
    [change] = view(RouteObjects(items=(new,), seen=(SeenChange(at=NOW, old=old, new=new),))).changes
    assert (change.effect, change.difference) == (RouteEffect.UNKNOWN, ())
    values: list[Json] = [f"value-{n}" for n in range(2000)]
    selector: JsonObject = {"matchExpressions": [{"key": "app", "operator": "In", "values": values}]}
    hostile = pruned(Kind.NETWORK_POLICY, born("hostile", NOW, podSelector=selector))
    hostile = {**hostile, "kind": "NetworkPolicy"}
    assert view(RouteObjects(items=(hostile,))) == RoutesView()


def test_a_label_that_was_written_makes_no_young_fault() -> None:
    """A target that never had a port is no cause because a release of the chart labelled the Service."""
    at = NOW - timedelta(minutes=1)
    there = item("Service", "shop", service("web")["spec"], managedFields=written("helm", at))  # type: ignore[arg-type]
    since = NOW - timedelta(hours=5)
    [fault] = view(RouteObjects(items=(there,), compared_since={"Service-shop": since})).faults
    assert fault.written_at == since
    [unseen] = view(RouteObjects(items=(there,))).faults
    assert unseen.written_at == at


def test_a_namespace_with_many_young_objects_is_read_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each route of each Ingress is read in proportion to the objects, not for each service."""
    many, calls = 40, []
    names = [f"shop-{n}" for n in range(many)]
    at = (NOW - timedelta(minutes=5)).isoformat()
    services = [
        item("Service", one, {"selector": {"app": one}, "ports": []}, creationTimestamp=at) for one in names
    ]
    ingresses = [
        item(
            "Ingress",
            one,
            {"rules": [{"http": {"paths": [{"path": "/", "backend": {"service": {"name": one}}}]}}]},
            creationTimestamp=at,
        )
        for one in names
    ]
    original = effects.backends

    def counted(ingress: JsonObject) -> frozenset[tuple[str, str]]:
        calls.append(ingress)
        return original(ingress)

    for module in (effects, route_view):
        monkeypatch.setattr(module, "backends", counted)
    pods = {one: Pods(labels=({"app": one},), named_ports=frozenset(), numbers=frozenset()) for one in names}
    found = view(RouteObjects(items=(*services, *ingresses), pods=pods))
    assert len(found.changes) == 2 * many
    assert all(one.services == (one.name,) for one in found.changes)
    assert len(calls) <= 5 * many


def test_a_port_of_a_sidecar_that_a_webhook_added_is_there() -> None:
    """The template does not name it, the pods do."""
    sidecar: JsonObject = {"name": "proxy", "ports": [{"name": "mesh", "containerPort": 15090}]}
    pod: JsonObject = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [sidecar]}}
    template: JsonObject = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "a"}]}}
    shop = RoutedWorkload(
        workload=item("Deployment", "shop", {"template": template}), service="shop", pods=(pod,)
    )
    found = RouteObjects(items=(service("mesh"),))
    assert routes_view(found, shop, NOW).faults == ()
    [fault] = routes_view(found, replace(shop, pods=()), NOW).faults
    assert fault.words == "sends requests to port mesh, which no container of its pods has"


def test_a_long_path_is_cut_in_the_difference() -> None:
    """Of a route, which names the path; a timeline entry stays short."""
    spec: JsonObject = {
        "rules": [{"http": {"paths": [{"path": f"/{'a' * 9000}", "backend": {"service": {"name": "shop"}}}]}}]
    }
    gone = SeenChange(at=NOW, old=item("Ingress", "web", spec), new=None)
    [change] = view(RouteObjects(items=(service(),), seen=(gone,))).changes
    assert change.effect is CUTS
    assert max(map(len, change.difference)) < 400

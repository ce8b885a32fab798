"""What a watch remembers of the changes of Services, Ingresses and NetworkPolicies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import cast

import pytest

from app.agent.ids import Json, JsonObject
from app.clock import Clock
from app.connectors.kubernetes.api import Connection, Kind, Listing, ReadApi, Watched
from app.connectors.kubernetes.index import NamespaceWorkloads
from app.connectors.kubernetes.mapping import ServiceMap, claim_of
from app.connectors.kubernetes.reading.history import PodTemplates, RouteHistory, RouteStore
from app.connectors.kubernetes.reading.objects import LiveObjects
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.reading.view import ClusterView
from app.errors import TransientError
from app.testing import VirtualClock
from tests.contract.collection import Collection
from tests.unit.test_route_effects import NOW, item, peer, written


def stored(clock: Clock) -> tuple[RouteStore, RouteHistory]:
    history = RouteHistory(clock)
    return RouteStore(Kind.SERVICE, clock, history), history


def version(number: int, spec: JsonObject, **metadata: Json) -> JsonObject:
    return item("Service", "shop", spec, resourceVersion=str(number), **metadata)


def test_a_store_remembers_a_changed_specification_and_no_label() -> None:
    """Written by whatever manager, relisted or watched."""
    clock = VirtualClock(NOW)
    store, history = stored(clock)
    store.put(version(1, {"selector": {"app": "shop"}}))
    store.put(version(2, {"selector": {"app": "shop"}}, labels={"team": "web"}))
    assert history.within("prod") == ()
    store.put(version(3, {"selector": {"app": "other"}}))
    [seen] = history.within("prod")
    assert seen.at == NOW


def test_what_is_taken_away_has_the_time_at_which_the_watch_saw_it() -> None:
    """The last write that the object names is another manager's, minutes ago."""
    clock = VirtualClock(NOW)
    store, history = stored(clock)
    by_helm = written("helm", NOW - timedelta(minutes=2))
    store.put(version(1, {"selector": {"app": "shop", "tier": "x"}}, managedFields=by_helm))
    store.put(version(2, {"selector": {"app": "shop"}}, managedFields=by_helm))
    store.put(version(3, {"selector": {"app": "x"}}, managedFields=written("me", NOW - timedelta(minutes=1))))
    assert [one.at for one in history.within("prod")] == [NOW, NOW - timedelta(minutes=1)]


def test_the_memory_of_changes_is_bounded() -> None:
    """By number for each namespace."""
    store, history = stored(VirtualClock(NOW))
    for number in range(200):
        store.put(version(number + 1, {"selector": {"app": f"shop-{number}"}}))
    assert len(history.within("prod")) == 50


async def test_namespaces_that_are_gone_are_forgotten() -> None:
    """Previews come and go for months: what is older than two hours takes no memory."""
    clock = VirtualClock(NOW)
    history = RouteHistory(clock)
    for number in range(300):
        gone = version(1, {"selector": {"app": "shop"}})
        history.deleted({**gone, "metadata": {**dict(gone["metadata"]), "namespace": f"preview-{number}"}})  # type: ignore[arg-type]
        await clock.advance(60)
    namespaces, changes = history.size
    assert namespaces == changes
    assert 115 <= namespaces <= 125


def test_services_of_one_name_in_two_environments_are_not_confused() -> None:
    """SERVICE_WORKLOADS may name workloads of one namespace for several environments."""
    settings = ServiceMap(
        environment_namespaces={"prod": "apps"},
        service_workloads={"prod/shop": "apps/shop", "staging/shop": "apps/shop-next"},
    )
    templates, claims = PodTemplates(), []
    for one in ("shop", "shop-next"):
        template: JsonObject = {"metadata": {"labels": {"app": one}}, "spec": {"containers": []}}
        workload = item("Deployment", one, {"template": template}, namespace="apps")
        templates.changed(workload, present=True)
        claims.append(claim_of(workload))
    space = NamespaceWorkloads(settings, claims)
    found = {env: templates.by_service(space, "apps", env)["shop"].labels for env in ("prod", "staging")}
    assert found == {"prod": ({"app": "shop"},), "staging": ({"app": "shop-next"},)}


def test_no_secret_and_no_long_list_is_kept() -> None:
    """The Secret of TLS is left out; a list that is too long to read is a digest, which still differs."""
    ingress = item("Ingress", "web", {"tls": [{"secretName": "cert"}], "rules": []}, annotations={"a": "b"})
    assert "cert" not in str(pruned(Kind.INGRESS, ingress))

    def long(last: str) -> JsonObject:
        blocks: list[Json] = [
            {"from": [{"ipBlock": {"cidr": f"10.{n // 250}.{n % 250}.0/24"}}]} for n in range(2000)
        ]
        return pruned(Kind.NETWORK_POLICY, item("NetworkPolicy", "p", {"ingress": [*blocks, peer(last)]}))

    assert len(str(long("a"))) < 1000
    assert long("a") != long("b")


@pytest.mark.parametrize(
    ("before", "after", "dated"),
    [
        (-90, -40, -40),  # written while the watch was down
        (-40, -90, 0),  # what the last writer had set was taken away
        (-90, 10, 0),  # the clock of the API server is ahead
    ],
)
def test_a_change_has_the_time_of_its_write_however_late_the_watch_hears_of_it(
    before: int, after: int, dated: int
) -> None:
    """A watch that was down for long does not make an old change a fresh one."""
    store, history = stored(VirtualClock(NOW))

    def minutes(number: int) -> datetime:
        return NOW + timedelta(minutes=number)

    store.put(version(1, {"selector": {"app": "shop"}}, managedFields=written("helm", minutes(before))))
    store.put(version(2, {"selector": {"app": "x"}}, managedFields=written("me", minutes(after))))
    assert [one.at for one in history.within("prod")] == [minutes(dated)]


@pytest.mark.parametrize(("heard", "open_since"), [(0, None), (-10, None), (-600, -600)])
def test_a_deletion_after_an_interruption_may_be_as_old_as_that(heard: int, open_since: int | None) -> None:
    """The list shows that an object is gone, and not since when."""
    _, history = stored(VirtualClock(NOW))
    history.deleted(version(1, {"selector": {"app": "shop"}}), NOW + timedelta(seconds=heard))
    [seen] = history.within("prod")
    assert seen.at == NOW
    assert seen.not_before == (None if open_since is None else NOW + timedelta(seconds=open_since))


class ByKind(ReadApi):
    """An API server with a collection of Services; every other kind has none."""

    def __init__(self, services: Collection) -> None:
        super().__init__(cast("Connection", None))
        self._services, self._none = services, Collection()

    def pages(self, kind: Kind, namespace: str, **asked: object) -> AsyncIterator[Listing]:  # type: ignore[override]
        return self._of(kind).pages(kind, namespace, **asked)  # type: ignore[arg-type]

    def watch(self, kind: Kind, namespace: str, version: str, **asked: object) -> AsyncIterator[Watched]:  # type: ignore[override]
        return self._of(kind).watch(kind, namespace, version, **asked)  # type: ignore[arg-type]

    def _of(self, kind: Kind) -> Collection:
        return self._services if kind is Kind.SERVICE else self._none


@pytest.mark.parametrize("down", [True, False])
async def test_what_the_list_after_an_interruption_misses_has_no_time(*, down: bool) -> None:
    """A Service that was deleted while the watch was down for ten minutes; else the event has it."""
    clock, services = VirtualClock(NOW), Collection()
    services.put("shop", "a")
    names = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    api = ByKind(services)
    view = ClusterView(lambda _: api, LiveObjects(api, names, clock), names, clock, jitter=lambda: 0.0)
    async with view.followed():
        await clock.settle()
        if down:
            services.refused = [TransientError("refused")] * 60
            services.cut()
        services.delete("shop")
        await clock.advance(600)
        services.refused = []
        await clock.advance(60)
        [gone] = (await view.routes("payments", "prod")).seen
    assert gone.not_before == (NOW if down else None)
    assert (gone.at > NOW) is down

"""What every cluster says of the Services and network policies before a workload.

A test module of an adapter imports these tests with `*`, as those of `cluster_suite`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from app.agent.routes import NETWORK_POLICY, SERVICE, RouteChange, RouteEffect
from app.agent.workload import WorkloadView
from tests.contract.cluster_harness import ClusterHarness
from tests.contract.cluster_suite import deploy_shop, key_of

AUTHOR = "route-editor"


@asynccontextmanager
async def watched(cluster: ClusterHarness) -> AsyncIterator[None]:
    """The watch runs, as it does beside every reader of the agent; it has read what is there."""
    started = asyncio.Event()

    async def follow() -> None:
        async with aclosing(cluster.ports.watch.events()) as events:  # type: ignore[type-var]
            async for _ in events:
                started.set()

    task = asyncio.create_task(follow())
    try:
        await started.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def known(view: WorkloadView, kind: str, name: str) -> list[RouteChange]:
    """The changes of one object whose difference is known, newest first."""
    routes = view.routes
    assert routes is not None
    return [one for one in routes.changes if (one.kind, one.name) == (kind, name) and one.difference]


def concerned(view: WorkloadView) -> list[str]:
    assert view.routes is not None
    return [str(one) for one in view.routes.objects]


async def test_a_selector_that_is_changed_is_a_change_and_a_fault(cluster: ClusterHarness) -> None:
    """With its author and its difference, and the service that it is about."""
    await deploy_shop(cluster)
    await cluster.put_service("shop", "shop", by=AUTHOR)
    async with watched(cluster):
        await cluster.until(key_of(cluster), lambda seen: "Service shop" in concerned(seen))
        await cluster.put_service("shop", "shop-2", by=AUTHOR)
        view = await cluster.until(key_of(cluster), lambda seen: bool(seen.routes and seen.routes.faults))
        found = known(view, SERVICE, "shop")[0]
    assert (found.by, found.effect, found.services) == (AUTHOR, RouteEffect.CUTS, ("shop",))
    assert found.difference == ("selector app=shop -> app=shop-2",)
    assert view.routes is not None
    [fault] = view.routes.faults
    assert fault.words == "selects no pod of the namespace (selector app=shop-2)"


async def test_a_label_of_a_service_is_no_change(cluster: ClusterHarness) -> None:
    """It is written in the same way, and no request depends on it."""
    await deploy_shop(cluster)
    await cluster.put_service("shop", "shop", by=AUTHOR)
    async with watched(cluster):
        await cluster.until(key_of(cluster), lambda seen: "Service shop" in concerned(seen))
        before = await cluster.ports.reader.workload(key_of(cluster))
        await cluster.label_service("shop", {"team": "web"}, by=AUTHOR)
        await cluster.put_policy("later", "shop", by=AUTHOR)
        view = await cluster.until(key_of(cluster), lambda seen: "NetworkPolicy later" in concerned(seen))
    assert before is not None
    assert known(view, SERVICE, "shop") == known(before, SERVICE, "shop")


async def test_a_policy_that_isolates_the_pods_is_a_change(cluster: ClusterHarness) -> None:
    """Its creation is known as a whole; a policy on other pods concerns others."""
    await deploy_shop(cluster)
    async with watched(cluster):
        await cluster.put_policy("elsewhere", "other", by=AUTHOR)
        await cluster.put_policy("isolated", "shop", by=AUTHOR)
        view = await cluster.until(key_of(cluster), lambda seen: "NetworkPolicy isolated" in concerned(seen))
    [found] = known(view, NETWORK_POLICY, "isolated")
    assert (found.by, found.effect, found.services) == (AUTHOR, RouteEffect.CUTS, ("shop",))
    assert found.difference[0] == "created"
    assert "podSelector app=shop" in found.difference
    assert "NetworkPolicy elsewhere" not in concerned(view)


async def test_without_the_right_the_kinds_are_unread(cluster: ClusterHarness) -> None:
    """The workload is read as before."""
    await deploy_shop(cluster)
    await cluster.put_service("shop", "shop", by=AUTHOR)
    reader = await cluster.without_routes()
    view = await reader.workload(key_of(cluster))
    assert view is not None
    assert view.routes is not None
    assert view.routes.unread == ("Service", "Ingress", "NetworkPolicy")
    assert (view.routes.objects, view.routes.changes, view.routes.faults) == ((), (), ())
    assert view.ready_replicas == 2

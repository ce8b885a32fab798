"""A node that reports to be ready, and is at fault all the same: what several services show together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app.agent.evidence.cluster.node_neighbours import failing_with, neighbours_on
from app.agent.evidence.pods import failing_node
from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import Cause, NodeNeighbours, Trigger
from app.agent.observation.neighbours import neighbours_of
from app.agent.rules import node_failure
from app.agent.workload import PodView, WorkloadView
from app.errors import TransientError
from tests.unit.scenes import KEY, NEW, OLD, at, evidence, pods, pulling, released, workload

GREY = "node-9"
NOW = at(0.3)
CART, TILL = (ServiceKey(environment="prod", service=name) for name in ("cart", "till"))


def stuck(count: int = 1, node: str = GREY) -> tuple[PodView, ...]:
    """Pods of the template that serves well on other nodes, not ready for hours."""
    return pods(OLD, count, ready=False, node=node)


def running(*views: PodView) -> WorkloadView:
    return workload([OLD], views)


ONE_FAILS = running(*pods(OLD, 2), *stuck())
ON_NODE = running(*pods(OLD, 2), *pods(OLD, 1, node=GREY))
NOT_ON_NODE = running(*pods(OLD, 3))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (ONE_FAILS, "failing"),
        (ON_NODE, "healthy"),
        (NOT_ON_NODE, ""),
        (running(*pods(OLD, 2), *stuck(), *stuck(node="node-4")), "beside"),
        (running(*pods(OLD, 2), *stuck(node="node-4")), "beside"),
        (running(*pods(OLD, 2), *stuck(), *pods(OLD, 1, node=GREY)), "beside"),
        (running(*stuck()), "beside"),
        (released((*pods(OLD, 2), *pods(NEW, 1, ready=False, created=-60, node=GREY))), "beside"),
        (released((*pods(OLD, 2), *(replace(one, node=GREY) for one in pulling(NEW, 1)))), "beside"),
        (running(*pods(OLD, 2), *pods(OLD, 1, ready=False, phase="Unknown", node=GREY)), "beside"),
    ],
)
def test_what_another_service_shows_of_the_node(seen: WorkloadView, expected: str) -> None:
    """It speaks against the node only where it fails there alone, with a template that works elsewhere."""
    found = neighbours_on(GREY, [(CART, seen)], NOW)
    told = {"failing": found.failing, "healthy": found.healthy, "beside": found.beside}
    assert told == {name: (CART,) if name == expected else () for name in told}


@pytest.mark.parametrize(
    ("neighbours", "counts"),
    [
        (NodeNeighbours(node=GREY, failing=(CART,)), True),
        (NodeNeighbours(node=GREY, failing=(CART,), healthy=(TILL,)), True),
        (NodeNeighbours(node=GREY, failing=(CART,), healthy=(TILL, TILL)), False),
        (NodeNeighbours(node=GREY, failing=(CART,), beside=(TILL, TILL)), False),
        (NodeNeighbours(node="node-4", failing=(CART,)), False),
        (NodeNeighbours(node=GREY), False),
        (None, False),
    ],
)
def test_as_many_services_that_show_the_opposite_outweigh(
    neighbours: NodeNeighbours | None, *, counts: bool
) -> None:
    """Then one failing pod is not enough for a node."""
    seen = evidence(Trigger.HIGH_ERROR_RATE, workload=ONE_FAILS, neighbours=neighbours)
    assert failing_with(GREY, seen) == ((CART,) if counts else ())
    assert failing_node(ONE_FAILS.pods, seen) == (GREY if counts else None)


def test_the_node_and_the_other_services_are_named() -> None:
    """With more confidence than several pods of one service give."""
    two = evidence(Trigger.HIGH_ERROR_RATE, workload=running(*pods(OLD, 2), *stuck(2)))
    grey = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=ONE_FAILS,
        neighbours=NodeNeighbours(node=GREY, failing=(CART, TILL)),
    )
    before, found = node_failure.evaluate(two), node_failure.evaluate(grey)
    assert before is not None
    assert found is not None
    assert found.cause is Cause.NODE_FAILURE
    assert found.confidence > before.confidence
    assert found.evidence_for == (
        "the unhealthy pod is on node node-9, and pods on other nodes are healthy",
        "pods of cart in prod, till in prod fail on node node-9 too, and are healthy elsewhere",
    )


def test_a_release_whose_only_new_pod_fails_is_no_node() -> None:
    """Its template is healthy nowhere, whatever else fails on the node."""
    seen = released((*pods(OLD, 2), *pods(NEW, 1, ready=False, created=-60, node=GREY)))
    found = evidence(
        Trigger.HIGH_ERROR_RATE, workload=seen, neighbours=NodeNeighbours(node=GREY, failing=(CART, TILL))
    )
    assert failing_node(seen.pods, found) is None
    assert node_failure.evaluate(found) is None


class Silent:
    """A cluster whose answer never comes."""

    async def services(self) -> tuple[ServiceKey, ...]:
        await asyncio.Event().wait()
        return ()


async def test_a_comparison_without_an_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnosis continues without it."""
    monkeypatch.setattr("app.agent.observation.neighbours._SECONDS", 0.01)
    silent: Any = Silent()
    assert await neighbours_of(evidence(workload=ONE_FAILS), silent, Clusters()) is None


@dataclass
class Reader:
    """Services with their workloads; one without is not readable."""

    found: dict[ServiceKey, WorkloadView]
    unreadable: ServiceKey | None = None

    async def services(self) -> tuple[ServiceKey, ...]:
        return (*self.found,)

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        if key == self.unreadable:
            raise TransientError("the API server does not answer")
        return self.found[key]


@pytest.mark.parametrize(
    ("seen", "unreadable", "expected"),
    [
        (ONE_FAILS, None, NodeNeighbours(node=GREY, failing=(CART,), healthy=(TILL,))),
        (ONE_FAILS, TILL, None),
        (running(*pods(OLD, 3)), None, None),
        (running(*pods(OLD, 2), *stuck(), *stuck(node="node-4")), None, None),
    ],
)
async def test_services_of_the_same_cluster_are_compared(
    seen: WorkloadView, unreadable: ServiceKey | None, expected: NodeNeighbours | None
) -> None:
    """A node of another cluster may have the same name; nothing is concluded from a part of the services."""
    far = ServiceKey(environment="far", service="cart")
    others = {KEY: seen, far: ONE_FAILS, CART: ONE_FAILS, TILL: ON_NODE}
    view: Any = Reader(others, unreadable)
    clusters = Clusters(environments={"far": "west"})
    assert await neighbours_of(evidence(workload=seen), view, clusters) == expected

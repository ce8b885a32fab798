"""Lists of several clusters as one: each cluster's own environments, and the last list of a silent one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.connectors.clusters.listing import ClusterLists
from app.connectors.clusters.routes import Routes
from app.errors import Forbidden, TransientError


def key(environment: str, service: str) -> ServiceKey:
    return ServiceKey(environment=environment, service=service)


@dataclass
class Port:
    """A cluster that lists these, or fails."""

    services: list[ServiceKey] = field(default_factory=list)
    error: Exception | None = None

    async def listed(self) -> tuple[ServiceKey, ...]:
        if self.error is not None:
            raise self.error
        return tuple(self.services)


async def of_all(lists: ClusterLists[ServiceKey], ports: dict[str, Port]) -> tuple[ServiceKey, ...]:
    routes = Routes(clusters=Clusters(environments={"eu": "frankfurt"}), ports=ports)
    return await lists.of_all(routes, lambda port: port.listed(), lambda one: one)


async def test_a_cluster_lists_its_own_environments_alone() -> None:
    """A namespace that is an environment of another cluster is not listed twice."""
    ports = {"": Port([key("prod", "shop"), key("eu", "shop")]), "frankfurt": Port([key("eu", "shop")])}
    assert await of_all(ClusterLists(), ports) == (key("prod", "shop"), key("eu", "shop"))


async def test_a_silent_cluster_keeps_its_last_list_and_is_named() -> None:
    lists: ClusterLists[ServiceKey] = ClusterLists()
    ports = {"": Port([key("prod", "shop")]), "frankfurt": Port([key("eu", "shop")])}
    before = await of_all(lists, ports)
    ports["frankfurt"].error = TransientError("no answer")
    assert await of_all(lists, ports) == before
    assert lists.faults() == {"": None, "frankfurt": "no answer"}


async def test_where_no_cluster_lists_anything_an_answer_comes_before_silence() -> None:
    ports = {"": Port(error=TransientError("no answer")), "frankfurt": Port(error=Forbidden("no right"))}
    with pytest.raises(Forbidden):
        await of_all(ClusterLists(), ports)

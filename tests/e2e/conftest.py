"""The real tier's fixtures: one test bed for a session, started by the first test that asks.

What the bed is made of is fetched or built while tests are collected, since no
test's time-out is meant for that. Without it the real tier fails, because a tier
that skips itself proves nothing; `HEAL_REAL=skip` is for those who know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed import TestbedError
from testbed.binaries import ensure_binaries
from testbed.controlplane import ControlPlane
from testbed.debian import ensure_packages
from testbed.kafka import ensure_kafka
from testbed.world import TestBed
from tests.e2e.agent_process import AgentProcess

_unprepared = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have everything at hand before the first real test starts."""
    if os.environ.get("HEAL_REAL") == "skip":
        return
    real = [item for item in session.items if item.get_closest_marker("real") is not None]
    if real:
        try:
            ensure_binaries()
            ensure_packages()
            if any("kafka" in item.nodeid for item in real):
                ensure_kafka()
        except TestbedError as error:
            session.config.stash[_unprepared] = str(error)


@pytest.fixture(scope="session")
def testbed_world(request: pytest.FixtureRequest) -> Iterator[TestBed]:
    """The bed with control plane and kubelet; sample services and monitoring are started on demand."""
    if os.environ.get("HEAL_REAL") == "skip":
        pytest.skip("HEAL_REAL=skip")
    reason = request.config.stash.get(_unprepared, None)
    if reason is not None:
        pytest.fail(f"the real tier cannot run: {reason}", pytrace=False)
    with TestBed() as bed:
        yield bed


@pytest.fixture(scope="session")
def control_plane(testbed_world: TestBed) -> ControlPlane:
    """The bed's control plane: kubeconfigs per user, audit log."""
    return testbed_world.control_plane


@pytest.fixture(scope="session")
def monitored_world(testbed_world: TestBed) -> TestBed:
    """The same bed with sample services, Prometheus and Alertmanager (`bed.monitoring`)."""
    testbed_world.start_monitoring()
    return testbed_world


@pytest.fixture
def namespace(testbed_world: TestBed) -> Iterator[str]:
    """A fresh namespace, deleted afterwards; the bed is checked so that a dead part names itself."""
    testbed_world.check()
    name = testbed_world.create_namespace()
    yield name
    testbed_world.check()
    testbed_world.delete_namespace(name)


Agents = Callable[..., AgentProcess]


@pytest.fixture
def agents(
    tmp_path: Path, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> Iterator[Agents]:
    """Makes agents over the test's namespace; all are gone afterwards."""
    made: list[AgentProcess] = []

    def make(user: str = "agent", **settings: str) -> AgentProcess:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir()
        made.append(
            AgentProcess(
                folder=folder,
                namespace=namespace,
                kubeconfig=control_plane.kubeconfig(user),
                prometheus_url=monitored_world.monitoring.prometheus_url,
                settings=settings,
            )
        )
        return made[-1]

    yield make
    for agent in made:
        agent.kill()


def agent_writes(control_plane: ControlPlane, namespace: str) -> list[str]:
    """Every real change that the agent made in a namespace, from the API server's own audit log."""
    return [
        f"{event.verb} {event.resource}/{event.name}"
        for event in control_plane.audit_events()
        if event.namespace == namespace and event.user in ("agent", "readonly") and event.effective
    ]

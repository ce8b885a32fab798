"""The real tier's fixtures: one test bed for a session, started by the first test that asks.

What the bed is made of is fetched or built while tests are collected, since no
test's time-out is meant for that. Without it the real tier fails, because a tier
that skips itself proves nothing; `HEAL_REAL=skip` is for those who know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed import TestbedError
from testbed.binaries import ensure_binaries
from testbed.controlplane import ControlPlane
from testbed.debian import ensure_packages
from testbed.world import TestBed

_unprepared = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have everything at hand before the first real test starts."""
    if os.environ.get("HEAL_REAL") == "skip":
        return
    if any(item.get_closest_marker("real") is not None for item in session.items):
        try:
            ensure_binaries()
            ensure_packages()
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

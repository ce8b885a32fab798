"""Faults of the public list on the real control plane: the right end, and never the trap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from testbed.controlplane import ControlPlane
from testbed.workloads import config_map_name
from testbed.world import TestBed
from tests.e2e.agent_process import ACTING, story
from tests.e2e.conftest import Agents, agent_writes

pytestmark = pytest.mark.real

SERVICE = "shop"
GOOD = "shop:1"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the list: how it is brought about, and how it must end."""

    row: int
    cause: str
    action: str
    strike: Callable[[TestBed, str], None]


HEALED = [
    Fault(
        row=1,
        cause="bad_release",
        action="rollback",
        strike=lambda bed, ns: bed.set_image(ns, SERVICE, "shop:2-missing"),
    ),
    Fault(
        row=2,
        cause="bad_release",
        action="rollback",
        strike=lambda bed, ns: bed.set_command(ns, SERVICE, ["/bad/entrypoint"]),
    ),
    Fault(
        row=4,
        cause="bad_release",
        action="rollback",
        strike=lambda bed, ns: bed.set_image(ns, SERVICE, "shop:2-slow"),
    ),
    Fault(
        row=5,
        cause="bad_config",
        action="revert_config",
        strike=lambda bed, ns: bed.set_env(ns, SERVICE, {"DEPENDENCY_URL": "http://127.0.0.1:9/"}),
    ),
    Fault(
        row=7,
        cause="resource_limit",
        action="revert_config",
        strike=lambda bed, ns: bed.set_memory_limit(ns, SERVICE, "16Mi"),
    ),
]


@pytest.mark.parametrize("fault", HEALED, ids=lambda fault: f"row-{fault.row}-{fault.cause}")
def test_a_fault_is_healed_by_the_right_action(
    fault: Fault, agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """One action, the right one, on the sick object alone; recovery verified."""
    # Slow answers show in the metrics once they were given: a version is judged after that.
    bed, agent = monitored_world, agents(TRUST_REVISION_AFTER_SECONDS="15", **ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.deploy(namespace, "bystander", "bystander:1")
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    fault.strike(bed, namespace)
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "recovered", story(incident)
    assert incident["diagnosis"]["cause"] == fault.cause, story(incident)
    assert [a["name"] for a in incident["actions"]] == [fault.action]
    assert agent_writes(control_plane, namespace) == [f"patch deployments/{SERVICE}"]
    assert agent.incidents("bystander") == []


def test_row_19_an_irreversible_release_is_never_rolled_back(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """Old code on the new schema would harm: a person is asked."""
    bed, agent = monitored_world, agents(**ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.annotate(namespace, SERVICE, {"self-healing-devops-agent/irreversible": "true"})
    bed.set_image(namespace, SERVICE, "shop:2-crash")
    incident = agent.wait_incident(SERVICE, "recovered", "escalated")
    assert incident["state"] == "escalated", story(incident)
    assert incident["diagnosis"]["cause"] == "irreversible_release"
    assert agent_writes(control_plane, namespace) == []


def test_row_21_nothing_is_wrong_and_nothing_is_done(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """A healthy release under traffic, and more replicas: no incident, no write."""
    bed, agent = monitored_world, agents(**ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2")
    bed.wait_rolled_out(namespace, SERVICE)
    bed.scale(namespace, SERVICE, 5)
    bed.wait_rolled_out(namespace, SERVICE)
    agent.wait_trusted(SERVICE, 2)
    load.stop()
    assert agent.incidents(SERVICE) == []
    assert agent_writes(control_plane, namespace) == []


def test_row_22_a_rollback_that_does_not_help_is_undone(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """An innocent release beside a dying dependency: undone, proved undone, escalated; no second rollback."""
    bed, agent = monitored_world, agents(VERIFY_TIMEOUT_SECONDS="10", **ACTING)
    bed.deploy(namespace, "db", "db:1")
    bed.wait_rolled_out(namespace, "db")
    url = bed.service_url(namespace, "db")
    bed.deploy(namespace, SERVICE, GOOD, env={"DEPENDENCY_URL": url})
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2")
    bed.wait_rolled_out(namespace, SERVICE)
    bed.scale(namespace, "db", 0)
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "escalated", story(incident)
    names = [a["name"] for a in incident["actions"]]
    assert names in ([], ["rollback", "restore"]), story(incident)
    if names:
        assert "Undo verified" in story(incident)
    assert bed.image(namespace, SERVICE) == "shop:2"


def test_a_config_map_read_at_start_is_put_back_and_the_pods_restarted(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """A bad value rolled out by a restart: only both together, content and restart, heal it."""
    bed, agent = monitored_world, agents(**ACTING)
    bed.deploy(namespace, SERVICE, GOOD, config_map={"FAIL_RATIO": "0", "COLOUR": "green"})
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.update_config_map(namespace, config_map_name(SERVICE), {"FAIL_RATIO": "0.9"})
    bed.restart(namespace, SERVICE)
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "recovered", story(incident)
    assert incident["diagnosis"]["cause"] == "bad_config", story(incident)
    assert [a["name"] for a in incident["actions"]] == ["revert_config", "restart"]
    assert agent_writes(control_plane, namespace) == [
        f"patch configmaps/{config_map_name(SERVICE)}",
        f"patch deployments/{SERVICE}",
    ]

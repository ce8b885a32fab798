"""The walking skeleton's story on the real control plane, Prometheus and Alertmanager."""

from __future__ import annotations

import httpx2
import pytest

from testbed.controlplane import ControlPlane
from testbed.waiting import NotYet, wait_for
from testbed.world import TestBed
from tests.e2e.agent_process import ACTING, TOKEN, story
from tests.e2e.conftest import Agents, agent_writes

pytestmark = pytest.mark.real

SERVICE = "shop"
GOOD = "shop:1"


def test_a_bad_release_under_traffic_is_rolled_back_and_verified(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """Measured by Prometheus, alerted by Alertmanager, healed by one rollback, proved over a soak."""
    bed, agent = monitored_world, agents(**ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    bed.monitoring.route_alerts_to(f"{agent.url}/webhooks/alertmanager", TOKEN)
    try:
        agent.wait_trusted(SERVICE)
        bed.set_image(namespace, SERVICE, "shop:2-errors")
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    finally:
        bed.monitoring.route_alerts_to(None)
        load.stop()
    assert incident["state"] == "recovered", story(incident)
    assert incident["diagnosis"]["cause"] == "bad_release"
    assert incident["verdict"] == "recovered"
    assert [a["name"] for a in incident["actions"]] == ["rollback"]
    assert incident["actions"][0]["outcome"] == "done"
    sources = {e["data"].get("source") for e in incident["timeline"] if e["stage"] == "observe"}
    assert {"prometheus", "alertmanager"} <= sources, story(incident)
    assert bed.image(namespace, SERVICE) == GOOD
    assert agent_writes(control_plane, namespace) == [f"patch deployments/{SERVICE}"]


def test_the_defaults_change_nothing_and_propose(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """Promise 5: the same fault under a dry run; every object keeps its resourceVersion."""
    bed, agent = monitored_world, agents(VERIFY_TIMEOUT_SECONDS="5")
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2-missing")
    bed.wait_waiting(namespace, SERVICE, "ImagePullBackOff")
    before = bed.wait_settled(namespace)
    agent.start()
    incident = agent.wait_incident(SERVICE, "proposed", "escalated", "recovered_without_action")
    assert incident["state"] == "proposed", story(incident)
    (action,) = incident["actions"]
    assert action["name"] == "rollback"
    assert action["decision"] == "deny"
    assert action["dry_run"] is True
    assert action["outcome"] == "rehearsed"
    assert "dryRun=All" in story(incident)
    assert bed.resource_versions(namespace) == before
    assert agent_writes(control_plane, namespace) == []
    rehearsals = [e for e in control_plane.audit_events() if e.namespace == namespace and e.dry_run]
    assert rehearsals, "the API server was never asked"


def test_with_high_risk_off_the_rollback_is_denied_and_escalated(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """Promise 6."""
    bed, agent = monitored_world, agents(DRY_RUN="false")
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2-crash")
    incident = agent.wait_incident(SERVICE, "escalated", "recovered", "proposed")
    assert incident["state"] == "escalated", story(incident)
    (action,) = incident["actions"]
    assert action["decision"] == "deny"
    assert any("ALLOW_HIGH_RISK_ACTIONS" in reason for reason in action["reasons"])
    assert agent_writes(control_plane, namespace) == []


def test_without_rights_forbidden_is_said_and_escalated(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """A service account that may only read: nothing is changed, and the timeline says why."""
    bed, agent = monitored_world, agents("readonly", **ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2-crash")
    incident = agent.wait_incident(SERVICE, "escalated", "recovered", "proposed")
    assert incident["state"] == "escalated", story(incident)
    assert "forbidden" in story(incident).lower()
    assert agent_writes(control_plane, namespace) == []


def test_a_service_account_that_may_not_even_read_is_said(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """No rights at all: the agent runs, its readiness names the missing right, an incident escalates."""
    agent = agents("nobody", **ACTING)
    agent.start(wait=False)

    def not_ready() -> bool | NotYet:
        try:
            answer = httpx2.get(f"{agent.url}/readyz", timeout=20, verify=False)
        except httpx2.TransportError as error:
            return NotYet(repr(error))
        return (
            True if answer.status_code == 503 and "forbidden" in answer.text.lower() else NotYet(answer.text)
        )

    wait_for("readiness to name the missing right", not_ready, timeout_seconds=30)

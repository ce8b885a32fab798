"""Undo, attribution, trust, whole templates and alerts that go on, played on the real control plane."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from lightkube.resources.apps_v1 import Deployment

from testbed.behaviour import ANNOTATION
from testbed.controlplane import ControlPlane
from testbed.waiting import NotYet, wait_for
from testbed.workloads import config_map_name
from testbed.world import TestBed
from tests.e2e.agent_process import ACTING, story
from tests.e2e.conftest import Agents, agent_writes

pytestmark = pytest.mark.real

SERVICE = "shop"
GOOD = "shop:1"
REFUSED = "pods need a signed image"


def _dying_dependency(bed: TestBed, namespace: str, **more: object) -> None:
    """Four of shop, of which a rollout may take half away and adds none, call a database."""
    bed.deploy(namespace, "db", "db:1")
    bed.wait_rolled_out(namespace, "db")
    bed.deploy(
        namespace,
        SERVICE,
        GOOD,
        replicas=4,
        rolling=("50%", 0),
        env={"DEPENDENCY_URL": bed.service_url(namespace, "db")},
        **more,  # type: ignore[arg-type]  # a test names real arguments
    )
    bed.wait_rolled_out(namespace, SERVICE)


def _rolled_back(bed: TestBed, namespace: str) -> None:
    """Until the agent has taken the release back."""

    def check() -> bool | NotYet:
        image = bed.image(namespace, SERVICE)
        return True if image == GOOD else NotYet(image)

    wait_for("the rollback", check, timeout_seconds=90)


def _available(bed: TestBed, namespace: str) -> int:
    status = bed.deployment(namespace, SERVICE).status
    return (status.availableReplicas if status else None) or 0


def test_a_revert_is_not_begun_where_its_restart_could_make_no_pods(
    agents: Agents, monitored_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """An admission policy refuses new pods: nothing is written, all four stay, the reason is recorded."""
    bed, agent = monitored_world, agents(**ACTING)
    settings = {"FAIL_RATIO": "0", "COLOUR": "green"}
    bed.deploy(namespace, SERVICE, GOOD, replicas=4, rolling=("50%", 0), config_map=settings)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.update_config_map(namespace, config_map_name(SERVICE), {"FAIL_RATIO": "0.9"})
    bed.restart(namespace, SERVICE)
    bed.wait_rolled_out(namespace, SERVICE)
    bed.refuse_pods(namespace, REFUSED)
    try:
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    finally:
        bed.admit_pods(namespace)
        load.stop()
    assert incident["state"] == "escalated", story(incident)
    assert "new pods would be refused" in story(incident)
    assert REFUSED in story(incident)
    assert "Undo verified" not in story(incident)
    assert agent_writes(control_plane, namespace) == []
    assert _available(bed, namespace) == 4


def test_an_undo_whose_pods_are_refused_is_not_called_verified(
    agents: Agents, monitored_world: TestBed, namespace: str
) -> None:
    """The policy comes after the rollback: it says how many of how many are there, and asks a person."""
    bed, agent = monitored_world, agents(VERIFY_TIMEOUT_SECONDS="10", **ACTING)
    _dying_dependency(bed, namespace)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2")
    bed.wait_rolled_out(namespace, SERVICE)
    bed.scale(namespace, "db", 0)
    try:
        _rolled_back(bed, namespace)
        bed.refuse_pods(namespace, REFUSED)
        incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    finally:
        bed.admit_pods(namespace)
        load.stop()
    assert incident["state"] == "escalated", story(incident)
    assert "Undo verified" not in story(incident)
    assert " of 4 replicas are available" in story(incident)
    assert REFUSED in story(incident)


def test_an_autoscaler_does_not_hold_the_undo_of_a_rollback_off(
    agents: Agents, monitored_world: TestBed, namespace: str
) -> None:
    """Its replicas stay, the innocent release comes back, and no change is named as the cause."""
    bed, agent = monitored_world, agents(VERIFY_TIMEOUT_SECONDS="10", **ACTING)
    _dying_dependency(bed, namespace)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2")
    bed.wait_rolled_out(namespace, SERVICE)
    bed.scale(namespace, "db", 0)
    _rolled_back(bed, namespace)
    bed.client.patch(
        Deployment.Scale,
        SERVICE,
        {"spec": {"replicas": 5}},
        namespace=namespace,
        field_manager="horizontal-pod-autoscaler",
    )
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "escalated", story(incident)
    assert [a["name"] for a in incident["actions"]] == ["rollback", "restore"], story(incident)
    assert "Undo verified" in story(incident)
    assert "changed since" not in story(incident)
    assert bed.image(namespace, SERVICE) == "shop:2"
    spec = bed.deployment(namespace, SERVICE).spec
    assert spec is not None
    assert spec.replicas == 5


@pytest.mark.parametrize(("resolved", "end"), [(False, "escalated"), (True, "recovered")])
def test_there_is_no_all_clear_while_the_alert_fires(
    agents: Agents, monitored_world: TestBed, namespace: str, resolved: bool, end: str
) -> None:
    """After the rollback the measured levels are well; the incident recovers if its alert resolved, too."""
    bed, agent = monitored_world, agents(VERIFY_TIMEOUT_SECONDS="15", **ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.set_image(namespace, SERVICE, "shop:2-errors")
    agent.wait_incident(SERVICE, "open", "executing", "verifying")
    started = datetime.now(UTC)
    agent.post("/webhooks/alertmanager", _burning(namespace, started))
    _rolled_back(bed, namespace)
    if resolved:
        agent.post("/webhooks/alertmanager", _burning(namespace, started, ended=datetime.now(UTC)))
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == end, story(incident)
    assert bed.image(namespace, SERVICE) == GOOD
    assert ("is still firing" in story(incident)) is not resolved, story(incident)


def _burning(namespace: str, started: datetime, ended: datetime | None = None) -> dict[str, object]:
    """A delivery of Alertmanager about a burn rate of the service."""
    status = "firing" if ended is None else "resolved"
    alert = {
        "status": status,
        "labels": {"alertname": "HighErrorRate", "namespace": namespace, "service": SERVICE},
        "annotations": {},
        "startsAt": started.isoformat(),
        "endsAt": "0001-01-01T00:00:00Z" if ended is None else ended.isoformat(),
        "generatorURL": "",
        "fingerprint": "b4d1e5c0ffee0001",
    }
    return {
        "version": "4",
        "groupKey": "{}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "heal",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": [alert],
    }


def test_a_release_without_requests_is_not_gone_back_to(
    agents: Agents, monitored_world: TestBed, namespace: str
) -> None:
    """It ran without a request, and fails what it is asked; the one before it answered hundreds."""
    bed, agent = monitored_world, agents(TRUST_MIN_REQUESTS="100", **ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=40)
    agent.start()
    agent.wait_trusted(SERVICE)
    load.stop()
    bed.set_image(namespace, SERVICE, "shop:2-errors")
    bed.wait_rolled_out(namespace, SERVICE)
    # Far longer than trust takes and than a measurement looks back.
    bed.wait_settled(namespace, quiet_seconds=15)
    assert agent.trusted(SERVICE) == {1}
    bed.set_image(namespace, SERVICE, "shop:3-errors")
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=40)
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "recovered", story(incident)
    assert bed.image(namespace, SERVICE) == GOOD


def test_a_change_of_a_pod_annotation_alone_is_named_and_put_back(
    agents: Agents, monitored_world: TestBed, namespace: str
) -> None:
    """Image, environment and resources are as they were: the field is named, the configuration goes back."""
    bed, agent = monitored_world, agents(**ACTING)
    bed.deploy(namespace, SERVICE, GOOD)
    bed.wait_rolled_out(namespace, SERVICE)
    load = bed.start_load(namespace, rps=20)
    agent.start()
    agent.wait_trusted(SERVICE)
    bed.annotate_pods(namespace, SERVICE, {ANNOTATION: "crash"})
    incident = agent.wait_incident(SERVICE, "recovered", "escalated", timeout_seconds=120)
    load.stop()
    assert incident["state"] == "recovered", story(incident)
    assert incident["diagnosis"]["cause"] == "bad_config", story(incident)
    assert f"which changed annotation {ANNOTATION}" in story(incident)
    assert [a["name"] for a in incident["actions"]] == ["revert_config"], story(incident)

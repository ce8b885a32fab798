"""The bed itself keeps its word: pods behave as their image and configuration say, and writes are counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Event, Pod

from testbed.controlplane import ControlPlane
from testbed.waiting import DeadlineExceeded, NotYet, wait_for
from testbed.workloads import config_map_name, restarts, waiting_reasons
from testbed.world import TestBed

pytestmark = pytest.mark.real


def _last_termination(pod: Pod) -> tuple[str, int] | None:
    statuses = (pod.status.containerStatuses if pod.status else None) or ()
    for status in statuses:
        if status.lastState and status.lastState.terminated:
            return status.lastState.terminated.reason or "", status.lastState.terminated.exitCode
    return None


def test_rollout_completes_in_seconds(testbed_world: TestBed, namespace: str) -> None:
    """A healthy image is served by three ready pods, and so is the next one."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0")
    testbed_world.wait_rolled_out(namespace, "pay", timeout_seconds=20)
    testbed_world.set_image(namespace, "pay", "shop/pay:1.1")
    testbed_world.wait_rolled_out(namespace, "pay", timeout_seconds=20)
    images = [p.spec.containers[0].image for p in testbed_world.pods(namespace, "pay") if p.spec]
    assert images == ["shop/pay:1.1"] * 3


def test_missing_image_backs_off_and_leaves_old_pods_serving(testbed_world: TestBed, namespace: str) -> None:
    """The new pod cannot pull; the old ones serve on until the progress deadline and beyond."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", progress_deadline_seconds=3)
    testbed_world.wait_rolled_out(namespace, "pay")
    testbed_world.set_image(namespace, "pay", "shop/pay:2.0-missing")
    testbed_world.wait_waiting(namespace, "pay", "ImagePullBackOff")
    testbed_world.wait_condition(namespace, "pay", "Progressing", "ProgressDeadlineExceeded")
    status = testbed_world.deployment(namespace, "pay").status
    assert status is not None
    assert status.availableReplicas == 3
    events = list(testbed_world.client.list(Event, namespace=namespace))
    assert any(event.type == "Warning" and event.reason == "Failed" for event in events)


def test_crash_loop_grows_restarts(testbed_world: TestBed, namespace: str) -> None:
    """A crashing container waits in CrashLoopBackOff and is started again and again."""
    testbed_world.deploy(namespace, "pay", "shop/pay:crash", replicas=1)
    first = restarts(testbed_world.wait_waiting(namespace, "pay", "CrashLoopBackOff")[0])
    pods = testbed_world.wait_pods(
        namespace,
        "pay",
        lambda pods: restarts(pods[0]) >= first + 2 and bool(waiting_reasons(pods[0])),
        what="two more restarts",
    )
    assert _last_termination(pods[0]) == ("Error", 1)


def test_bad_command_never_starts(testbed_world: TestBed, namespace: str) -> None:
    """A release whose command does not exist crash-loops, and the rollback recovers at once."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", command=["/app"])
    testbed_world.wait_rolled_out(namespace, "pay")
    testbed_world.set_command(namespace, "pay", ["/bad"])
    pods = testbed_world.wait_waiting(namespace, "pay", "CrashLoopBackOff")
    assert ("StartError", 128) in [_last_termination(pod) for pod in pods]
    testbed_world.set_command(namespace, "pay", ["/app"])
    testbed_world.wait_rolled_out(namespace, "pay", timeout_seconds=20)


def test_small_memory_limit_is_oom_killed(testbed_world: TestBed, namespace: str) -> None:
    """A limit that is too small ends in an OOMKilled crash loop with exit code 137."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", replicas=1)
    testbed_world.wait_rolled_out(namespace, "pay")
    testbed_world.set_memory_limit(namespace, "pay", "16Mi")
    pods = testbed_world.wait_waiting(namespace, "pay", "CrashLoopBackOff")
    assert ("OOMKilled", 137) in [_last_termination(pod) for pod in pods]


def test_broken_probe_runs_and_is_never_ready(testbed_world: TestBed, namespace: str) -> None:
    """A wrong readiness probe: running, no restarts, not ready, and the deadline passes."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", progress_deadline_seconds=3)
    testbed_world.wait_rolled_out(namespace, "pay")
    testbed_world.set_readiness_path(namespace, "pay", "/broken")
    testbed_world.wait_condition(namespace, "pay", "Progressing", "ProgressDeadlineExceeded")
    pods = testbed_world.pods(namespace, "pay")
    assert {pod.status.phase for pod in pods if pod.status} == {"Running"}
    assert sum(map(restarts, pods)) == 0


def test_missing_config_map_keeps_containers_from_starting(testbed_world: TestBed, namespace: str) -> None:
    """A reference to a ConfigMap that does not exist waits as on any cluster, and starts when it appears."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", replicas=1, config_map={"FAIL_RATIO": "0"})
    testbed_world.wait_rolled_out(namespace, "pay")
    testbed_world.client.delete(ConfigMap, config_map_name("pay"), namespace=namespace)
    testbed_world.restart(namespace, "pay")
    testbed_world.wait_waiting(namespace, "pay", "CreateContainerConfigError")
    testbed_world.client.create(
        ConfigMap(metadata=ObjectMeta(name=config_map_name("pay"), namespace=namespace), data={})
    )
    testbed_world.wait_rolled_out(namespace, "pay")


def test_deleted_pods_are_replaced(testbed_world: TestBed, namespace: str) -> None:
    """Deleting every pod yields as many new ready pods."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0")
    testbed_world.wait_rolled_out(namespace, "pay")
    old = {pod.metadata.uid for pod in testbed_world.pods(namespace, "pay") if pod.metadata}
    testbed_world.client.deletecollection(Pod, namespace=namespace)
    testbed_world.wait_pods(
        namespace,
        "pay",
        lambda pods: len(pods) == 3 and not old & {pod.metadata.uid for pod in pods if pod.metadata},
        what="three new pods",
    )
    testbed_world.wait_rolled_out(namespace, "pay")


def test_hundreds_of_pods(testbed_world: TestBed, namespace: str) -> None:
    """Two hundred pods become ready, and all leave again."""
    testbed_world.deploy(namespace, "big", "shop/big:1.0", replicas=200)
    testbed_world.wait_rolled_out(namespace, "big", timeout_seconds=60)
    testbed_world.scale(namespace, "big", 0)
    testbed_world.wait_pods(namespace, "big", lambda pods: not pods, what="no pods")


def test_settled_namespace_shows_every_later_change(testbed_world: TestBed, namespace: str) -> None:
    """Equal resource versions mean that nothing changed; one changed key of a ConfigMap shows."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", config_map={"FAIL_RATIO": "0"})
    testbed_world.wait_rolled_out(namespace, "pay")
    before = testbed_world.wait_settled(namespace)
    assert testbed_world.resource_versions(namespace) == before
    testbed_world.update_config_map(namespace, config_map_name("pay"), {"FAIL_RATIO": "0.5"})
    after = testbed_world.resource_versions(namespace)
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {f"ConfigMap/{config_map_name('pay')}"}


def test_audit_log_distinguishes_dry_runs(
    testbed_world: TestBed, control_plane: ControlPlane, namespace: str
) -> None:
    """A dry run and a real patch by one manager are two events, of which one had an effect."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0")
    testbed_world.wait_rolled_out(namespace, "pay")
    agent = control_plane.client("agent")
    body = {"metadata": {"annotations": {"who": "agent"}}}
    for dry_run in (True, False):
        agent.patch(Deployment, "pay", body, namespace=namespace, field_manager="healer", dry_run=dry_run)
    events = [
        event
        for event in control_plane.audit_events()
        if event.namespace == namespace and event.field_manager == "healer"
    ]
    assert [(e.user, e.verb, e.resource, e.name, e.code, e.dry_run, e.effective) for e in events] == [
        ("agent", "patch", "deployments", "pay", 200, True, False),
        ("agent", "patch", "deployments", "pay", 200, False, True),
    ]


def test_rights_of_the_users(testbed_world: TestBed, control_plane: ControlPlane, namespace: str) -> None:
    """`readonly` may not write, not even in a dry run; `nobody` has no rights; `agent` no deletes."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0", replicas=1)
    body = {"spec": {"replicas": 2}}
    assert control_plane.client("readonly").get(Deployment, "pay", namespace=namespace)
    for dry_run in (True, False):
        with pytest.raises(ApiError) as refused:
            control_plane.client("readonly").patch(
                Deployment, "pay", body, namespace=namespace, dry_run=dry_run
            )
        assert refused.value.status.code == 403
    with pytest.raises(ApiError) as refused:
        control_plane.client("nobody").get(Deployment, "pay", namespace=namespace)
    assert refused.value.status.code == 403
    with pytest.raises(ApiError) as refused:
        control_plane.client("agent").delete(Deployment, "pay", namespace=namespace)
    assert refused.value.status.code == 403
    refusals = [event for event in control_plane.audit_events() if event.code == 403]
    assert {"readonly", "agent"} <= {event.user for event in refusals}
    assert not any(event.effective for event in refusals)


def test_a_wait_without_success_says_what_it_saw(testbed_world: TestBed, namespace: str) -> None:
    """The error names the condition and the last state, so that a failed test explains itself."""
    testbed_world.deploy(namespace, "pay", "shop/pay:1.0-missing", replicas=1)
    testbed_world.wait_waiting(namespace, "pay", "ImagePullBackOff")
    with pytest.raises(DeadlineExceeded, match=r"the rollout of .*/pay.*ImagePullBackOff"):
        testbed_world.wait_rolled_out(namespace, "pay", timeout_seconds=0.3)


_OWNER = """
import json, sys, time
from pathlib import Path
from testbed.supervisor import Supervisor
supervisor = Supervisor()
script = "sleep 300 & echo $! > CHILD; wait"
process = supervisor.start(
    "victim", ["sh", "-c", script.replace("CHILD", sys.argv[1])], log=Path(sys.argv[2])
)
print(json.dumps({"victim": process.pid}), flush=True)
time.sleep(300)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_process_outlives_a_killed_owner(tmp_path: Path) -> None:
    """kill -9 of the process that owns a bed takes down what it started, grandchildren included."""
    child = tmp_path / "child"
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(child), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
        text=True,
    )
    try:
        assert owner.stdout is not None
        victim = int(json.loads(owner.stdout.readline())["victim"])
        grandchild = wait_for(
            "the grandchild's pid",
            lambda: int(text) if child.exists() and (text := child.read_text()) else NotYet("no file"),
            timeout_seconds=10,
        )
        assert _alive(victim)
        assert _alive(grandchild)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    wait_for(
        "the end of what the owner started",
        lambda: NotYet("alive") if _alive(victim) or _alive(grandchild) else True,
        timeout_seconds=10,
    )

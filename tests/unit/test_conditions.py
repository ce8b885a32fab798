"""What a cluster reports as wrong: parsed from API objects, held for its time, and said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.evidence.cluster.blockers import (
    Obstacle,
    PullFault,
    Refusal,
    exit_words,
    missing_in,
    obstacles,
    probe_failures,
    pull_fault,
    refusal,
)
from app.agent.evidence.conditions import (
    CONDITION_TRIGGERS,
    CREATE_HOLDS,
    MOUNT_HOLDS,
    NODE_HOLDS,
    NOT_READY_AFTER,
    PULL_HOLDS,
    SCHEDULING_HOLDS,
    START_HOLDS,
    TERMINATED_HOLDS,
    Impact,
    condition_words,
    impact_of,
    lasting_conditions,
    workload_conditions,
)
from app.agent.evidence.facts import PodFault, initialising, pod_fault
from app.agent.ids import Json, JsonObject
from app.agent.models import Condition
from app.agent.workload import ContainerRole, FailingContainer, WarningView, WorkloadView
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.views import WorkloadObjects, workload_view
from tests.unit.k8s_samples import REF, container, deployment, replica_set, template
from tests.unit.scenes import OLD, at, pods, workload

BORN = datetime(2026, 2, 20, 17, tzinfo=UTC)
LONG = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def kube_pod(
    *statuses: JsonObject,
    init: tuple[JsonObject, ...] = (),
    spec: JsonObject | None = None,
    phase: str = "Running",
    ready: JsonObject | None = None,
    scheduled: JsonObject | None = None,
    **status: Json,
) -> JsonObject:
    conditions: list[Json] = [
        {
            "type": "Ready",
            "status": "False",
            "reason": "ContainersNotReady",
            "lastTransitionTime": "2026-02-20T17:00:00Z",
            **(ready or {}),
        }
    ]
    if scheduled is not None:
        conditions.append({"type": "PodScheduled", "status": "False", **scheduled})
    return {
        "metadata": {
            "name": "shop-1-x",
            "uid": "p-1",
            "creationTimestamp": "2026-02-20T17:00:00Z",
            "ownerReferences": [{"controller": True, "uid": "rs-1"}],
        },
        "spec": {"nodeName": "node-a", **(spec or {})},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init),
            **status,
        },
    }


def seen(
    *found: JsonObject,
    after: timedelta = LONG,
    events: tuple[JsonObject, ...] = (),
    item: JsonObject | None = None,
) -> WorkloadView:
    """The view of a Deployment whose pods look like this, so long after they were created."""
    objects = WorkloadObjects(
        workload=item or deployment(status={"availableReplicas": 1}),
        revisions=(replica_set(1),),
        pods=found,
        config_maps=(),
        events=events,
    )
    return workload_view(objects, REF, BORN + after)


def waiting(reason: str, message: str = "", name: str = "app") -> JsonObject:
    state: JsonObject = {"waiting": {"reason": reason, "message": message}}
    return {"name": name, "ready": False, "restartCount": 0, "state": state}


def warning(reason: str, message: str, count: int = 1) -> JsonObject:
    return {
        "involvedObject": {"uid": "p-1"},
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": "2026-02-20T17:01:00Z",
    }


NO_CONFIG = waiting("CreateContainerConfigError", 'configmap "shop-config" not found')
UNSCHEDULABLE: JsonObject = {
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient cpu.",
}
RUNNING: JsonObject = {"name": "app", "ready": False, "restartCount": 0, "state": {"running": {}}}
CREATING = waiting("ContainerCreating")
LOST = kube_pod({**RUNNING, "ready": True}, ready={"status": "Unknown", "reason": "NodeStatusUnknown"})
ENDED: JsonObject = {
    "name": "app",
    "ready": False,
    "restartCount": 0,
    "state": {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "2026-02-20T17:00:00Z"}},
}
NO_ROUTE = 'Failed to pull image "reg/shop:2": Head "https://reg/v2": dial tcp 10.0.0.1:443: i/o timeout'
NO_VOLUME = 'AttachVolume.Attach failed for volume "pvc-1": rpc error: disk is in use'

HELD = {
    "missing configuration": (
        kube_pod(NO_CONFIG, phase="Pending"),
        (),
        Condition.CREATE_CONTAINER_CONFIG_ERROR,
        START_HOLDS,
    ),
    "a command that cannot run": (
        kube_pod(waiting("RunContainerError", "exec: no such file")),
        (),
        Condition.CREATE_CONTAINER_ERROR,
        START_HOLDS,
    ),
    "a container that may not run": (
        kube_pod(
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
        ),
        (),
        Condition.CREATE_CONTAINER_ERROR,
        START_HOLDS,
    ),
    "no node": (
        kube_pod(phase="Pending", scheduled=UNSCHEDULABLE),
        (),
        Condition.FAILED_SCHEDULING,
        SCHEDULING_HOLDS,
    ),
    "no volume": (
        kube_pod(CREATING, phase="Pending"),
        (warning("FailedAttachVolume", NO_VOLUME),),
        Condition.FAILED_MOUNT,
        MOUNT_HOLDS,
    ),
    "a mounted ConfigMap that is gone": (
        kube_pod(CREATING, phase="Pending"),
        (
            warning(
                "FailedMount", 'MountVolume.SetUp failed for volume "c" : configmap "shop-config" not found'
            ),
        ),
        Condition.CREATE_CONTAINER_CONFIG_ERROR,
        START_HOLDS,
    ),
    "a lost node": (LOST, (), Condition.NODE_LOST, NODE_HOLDS),
    "never started again": (kube_pod(ENDED), (), Condition.CONTAINER_TERMINATED, TERMINATED_HOLDS),
    "never ready": (kube_pod(RUNNING), (), Condition.NOT_READY, NOT_READY_AFTER),
    "still being created": (kube_pod(CREATING, phase="Pending"), (), Condition.NOT_READY, NOT_READY_AFTER),
    "a registry that does not answer": (
        kube_pod(waiting("ErrImagePull", NO_ROUTE), phase="Pending"),
        (),
        Condition.IMAGE_PULL_BACK_OFF,
        PULL_HOLDS,
    ),
    "a pull without a reason": (
        kube_pod(waiting("ImagePullBackOff", "Back-off pulling image"), phase="Pending"),
        (),
        Condition.IMAGE_PULL_BACK_OFF,
        PULL_HOLDS,
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_a_condition_counts_when_it_has_held_for_its_time(case: str) -> None:
    """One second earlier there is none: a normal start, rollout or rescheduling is over by then."""
    found, events, condition, holds = HELD[case]
    assert workload_conditions(seen(found, events=events, after=holds - SECOND)) == ()
    assert workload_conditions(seen(found, events=events, after=holds)) == (condition,)


def test_an_image_that_does_not_exist_counts_at_once() -> None:
    """Waiting brings no manifest; the node's message or its event says which it is."""
    missing = "rpc error: code = NotFound desc = manifest unknown"
    now = kube_pod(waiting("ErrImagePull", missing), phase="Pending")
    assert workload_conditions(seen(now, after=SECOND)) == (Condition.IMAGE_PULL_BACK_OFF,)
    by_event = kube_pod(waiting("ImagePullBackOff", "Back-off pulling image"), phase="Pending")
    events = (warning("Failed", f'Failed to pull image "reg/shop:2": {missing}'),)
    assert workload_conditions(seen(by_event, events=events, after=SECOND)) == (
        Condition.IMAGE_PULL_BACK_OFF,
    )


@pytest.mark.parametrize("reason", ["Evicted", "Completed", "NodeShutdown", ""])
def test_a_pod_that_was_replaced_has_no_condition(reason: str) -> None:
    """Evicted and completed pods stay in lists for days after their controller replaced them."""
    for phase in ("Failed", "Succeeded"):
        assert workload_conditions(seen(kube_pod(phase=phase, reason=reason))) == ()


def test_why_a_pod_was_evicted_and_when_it_must_have_ended_are_read() -> None:
    """The handover names both; the time of the last end separates a crash of now from one of yesterday."""
    gone = kube_pod(phase="Failed", reason="Evicted", message="low on resource: memory")
    ended: JsonObject = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-02-20T17:00:30Z"}
    crashed: JsonObject = {**RUNNING, "restartCount": 1, "lastState": {"terminated": ended}}
    deleted = kube_pod(crashed)
    metadata = deleted["metadata"]
    assert isinstance(metadata, dict)
    metadata["deletionTimestamp"] = "2026-02-20T17:00:40Z"
    evicted, leaving = (seen(one).pods[0] for one in (gone, deleted))
    assert leaving.containers == ("app",)
    assert (evicted.evicted, evicted.ends_by) == ("low on resource: memory", None)
    assert (leaving.evicted, leaving.ends_by) == (None, BORN + timedelta(seconds=40))
    assert leaving.failing is not None
    assert leaving.failing.last_ended_at == BORN + timedelta(seconds=30)


def test_a_lost_node_is_recognised_in_every_form() -> None:
    """The reason NodeLost, readiness unknown, or readiness withdrawn while all containers are ready."""
    ready = {**RUNNING, "ready": True}
    forms = (
        kube_pod(ready, ready={"status": "Unknown", "reason": "NodeStatusUnknown"}, reason="NodeLost"),
        kube_pod(ready, ready={"status": "Unknown"}),
        kube_pod(ready, ready={"status": "False", "reason": None}),
    )
    for form in forms:
        view = seen(form)
        assert workload_conditions(view) == (Condition.NODE_LOST,)
        assert "node node-a no longer reports to the cluster" in condition_words(view, Condition.NODE_LOST)
    gated = kube_pod(ready, ready={"status": "False", "reason": "ReadinessGatesNotReady"})
    assert Condition.NODE_LOST not in workload_conditions(seen(gated))


def test_refused_pods_are_a_condition_with_the_servers_words() -> None:
    """Quota is full for a moment in a rollout; what it says is repeated."""
    said = 'pods "shop-1-y" is forbidden: exceeded quota: team, requested: cpu=1, used: cpu=4, limited: cpu=4'
    failing: JsonObject = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": said,
        "lastTransitionTime": "2026-02-20T17:00:00Z",
    }
    item = deployment(status={"conditions": [failing]})
    assert workload_conditions(seen(item=item, after=CREATE_HOLDS - SECOND)) == ()
    view = seen(item=item, after=CREATE_HOLDS)
    assert workload_conditions(view) == (Condition.FAILED_CREATE,)
    words = condition_words(view, Condition.FAILED_CREATE)
    assert words.startswith("a quota or limit range refuses new pods: FailedCreate: pods")
    assert words.endswith("outage: no replica serves")


def test_what_is_missing_is_named_and_so_is_what_still_serves() -> None:
    """One of two replicas affected is an incident too, and its message says that it is degraded, not down."""
    well = kube_pod({**RUNNING, "ready": True}, ready={"status": "True", "reason": None})
    view = seen(kube_pod(NO_CONFIG, phase="Pending"), well)
    assert workload_conditions(view) == (Condition.CREATE_CONTAINER_CONFIG_ERROR,)
    assert condition_words(view, Condition.CREATE_CONTAINER_CONFIG_ERROR) == (
        "1 of 2 pods; ConfigMap shop-config does not exist; degraded: 1 of 2 replicas serve"
    )


@pytest.mark.parametrize(
    ("available", "stuck", "impact"),
    [
        (0, True, Impact.OUTAGE),
        (0, False, Impact.OUTAGE),
        (1, True, Impact.DEGRADED),
        (3, True, Impact.DEGRADED),
        (3, False, Impact.NONE),
    ],
)
def test_the_severity_is_how_much_still_serves(available: int, stuck: bool, impact: Impact) -> None:
    """A stuck surge pod beside a full set of replicas is degraded, not an outage."""
    extra = pods(OLD, 1, ready=False, created=-60) if stuck else ()
    view = workload([OLD], (*extra, *pods(OLD, available)), available_replicas=available)
    assert impact_of(view) is impact
    assert impact_of(replace(view, desired_replicas=0, available_replicas=0)) is Impact.NONE


@pytest.mark.parametrize(
    ("before", "all_ready", "last"),
    [
        ({Condition.CRASH_LOOP_BACK_OFF}, False, {Condition.CRASH_LOOP_BACK_OFF}),
        ({Condition.CRASH_LOOP_BACK_OFF}, True, set()),
        ({Condition.IMAGE_PULL_BACK_OFF}, False, set()),
        (set(), False, set()),
    ],
)
def test_a_crash_loop_lasts_while_a_pod_is_not_ready(
    before: set[Condition], all_ready: bool, last: set[Condition]
) -> None:
    """Between two crashes the container runs for a moment; no other condition outlasts its sign."""
    running = pods(OLD, 2) + pods(OLD, 1, ready=all_ready, restarts=4, created=0)
    view = workload([OLD], running)
    assert workload_conditions(view) == ()
    assert lasting_conditions(view, frozenset(before)) == last


def test_a_workload_scaled_to_zero_has_no_condition() -> None:
    """A person decided that nothing runs."""
    view = seen(kube_pod(NO_CONFIG, phase="Pending"), item=deployment(spec={"replicas": 0}))
    assert workload_conditions(view) == ()


def test_longer_than_usual_follows_the_pods_that_serve_and_the_probes() -> None:
    """Slow starters get three times their usual time, at most half the deadline; probes grant more."""
    slow = kube_pod(
        {**RUNNING, "ready": True},
        ready={"status": "True", "reason": None, "lastTransitionTime": "2026-02-20T17:01:30Z"},
    )
    late = kube_pod(RUNNING)
    assert workload_conditions(seen(late, slow, after=timedelta(seconds=269))) == ()
    assert workload_conditions(seen(late, slow, after=timedelta(seconds=270))) == (Condition.NOT_READY,)
    probe: JsonObject = {"periodSeconds": 10, "failureThreshold": 60}
    patient = deployment(spec={"template": template(container(startupProbe=probe))})
    assert workload_conditions(seen(late, item=patient, after=timedelta(seconds=659))) == ()
    assert workload_conditions(seen(late, item=patient, after=timedelta(seconds=660))) == (
        Condition.NOT_READY,
    )


def ended_with(name: str, code: int, reason: str = "Error", **more: Json) -> JsonObject:
    last: JsonObject = {
        "terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-02-20T17:05:00Z"}
    }
    state: JsonObject = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    return {"name": name, "ready": False, "restartCount": 4, "state": state, "lastState": last, **more}


def test_init_containers_sidecars_and_main_containers_are_distinguished() -> None:
    """A native sidecar is an init container that is restarted always."""
    blocked = waiting("PodInitializing")
    init = kube_pod(blocked, init=(ended_with("migrate", 1),), phase="Pending")
    mesh: JsonObject = {"initContainers": [{"name": "mesh", "restartPolicy": "Always"}]}
    sidecar = kube_pod(blocked, init=(ended_with("mesh", 139),), spec=mesh, phase="Pending")
    main = kube_pod(ended_with("app", 127))
    for found, role, words in (
        (init, ContainerRole.INIT, "init container migrate exited with code 1"),
        (sidecar, ContainerRole.SIDECAR, "sidecar mesh crashed with a segmentation fault (exit code 139)"),
        (main, ContainerRole.MAIN, "container app did not find its command (exit code 127)"),
    ):
        view = seen(found)
        [shown] = view.pods
        assert shown.failing is not None
        assert shown.failing.role is role
        assert workload_conditions(view) == (Condition.CRASH_LOOP_BACK_OFF,)
        assert words in condition_words(view, Condition.CRASH_LOOP_BACK_OFF)


def test_an_init_container_that_does_not_end_is_named_after_two_minutes() -> None:
    """Two minutes of its own: before it started its pod pulled images, or ran other init containers."""
    runs: JsonObject = {"running": {"startedAt": "2026-02-20T17:00:05Z"}}
    hangs: JsonObject = {"name": "wait-db", "ready": False, "restartCount": 0, "state": runs}
    mesh: JsonObject = {"initContainers": [{"name": "wait-db", "restartPolicy": "Always"}]}
    blocked = waiting("PodInitializing")
    for spec, words in (
        (None, "init container wait-db has not ended for 2 m"),
        (mesh, "sidecar wait-db has not started for 2 m"),
    ):
        pod = kube_pod(blocked, init=(hangs,), spec=spec, phase="Pending")
        early = seen(pod, after=timedelta(seconds=124))
        assert [pod_fault(one, early.observed_at) for one in early.pods] == [None]
        view = seen(pod, after=timedelta(seconds=125))
        assert [pod_fault(one, view.observed_at) for one in view.pods] == [PodFault.NOT_READY]
        assert workload_conditions(view) == (Condition.NOT_READY,)
        assert words in condition_words(view, Condition.NOT_READY)


def test_an_init_container_without_a_time_of_start_does_not_hang() -> None:
    """How long it runs is not known."""
    times: tuple[JsonObject, ...] = (
        {},
        {"startedAt": None},
        {"startedAt": "soon"},
        {"startedAt": "2026-02-20T19:00:00Z"},
    )
    for runs in times:
        state: JsonObject = {"running": runs}
        waits: JsonObject = {"name": "wait-db", "ready": False, "restartCount": 0, "state": state}
        view = seen(kube_pod(waiting("PodInitializing"), init=(waits,)), after=timedelta(minutes=9))
        assert [initialising(one, view.observed_at) for one in view.pods] == [None]


MIGRATIONS: Mapping[str, JsonObject] = {
    "its name": {"name": "db-migrate"},
    "its image": {"name": "prepare", "image": "registry.example/flyway/flyway:10"},
    "its command": {"name": "prepare", "command": ["bundle", "exec", "rails", "db:migrate"]},
    "its script": {"name": "prepare", "command": ["sh", "-c"], "args": ["set -e\nalembic upgrade head"]},
    "nothing": {"name": "wait-db", "image": "registry.example/busybox:1", "command": ["nc", "-z", "db"]},
    "words that are no text": {"name": "wait-db", "command": [1, None, {"migrate": 1}], "args": "migrate"},
}


@pytest.mark.parametrize("pruned_before", [True, False])
@pytest.mark.parametrize(("shown_by", "spec"), MIGRATIONS.items())
def test_an_init_container_that_migrates_data_is_known_by(
    shown_by: str, spec: JsonObject, pruned_before: bool
) -> None:
    """The cache keeps the answer and neither image nor command: they may hold secrets."""
    runs: JsonObject = {"running": {"startedAt": "2026-02-20T17:00:05Z"}}
    status: JsonObject = {"name": spec["name"], "ready": False, "restartCount": 0, "state": runs}
    pod = kube_pod(waiting("PodInitializing"), init=(status,), spec={"initContainers": [spec]})
    pod = pruned(Kind.POD, pod) if pruned_before else pod
    [failing] = [one.failing for one in seen(pod).pods]
    assert failing is not None
    assert failing.migrates is (shown_by.startswith("its"))
    assert ("command" in str(pod)) is (not pruned_before and "command" in spec)


def test_a_pod_that_waits_for_its_image_is_not_held_up_by_an_init_container() -> None:
    """A node that pulls a large image reports PodInitializing with every container waiting."""
    pulls = kube_pod(waiting("PodInitializing"), init=(waiting("PodInitializing", name="wait-db"),))
    view = seen(pulls, after=timedelta(minutes=2))
    assert [initialising(one, view.observed_at) for one in view.pods] == [None]


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (137, "OOMKilled", "too much memory"),
        (137, "Error", "not for memory"),
        (143, "Error", "SIGTERM"),
        (0, None, "ended normally"),
        (1, "Error", "exited with code 1"),
        (None, "Error", "ended (Error)"),
    ],
)
def test_exit_codes_are_said_in_words(code: int | None, reason: str | None, words: str) -> None:
    """Only the kernel's kill means out of memory."""
    assert words in exit_words(code, reason)


@pytest.mark.parametrize("init_ready", [True, False])
def test_an_init_container_that_ended_well_is_not_the_one_that_fails(init_ready: bool) -> None:
    """Runtimes report OOMKilled for an init container that ended with 0, and for a drained container."""
    done: JsonObject = {
        "name": "init",
        "ready": init_ready,
        "restartCount": 0,
        "state": {"terminated": {"reason": "OOMKilled", "exitCode": 0, "finishedAt": "2026-02-20T17:09:00Z"}},
    }
    drained = {**RUNNING, "restartCount": 1, "lastState": ended_with("app", 143, "OOMKilled")["lastState"]}
    for status in (ended_with("app", 1), drained):
        view = seen(kube_pod(status, init=(done,)))
        [shown] = view.pods
        assert shown.last_termination_reason == "Error"
        assert shown.failing is not None
        assert shown.failing.name == "app"
        assert Condition.OOM_KILLED not in workload_conditions(view)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ('configmap "a" not found', ["ConfigMap a"]),
        ('secret "b-creds" not found', ["Secret b-creds"]),
        ("couldn't find key url in ConfigMap prod/a", ["key url of ConfigMap a"]),
        ("couldn't find key password in Secret prod/b", ["key password of Secret b"]),
        ('MountVolume.SetUp failed for volume "v" : secret "tls" not found', ["Secret tls"]),
        ("configmap references non-existent config key: app.yaml", ["key app.yaml of ConfigMap"]),
        ('error looking up service account prod/x: serviceaccount "x" not found', ["ServiceAccount x"]),
        ("container has runAsNonRoot and image will run as root", []),
    ],
)
def test_the_name_of_what_is_missing_is_read_from_the_message(message: str, found: list[str]) -> None:
    """As the kubelet and the ReplicaSet controller word it."""
    assert [str(one) for one in missing_in(message)] == found


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (
            "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No "
            "preemption victims found for incoming pod.",
            (Obstacle.CAPACITY,),
        ),
        (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            (Obstacle.SELECTOR,),
        ),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {dedicated: gpu}.", (Obstacle.TAINT,)),
        (
            "0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint {spot: }.",
            (Obstacle.TAINT, Obstacle.CAPACITY),
        ),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", (Obstacle.VOLUME,)),
        ('0/3 nodes are available: persistentvolumeclaim "data" not found.', (Obstacle.VOLUME,)),
        ("0/3 nodes are available: 3 node(s) had volume node affinity conflict.", (Obstacle.VOLUME,)),
        ("no idea", (Obstacle.UNKNOWN,)),
    ],
)
def test_the_scheduler_is_understood(message: str, kinds: tuple[Obstacle, ...]) -> None:
    """Selector, taint, capacity and volume are distinguished."""
    assert obstacles(message) == kinds


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("manifest for reg/shop:9 not found: manifest unknown", PullFault.MISSING),
        ('Failed to pull image "reg/shop:9": not found', PullFault.MISSING),
        (NO_ROUTE, PullFault.UNREACHABLE),
        ("dial tcp: lookup reg on 10.0.0.10:53: no such host", PullFault.UNREACHABLE),
        ("unexpected status from HEAD request: 503 Service Unavailable", PullFault.UNREACHABLE),
        ("toomanyrequests: rate limit", PullFault.UNREACHABLE),
        ("failed to authorize: 401 Unauthorized", PullFault.DENIED),
        ("Back-off pulling image", PullFault.UNKNOWN),
        ('Back-off pulling image "reg/shop:503"', PullFault.UNKNOWN),
    ],
)
def test_a_registry_that_does_not_answer_is_not_an_image_that_does_not_exist(
    message: str, fault: PullFault
) -> None:
    """What can recover by itself is distinguished from what cannot."""
    [one] = pods(OLD, 1, ready=False, phase="Pending", waiting_reason="ErrImagePull")
    assert pull_fault(replace(one, failing=FailingContainer(name="app", message=message))) is fault


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('pods "x" is forbidden: exceeded quota: team', Refusal.QUOTA),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
            Refusal.POD_SECURITY,
        ),
        ('admission webhook "policy.example" denied the request: no root', Refusal.ADMISSION),
        ("ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no", Refusal.ADMISSION),
        ('error looking up service account prod/x: serviceaccount "x" not found', Refusal.SERVICE_ACCOUNT),
        ('Internal error occurred: failed calling webhook "w": failed to call webhook', Refusal.UNANSWERED),
        ("something else", Refusal.OTHER),
    ],
)
def test_refusals_are_distinguished(message: str, kind: Refusal) -> None:
    """Quota, Pod Security, admission policies, a silent webhook and a missing service account."""
    assert refusal(message) is kind


def test_probe_failures_are_counted_by_their_events() -> None:
    """A person sees which probe fails, how often, and what it was answered."""
    [one] = pods(OLD, 1, ready=False)
    said = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    events = (
        WarningView(reason="Unhealthy", message=said, count=12, at=at(0)),
        WarningView(reason="Unhealthy", message="Liveness probe failed: timeout", count=1, at=at(-1)),
        WarningView(reason="BackOff", message="no probe", count=3, at=at(-1)),
    )
    told = [str(failure) for failure in probe_failures(replace(one, warnings=events))]
    assert told == [
        "its readiness probe failed 12 times: HTTP probe failed with statuscode: 503",
        "its liveness probe failed once: timeout",
    ]


def test_every_condition_has_a_trigger_and_words() -> None:
    """A new condition without them would break intake or the watcher."""
    view = workload([OLD], pods(OLD))
    for condition in Condition:
        assert condition in CONDITION_TRIGGERS
        assert condition_words(view, condition)

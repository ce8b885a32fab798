"""The Kubernetes connector keeps the promises of the cluster ports on a real control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lightkube.models.autoscaling_v2 import CrossVersionObjectReference, HorizontalPodAutoscalerSpec
from lightkube.models.batch_v1 import JobSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.models.policy_v1 import PodDisruptionBudgetSpec
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

pytest.register_assert_rewrite(
    "tests.contract.cluster_suite",
    "tests.contract.hands_suite",
    "tests.contract.jobs_suite",
    "tests.contract.kinds_suite",
    "tests.contract.logs_suite",
    "tests.contract.routes_suite",
)

from app.agent.actions import ACTIONS  # noqa: E402 - as above
from app.agent.actions.target_parts import as_left, same_ground  # noqa: E402 - as above
from app.agent.evidence.conditions import workload_conditions  # noqa: E402 - as above
from app.agent.evidence.facts import PodFault, pod_fault  # noqa: E402 - after the rewrite is registered
from app.agent.guardrails.blast_radius import too_many  # noqa: E402 - after the rewrite is registered
from app.agent.guardrails.disruption import Disruption  # noqa: E402 - as above
from app.agent.ids import JsonObject  # noqa: E402 - as above
from app.agent.models import ActionName  # noqa: E402 - as above
from app.agent.ports.cluster import PodOwner  # noqa: E402 - as above
from app.agent.workload import ObjectRef  # noqa: E402 - as above
from app.errors import Conflict, Forbidden, Invalid, TransientError  # noqa: E402 - as above
from testbed import TestbedError  # noqa: E402 - as above
from testbed.rbac import ADMIN  # noqa: E402 - as above
from testbed.waiting import NotYet, wait_for  # noqa: E402 - as above
from testbed.workloads import waiting_reasons  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - as above
from tests.contract.cluster_harness import BETTER_IMAGE, CRASHING_IMAGE, GOOD_IMAGE  # noqa: E402 - as above
from tests.contract.cluster_suite import *  # noqa: E402, F403 - the shared contract
from tests.contract.cluster_suite import (  # noqa: E402 - as above
    INTENT,
    OTHER_INTENT,
    action,
    apply,
    crashes,
    deployment,
    key_of,
    runs,
)
from tests.contract.custom_resources import (  # noqa: E402 - as above
    ROLLOUT_STATUS,
    UPDATING,
    WAITING,
    define_rollouts,
    roll_out,
    set_status,
)
from tests.contract.eventually import eventually  # noqa: E402 - as above
from tests.contract.hands_suite import *  # noqa: E402, F403 - as above
from tests.contract.helm_chart import Releases  # noqa: E402 - as above
from tests.contract.jobs_suite import *  # noqa: E402, F403 - as above
from tests.contract.kinds_suite import *  # noqa: E402, F403 - as above
from tests.contract.kubernetes_harness import KubernetesHarness  # noqa: E402 - as above
from tests.contract.logs_suite import *  # noqa: E402, F403 - as above
from tests.contract.routes_suite import *  # noqa: E402, F403 - as above

pytestmark = pytest.mark.real


async def test_disruption_budgets_are_read_and_hold_actions_back(cluster: KubernetesHarness) -> None:
    """Only those that cover the pods count; what they want is taken at its word until it is worked out."""
    await cluster.deploy("shop", service="shop", replicas=4)
    restart = action(ActionName.RESTART, deployment(cluster))
    for name, selector in (("shop", {"app": "shop"}), ("other", {"app": "other"})):
        await asyncio.to_thread(
            cluster.client.create,
            PodDisruptionBudget(
                metadata=ObjectMeta(name=f"{name}-pdb", namespace=cluster.namespace),
                spec=PodDisruptionBudgetSpec(
                    minAvailable="100%", selector=LabelSelector(matchLabels=selector)
                ),
            ),
        )

    async def with_budgets() -> Disruption | None:
        read = await cluster.ports.reader.disruption(restart)
        return read if read is not None and read.budgets and read.serving == 4 else None

    found = await eventually(with_budgets, "pods that serve, beside a budget")
    assert (found.replicas, found.missing_at_once, found.unread) == (4, 1, None)
    assert [budget.name for budget in found.budgets] == ["shop-pdb"]
    [reason] = too_many(restart, found, 1.0)
    assert reason.endswith("PodDisruptionBudget shop-pdb requires 4")


async def test_autoscalers_are_read_with_their_bounds(cluster: KubernetesHarness) -> None:
    """Those that aim at the workload; kinds that the cluster does not have are left out."""
    await cluster.deploy("shop", service="shop", replicas=2)
    for name, aim in (("shop-hpa", "shop"), ("other-hpa", "other")):
        target = CrossVersionObjectReference(apiVersion="apps/v1", kind="Deployment", name=aim)
        autoscaler = HorizontalPodAutoscaler(
            metadata=ObjectMeta(name=name, namespace=cluster.namespace),
            spec=HorizontalPodAutoscalerSpec(scaleTargetRef=target, minReplicas=2, maxReplicas=3),
        )
        await asyncio.to_thread(cluster.client.create, autoscaler)
    view = await cluster.until(key_of(cluster), lambda seen: bool(seen.autoscalers))
    [found] = view.autoscalers
    assert (str(found), found.minimum, found.maximum) == ("HorizontalPodAutoscaler shop-hpa", 2, 3)
    assert not any("forbidden" in warning for warning in view.warnings)


async def test_a_rollout_that_runs_the_pods_of_a_deployment_is_the_service(
    cluster: KubernetesHarness,
) -> None:
    """The Deployment stands at 0 on purpose: the Rollout is read with its pods, and nothing acts on it."""
    await asyncio.to_thread(define_rollouts, cluster.client)
    await cluster.deploy("shop", service="shop", replicas=0)
    view = await cluster.until(key_of(cluster), lambda seen: seen.spec_observed)
    await asyncio.to_thread(roll_out, cluster)
    view = await cluster.until(key_of(cluster), lambda seen: seen.ready_replicas == 2 and len(seen.pods) == 2)
    assert view.target.ref == ObjectRef(kind="Rollout", namespace=cluster.namespace, name="shop-rollout")
    assert (view.desired_replicas, view.current_revision, view.rollout_complete) == (2, 4, True)
    [revision] = view.revisions
    assert {pod.template_hash for pod in view.pods} == {revision.template_hash}
    assert workload_conditions(view) == ()
    owner = await cluster.ports.owners.owner(cluster.ref("Pod", view.pods[0].name))
    assert owner == PodOwner(kind="Rollout", name="shop-rollout", key=key_of(cluster))
    assert [key for key in await cluster.ports.reader.services() if key.environment == "prod"] == [
        key_of(cluster)
    ]
    rollback = action(ActionName.ROLLBACK, view.target.ref, revision=3)
    with pytest.raises(Invalid, match="Rollout"):
        await cluster.ports.writer.apply(rollback, INTENT, view.target, None)


FAILED_RUN: JsonObject = {"name": "errors-2", "status": "Failed", "message": "Metric errors assessed Failed"}


@pytest.mark.parametrize(("name", "status"), ROLLOUT_STATUS.items())
async def test_an_update_of_a_rollout_is_changed_as_its_controller_takes_it(
    cluster: KubernetesHarness, name: ActionName, status: JsonObject
) -> None:
    """Through `status`, which keeps no marker: the effect shows there, and a second copy finds it."""
    await asyncio.to_thread(define_rollouts, cluster.client)
    await cluster.deploy("shop", service="shop", replicas=0)
    await asyncio.to_thread(roll_out, cluster, status)
    ref = ObjectRef(kind="Rollout", namespace=cluster.namespace, name="shop-rollout")
    act, reader = action(name, ref), cluster.ports.reader
    before, snapshot = await reader.target(act), await reader.snapshot(act)
    answer = await cluster.ports.rehearsal.rehearse(act, before, None)
    assert answer.accepted, answer.message
    assert (await reader.target(act)) == before
    refused = await cluster.powerless.rehearsal.rehearse(act, before, None)
    assert not refused.accepted
    assert "forbidden" in refused.message
    with pytest.raises(Forbidden):
        await cluster.powerless.writer.apply(act, INTENT, before, None)

    applied = await cluster.ports.writer.apply(act, INTENT, before, None)
    assert applied.token != before.token
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(act, INTENT, before, None)
    shows, found = ACTIONS[name].effect_shows, await reader.target(act)
    assert found.token == applied.token
    assert found.marker == INTENT if shows is None else shows(before.token, found.token)
    assert shows is None or not shows(before.token, before.token)
    if ACTIONS[name].undo is None:
        return
    undo = action(ActionName.RESTORE, ref, undoes=name.value)
    await cluster.ports.writer.apply(undo, OTHER_INTENT, found, snapshot)
    assert (await reader.snapshot(act)).body == snapshot.body


async def test_an_update_that_was_aborted_again_is_another_state(cluster: KubernetesHarness) -> None:
    """A retry holds for the abort that it was decided on; its undo is not disturbed by the controller."""
    await asyncio.to_thread(define_rollouts, cluster.client)
    await cluster.deploy("shop", service="shop", replicas=0)
    first: JsonObject = {**UPDATING, "abort": True, "abortedAt": "2026-01-01T00:00:00Z"}
    await asyncio.to_thread(roll_out, cluster, first)
    retry, abort = (
        action(name, ObjectRef(kind="Rollout", namespace=cluster.namespace, name="shop-rollout"))
        for name in (ActionName.RETRY_ROLLOUT, ActionName.ABORT_ROLLOUT)
    )
    reader, writer = cluster.ports.reader, cluster.ports.writer
    decided = await reader.target(retry)
    await writer.apply(retry, INTENT, decided, None)
    aborted = await writer.apply(abort, OTHER_INTENT, await reader.target(abort), None)
    await asyncio.to_thread(set_status, cluster, {"abortedAt": "2026-01-01T00:00:09Z"})
    now = await reader.target(retry)
    assert as_left(abort, aborted.token, now.token)
    assert not same_ground(retry, decided.token, now.token)
    await asyncio.to_thread(set_status, cluster, {"abortedAt": first["abortedAt"]})
    again = await reader.target(retry)
    assert again.token == decided.token
    assert again.resource_version != decided.resource_version
    with pytest.raises(Conflict):
        await writer.apply(retry, INTENT, decided, None)


async def test_a_failed_analysis_and_a_pause_of_a_rollout_are_evidence(cluster: KubernetesHarness) -> None:
    """In the words of the controller, from the Rollout alone."""
    await asyncio.to_thread(define_rollouts, cluster.client)
    await cluster.deploy("shop", service="shop", replicas=0)
    canary: JsonObject = {"canary": {"currentStepAnalysisRunStatus": FAILED_RUN}, "phase": "Degraded"}
    await asyncio.to_thread(roll_out, cluster, {**UPDATING, **WAITING, **canary})
    view = await cluster.until(key_of(cluster), lambda seen: seen.progress is not None)
    assert view.progress is not None
    assert (view.progress.stable, view.progress.waits) == (False, "CanaryPauseStep")
    assert view.progress.analysis == "AnalysisRun errors-2 Failed: Metric errors assessed Failed"
    assert {"Degraded: no reason given", "Paused: CanaryPauseStep", view.progress.analysis} <= {
        *view.warnings
    }


async def test_a_failed_batch_is_no_outage_of_the_service_whose_label_it_has(
    cluster: KubernetesHarness,
) -> None:
    """The pods of a Job are its own, though the selector of the service matches them."""
    await cluster.deploy("shop", service="shop")
    labels = {"app": "shop"}
    container = Container(name="app", image=CRASHING_IMAGE)
    pod = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[container], restartPolicy="OnFailure")
    )
    job = Job(
        metadata=ObjectMeta(
            name="shop-sums",
            namespace=cluster.namespace,
            labels={"app.kubernetes.io/name": "shop"},
        ),
        spec=JobSpec(template=pod),
    )
    await asyncio.to_thread(cluster.client.create, job)
    crashed = await asyncio.to_thread(
        wait_for, "the pod of the Job to crash", lambda: _crashed(cluster), timeout_seconds=120
    )
    view = await cluster.until(key_of(cluster), lambda seen: seen.rollout_complete)
    assert crashed not in {pod.name for pod in view.pods}
    assert workload_conditions(view) == ()
    owner = await cluster.ports.owners.owner(cluster.ref("Pod", crashed))
    assert owner == PodOwner(kind="Job", name="shop-sums")


def _crashed(cluster: KubernetesHarness) -> str | NotYet:
    """The name of a pod of the Job that waits in CrashLoopBackOff."""
    found = cluster.client.list(Pod, namespace=cluster.namespace, labels={"job-name": "shop-sums"})
    stuck = [pod for pod in found if "CrashLoopBackOff" in waiting_reasons(pod)]
    names = [pod.metadata.name for pod in stuck if pod.metadata is not None and pod.metadata.name]
    return names[0] if names else NotYet("no pod waits in CrashLoopBackOff")


async def test_a_rollback_drifts_from_a_release_of_helm_until_the_next_one(
    cluster: KubernetesHarness, tmp_path: Path
) -> None:
    """A real Helm wrote the workload and its records: its next release meets the agent's field, by name."""
    kubeconfig = cluster.bed.control_plane.kubeconfig(ADMIN)
    releases = Releases(tmp_path / "chart", kubeconfig, cluster.namespace)
    await asyncio.to_thread(releases.release, GOOD_IMAGE)
    view = await cluster.until(key_of(cluster), lambda seen: seen.rollout_complete)
    assert view.released_by == "Helm release store"
    assert [(one.revision, one.status) for one in view.release_records] == [(1, "deployed")]
    assert abs((view.release_records[0].at - view.observed_at).total_seconds()) < 3600
    begun = view.release_records[0].begun_at
    await asyncio.to_thread(releases.release, CRASHING_IMAGE)
    await cluster.until(key_of(cluster), crashes)
    await apply(cluster, action(ActionName.ROLLBACK, deployment(cluster), revision=1))
    view = await cluster.until(key_of(cluster), runs(GOOD_IMAGE))
    found = [(one.revision, one.status) for one in view.release_records]
    assert found == [(2, "deployed"), (1, "superseded")]
    assert view.release_records[1].begun_at == begun

    with pytest.raises(TestbedError, match='conflict with "self-healing-devops-agent"'):
        await asyncio.to_thread(releases.release, BETTER_IMAGE)
    await asyncio.to_thread(releases.release, BETTER_IMAGE, "--force-conflicts")
    view = await cluster.until(key_of(cluster), runs(BETTER_IMAGE))
    found = [(one.revision, one.status) for one in view.release_records]
    assert found == [(4, "deployed"), (3, "failed"), (2, "superseded"), (1, "superseded")]


async def test_a_node_that_does_not_answer_delays_no_diagnosis(cluster: KubernetesHarness) -> None:
    """After two seconds the logs count as missing."""
    pod = await cluster.logged(["line"])
    assert cluster.kubelet is not None
    cluster.kubelet.silent = True
    with pytest.raises(TransientError, match="TimeoutError"):  # its own bound, before that of the connection
        await cluster.ports.logs.tail(cluster.ref("Pod", pod), "app", previous=False)


async def test_a_node_that_is_lost_shows_on_its_pods(cluster: KubernetesHarness) -> None:
    """The node controller writes that readiness is unknown; the containers stay as last reported."""
    await cluster.deploy("shop", service="shop", replicas=2)
    view = await cluster.until(key_of(cluster), lambda seen: seen.rollout_complete)
    gone = view.pods[0]
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    body = {"status": {"reason": "NodeLost", "conditions": [unknown]}}
    await asyncio.to_thread(cluster.client.patch, Pod.Status, gone.name, body, namespace=cluster.namespace)
    view = await cluster.until(key_of(cluster), lambda seen: any(pod.node_lost for pod in seen.pods))
    faults = {pod.name: pod_fault(pod, view.observed_at) for pod in view.pods}
    assert {name for name, fault in faults.items() if fault is PodFault.LOST} == {gone.name}


@pytest.fixture
async def cluster(testbed_world: TestBed, namespace: str) -> AsyncIterator[KubernetesHarness]:
    """A fresh namespace."""
    harness = KubernetesHarness(testbed_world, namespace)
    yield harness
    await harness.close()

"""Causes that keep pods from running: named in words, and a rollback only where the release brought them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.handover import handover
from app.agent.evidence.onset.patience import Patience, patience
from app.agent.models import ActionName, Cause, Evidence, Hypothesis, Objectives, Trigger
from app.agent.notes import why_no_action
from app.agent.planner import make_plan
from app.agent.workload import (
    AutoscalerView,
    ContainerRole,
    FailingContainer,
    PodView,
    Revision,
    ScaleChange,
    WarningView,
    WorkloadView,
)
from tests.unit.scenes import (
    CATALOGUE,
    LIMITS,
    OLD,
    at,
    crashing,
    curves,
    evidence,
    pods,
    revision,
    step,
    workload,
)

FIELDS = (("image of app", "1"), ("resources of app", "1"), ("env of app", "1"))
CONFIG = frozenset({"ConfigMap settings"})
BEFORE = replace(OLD, fields=FIELDS, references=CONFIG)
AFTER = revision(7, -3, fields=(("image of app", "2"), *FIELDS[1:]), references=CONFIG)
"""An ordinary release: another image, the same references."""


def changed(*names: str, image: bool = True, **changes: object) -> Revision:
    """A release, or with the same image a change of configuration, that changed these fields."""
    fields = tuple((name, "2") for name in names) + tuple(f for f in FIELDS if f[0] not in names)
    code = {} if image else {"code_hash": BEFORE.code_hash, "images": BEFORE.images, "config_hash": "other"}
    return replace(AFTER, fields=fields, **code, **changes)  # type: ignore[arg-type]  # names real fields


def failing(
    of: Revision, message: str, reason: str = "CreateContainerConfigError", count: int = 1
) -> tuple[PodView, ...]:
    return pods(
        of,
        count,
        created=-2.5,
        ready=False,
        phase="Pending",
        waiting_reason=reason,
        failing=FailingContainer(name="app", message=message),
    )


def unscheduled(of: Revision, message: str) -> tuple[PodView, ...]:
    return pods(of, 1, created=-2.5, ready=False, phase="Pending", node=None, unschedulable=message)


def lost(of: Revision, count: int = 1) -> tuple[PodView, ...]:
    return pods(of, count, ready=False, node_lost=True, node="node-z", ready_changed_at=at(-2))


def judged(view: WorkloadView, *triggers: Trigger, **changes: object) -> Evidence:
    return evidence(*(triggers or (Trigger.PODS_UNAVAILABLE,)), workload=view, **changes)


def best(seen: Evidence) -> Hypothesis:
    return diagnose(seen).best


def actions(seen: Evidence) -> list[ActionName]:
    return [action.name for action in make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions]


MISSING = 'configmap "settings" not found'
CAPACITY = "0/3 nodes are available: 3 Insufficient cpu."
UNREACHABLE = 'Failed to pull image: Head "https://registry.example/v2/": dial tcp: i/o timeout'
QUOTA = 'FailedCreate: pods "checkout-7" is forbidden: exceeded quota: team'
ROOT = 'FailedCreate: pods "checkout-7" is forbidden: violates PodSecurity "restricted:latest"'
MOUNT = WarningView(reason="FailedAttachVolume", message="disk is in use", count=4, at=at(-1))

OUTER = {
    "a ConfigMap that was deleted, without a rollout": (
        workload([BEFORE], (*failing(BEFORE, MISSING), *pods(BEFORE, 1))),
        Cause.MISSING_CONFIGURATION,
        "ConfigMap settings does not exist",
    ),
    "a ConfigMap deleted after a release that had started": (
        workload([AFTER, BEFORE], (*failing(AFTER, MISSING), *pods(AFTER, 1))),
        Cause.MISSING_CONFIGURATION,
        "ConfigMap settings does not exist",
    ),
    "a ConfigMap deleted while an innocent release rolls out": (
        workload([AFTER, BEFORE], (*failing(AFTER, MISSING), *pods(BEFORE, 2))),
        Cause.MISSING_CONFIGURATION,
        "ConfigMap settings does not exist",
    ),
    "a full cluster during an ordinary release": (
        workload([AFTER, BEFORE], (*unscheduled(AFTER, CAPACITY), *pods(BEFORE, 3))),
        Cause.SCHEDULING_FAILURE,
        "3 Insufficient cpu",
    ),
    "a full cluster without a release": (
        workload([BEFORE], (*unscheduled(BEFORE, CAPACITY), *pods(BEFORE, 2))),
        Cause.SCHEDULING_FAILURE,
        "no node has enough free resources",
    ),
    "a volume that is attached elsewhere": (
        workload([BEFORE], failing(BEFORE, "", "ContainerCreating")),
        Cause.STORAGE_FAILURE,
        "disk is in use",
    ),
    "a claim that is not bound": (
        workload([BEFORE], unscheduled(BEFORE, "pod has unbound immediate PersistentVolumeClaims.")),
        Cause.STORAGE_FAILURE,
        "unbound immediate",
    ),
    "a quota that is full during an ordinary release": (
        workload([AFTER, BEFORE], pods(BEFORE, 2), replica_failure=QUOTA, replica_failure_since=at(-2)),
        Cause.ADMISSION_REFUSAL,
        "exceeded quota: team",
    ),
    "Pod Security that came after the template": (
        workload([BEFORE], pods(BEFORE, 2), replica_failure=ROOT, replica_failure_since=at(-2)),
        Cause.ADMISSION_REFUSAL,
        "Pod Security refuses",
    ),
    "a registry that does not answer after a release": (
        workload([AFTER, BEFORE], (*failing(AFTER, UNREACHABLE, "ErrImagePull"), *pods(BEFORE, 2))),
        Cause.REGISTRY_FAILURE,
        "the registry does not answer",
    ),
    "an image that vanished without a release": (
        workload([BEFORE], (*failing(BEFORE, "manifest unknown", "ErrImagePull"), *pods(BEFORE, 2))),
        Cause.REGISTRY_FAILURE,
        "the registry has no such image",
    ),
    "a node that is gone": (
        workload([BEFORE], (*lost(BEFORE), *pods(BEFORE, 2))),
        Cause.NODE_FAILURE,
        "node node-z",
    ),
    "a node that is gone shortly after a release": (
        workload([AFTER, BEFORE], (*lost(AFTER), *pods(AFTER, 2))),
        Cause.NODE_FAILURE,
        "node node-z",
    ),
}


@pytest.mark.parametrize("case", OUTER)
def test_what_a_release_only_met_is_handed_to_people_in_words(case: str) -> None:
    """The cause by its name, the cluster's message, and no action: another revision would meet it too."""
    view, cause, words = OUTER[case]
    if case.startswith("a volume"):
        view = replace(view, pods=tuple(replace(pod, warnings=(MOUNT,)) for pod in view.pods))
    seen = judged(view)
    found = best(seen)
    assert found.cause is cause
    assert any(words in line for line in found.evidence_for)
    assert actions(seen) == []


def hangs(
    of: Revision, minutes: float, *, created: float = 8.5, migrates: bool = False
) -> tuple[PodView, ...]:
    """A pod whose init container has run for these minutes and does not end."""
    began = at(0.3) - timedelta(minutes=minutes)
    waits = FailingContainer(name="wait-db", role=ContainerRole.INIT, running_since=began, migrates=migrates)
    return pods(
        of,
        1,
        created=-created,
        ready=False,
        phase="Pending",
        waiting_reason="PodInitializing",
        failing=waits,
    )


WITH_INIT = replace(AFTER, fields=(*FIELDS, ("image of wait-db", "1")))


def preparing(
    minutes: float, *triggers: Trigger, older: int = 3, created: float = 8.5, **of: bool
) -> Evidence:
    """A release whose pod waits for its init container, beside pods of the version before."""
    running = (*hangs(WITH_INIT, minutes, created=created, **of), *pods(BEFORE, older))
    return judged(workload([WITH_INIT, BEFORE], running), *triggers)


def waits(seen: Evidence) -> Patience | None:
    return patience(seen, diagnose(seen))


def test_a_release_whose_init_container_does_not_end_is_rolled_back() -> None:
    """After half its progress deadline of ten minutes; at once where nothing serves or requests fail."""
    seen = preparing(5.4, created=5.8)
    assert best(seen).cause is Cause.BAD_RELEASE
    assert actions(seen) == [ActionName.ROLLBACK]
    assert waits(seen) is None
    for urgent in (
        preparing(2.5, older=0),
        preparing(2.5, Trigger.PODS_UNAVAILABLE, Trigger.HIGH_ERROR_RATE),
        preparing(2.5, Trigger.PODS_UNAVAILABLE, Trigger.DEPLOY_FAILED),
    ):
        assert waits(urgent) is None


def test_an_init_container_that_runs_is_waited_for_while_the_version_before_serves() -> None:
    """It may load data for minutes, and a rollback would stop it; the wait ends by itself."""
    wait = waits(preparing(2.5, created=3))
    assert wait is not None
    assert wait.until == at(-3) + timedelta(minutes=5)
    assert "init container wait-db has not ended for 2 m 30 s" in wait.why
    seen = preparing(2.5, created=3)
    assert seen.workload is not None
    endless = replace(seen, workload=replace(seen.workload, progress_deadline_seconds=2**31 - 1))
    wait = waits(endless)
    assert wait is not None
    assert wait.until == at(-3) + timedelta(minutes=30)
    crashed = replace(crashing(WITH_INIT, 1)[0], name="another")
    both = replace(seen, workload=replace(seen.workload, pods=(*seen.workload.pods, crashed)))
    assert waits(both) is None
    limits = Objectives(max_error_rate=0.05, max_p95_latency_ms=800)
    assert waits(replace(seen, objectives=limits)) is not None
    failing_now = curves(errors=step(-0.5, 0.001, 0.4))
    assert waits(replace(seen, objectives=limits, sli=failing_now)) is None


def test_an_init_container_that_has_just_begun_does_not_hang() -> None:
    """Its pod pulled images, or ran other init containers, for minutes before."""
    assert actions(preparing(1.5, created=8.8)) == []


@pytest.mark.parametrize("older", [3, 0])
def test_a_migration_that_runs_is_never_stopped_half_way(older: int) -> None:
    """People decide, whatever else is wrong; of the configuration in the template too."""
    seen = preparing(8.4, older=older, created=8.8, migrates=True)
    assert best(seen).cause is Cause.IRREVERSIBLE_RELEASE
    assert actions(seen) == []
    assert any("seems to migrate data" in line for line in best(seen).evidence_for)
    [release] = [h for h in diagnose(seen).hypotheses if h.cause is Cause.BAD_RELEASE]
    assert release.confidence < 0.2
    setting = changed("env of app", image=False)
    moving = (*hangs(setting, 8.4, created=8.8, migrates=True), *pods(BEFORE, older))
    assert actions(judged(workload([setting, BEFORE], moving))) == []


def test_the_handover_of_a_hanging_init_container_names_its_log() -> None:
    """The first question is what it waits for."""
    seen = preparing(5.4, created=5.8)
    told = handover(seen, Cause.BAD_RELEASE)
    assert told is not None
    assert any(
        line.startswith("kubectl -n prod logs checkout-7-0 -c wait-db --tail") for line in told.commands
    )


def test_a_disabled_runbook_that_would_not_apply_is_not_given_as_the_reason() -> None:
    """The agent cordoned no node: that uncordon is disabled says nothing to a person."""
    seen = judged(workload([BEFORE], (*unscheduled(BEFORE, CAPACITY), *pods(BEFORE, 2))))
    plan = make_plan(diagnose(seen), seen, CATALOGUE, LIMITS)
    assert [r.runbook for r in plan.rejected if r.addresses_cause] == []
    said = why_no_action(diagnose(seen).best.cause, plan)
    assert said.startswith("No action taken: the cause is scheduling failure, which runbook escalate-")


SECURE = changed("image of app", "securityContext of app")
BROUGHT = {
    "a reference to a Secret that does not exist": workload(
        [new := changed("image of app", "env of app", references=CONFIG | {"Secret creds"}), BEFORE],
        (*failing(new, 'secret "creds" not found'), *pods(BEFORE, 2)),
    ),
    "a request that no node can meet": workload(
        [new := changed("image of app", "resources of app"), BEFORE],
        (*unscheduled(new, CAPACITY), *pods(BEFORE, 2)),
    ),
    "a selector that no node matches": workload(
        [new := changed("image of app", "nodeSelector"), BEFORE],
        (
            *unscheduled(
                new, "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
            ),
            *pods(BEFORE, 2),
        ),
    ),
    "a security context that is not allowed": workload(
        [replace(SECURE, fields=(*SECURE.fields, ("securityContext", "2"))), BEFORE],
        pods(BEFORE, 2),
        replica_failure=ROOT,
        replica_failure_since=at(-2),
    ),
    "an image that does not exist": workload(
        [AFTER, BEFORE], (*failing(AFTER, "manifest unknown", "ErrImagePull"), *pods(BEFORE, 2))
    ),
    "a registry that does not exist": workload(
        [new := replace(AFTER, images=("registry.exmaple/checkout:1.7.0",)), BEFORE],
        (*failing(new, "dial tcp: lookup registry.exmaple: no such host", "ErrImagePull"), *pods(BEFORE, 2)),
    ),
    "a command that cannot be run": workload(
        [AFTER, BEFORE], (*failing(AFTER, "exec: no such file", "RunContainerError"), *pods(BEFORE, 2))
    ),
}


@pytest.mark.parametrize("case", BROUGHT)
def test_what_a_release_brought_is_rolled_back(case: str) -> None:
    """The older revision serves, and did not ask for it."""
    seen = judged(BROUGHT[case])
    assert best(seen).cause is Cause.BAD_RELEASE
    assert actions(seen) == [ActionName.ROLLBACK]


def test_configuration_that_no_node_can_meet_is_put_back() -> None:
    """The code did not change, so only the configuration goes back."""
    new = changed("nodeSelector", image=False)
    message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    seen = judged(workload([new, BEFORE], (*unscheduled(new, message), *pods(BEFORE, 2))))
    assert best(seen).cause is Cause.BAD_CONFIG
    assert actions(seen) == [ActionName.REVERT_CONFIG]


def probed(of: Revision, message: str = "HTTP probe failed with statuscode: 503") -> tuple[PodView, ...]:
    event = WarningView(reason="Unhealthy", message=f"Readiness probe failed: {message}", count=40, at=at(0))
    return pods(of, 2, created=-2.5, ready=False, warnings=(event,), ready_changed_at=at(-2.4))


def test_probes_that_fail_without_a_change_are_named_with_their_numbers() -> None:
    """No release is at fault, so nothing is rolled back."""
    found = best(judged(workload([BEFORE], probed(BEFORE))))
    assert found.cause is Cause.PROBE_FAILURE
    assert "failed 40 times: HTTP probe failed with statuscode: 503" in found.evidence_for[0]
    assert actions(judged(workload([BEFORE], probed(BEFORE)))) == []


def test_a_release_that_changed_the_probe_is_rolled_back() -> None:
    """Readiness never comes, and older pods serve."""
    new = changed("image of app", "readinessProbe of app")
    seen = judged(workload([new, BEFORE], (*probed(new), *pods(BEFORE, 2))))
    assert best(seen).cause is Cause.BAD_RELEASE
    [probe] = [h for h in diagnose(seen).hypotheses if h.cause is Cause.PROBE_FAILURE]
    assert any(line.endswith("changed the probe") for line in probe.evidence_against)
    assert actions(seen) == [ActionName.ROLLBACK]


@pytest.mark.parametrize("trigger", [Trigger.HIGH_ERROR_RATE, Trigger.PODS_UNAVAILABLE])
def test_scaled_to_zero_is_a_cause_with_its_author(trigger: Trigger) -> None:
    """Never a bad release, however recent one is."""
    view = workload([AFTER, BEFORE], (), desired_replicas=0, scaled=ScaleChange(by="kubectl", at=at(-2)))
    found = best(judged(view, trigger))
    assert found.cause is Cause.SCALED_TO_ZERO
    assert found.evidence_for[0].startswith(
        "Deployment prod/checkout is scaled to zero by kubectl since 2026-11-20 11:58:00 UTC"
    )
    assert actions(judged(view, trigger)) == []


def test_an_autoscaler_that_may_scale_to_zero_is_named() -> None:
    """A person sees which object decides."""
    scaler = AutoscalerView(kind="ScaledObject", name="checkout", minimum=0, maximum=5)
    view = workload([BEFORE], (), desired_replicas=0, autoscalers=(scaler,))
    assert "ScaledObject checkout may scale it to zero" in best(judged(view)).evidence_for[0]


def test_a_workload_whose_pods_another_object_runs_is_no_outage() -> None:
    """It stands at 0 on purpose: no cause, no action, and the object is named."""
    view = workload([AFTER, BEFORE], (), desired_replicas=0, served_by="Rollout checkout")
    rising = curves(errors=step(-2.5, 0.001, 0.13))
    seen = judged(view, Trigger.HIGH_ERROR_RATE, sli=rising)
    found = best(seen)
    assert found.cause is Cause.UNKNOWN
    assert "Deployment prod/checkout has 0 replicas: Rollout checkout runs its pods" in found.evidence_for
    assert actions(seen) == []


def test_a_release_after_pods_had_stopped_serving_is_not_their_cause() -> None:
    """The condition was reported after it had held for its time; the pods say when it began."""
    before = tuple(replace(pod, ready_changed_at=at(-5)) for pod in pods(BEFORE, 2, ready=False))
    view = workload([AFTER, BEFORE], (*pods(AFTER, 1, ready=False), *before))
    said = [h for h in diagnose(judged(view)).hypotheses if h.cause is Cause.BAD_RELEASE]
    assert best(judged(view)).cause is not Cause.BAD_RELEASE
    assert all("the incident started 2 m before it" in h.evidence_against for h in said)

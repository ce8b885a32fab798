"""Each kind of workload is read, changed and left alone as it works itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest

from app.agent.actions import ACTIONS, Resolved, Unmet
from app.agent.evidence.cluster.handover import handover
from app.agent.evidence.cluster.held_up import why_kept
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import IntentId, Json, JsonObject, JsonScalar
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    Diagnosis,
    Evidence,
    Hypothesis,
    Plan,
    Risk,
    Snapshot,
    Trigger,
)
from app.agent.planner import PlanLimits, make_plan
from app.agent.runbooks import Catalogue
from app.agent.workload import FailingContainer, ObjectRef, PodView, WorkloadView
from app.connectors.kubernetes.patches import patch_for, snapshot_body
from app.connectors.kubernetes.views import WorkloadObjects, workload_view
from app.connectors.kubernetes.views.disruption import disruption_of
from app.connectors.kubernetes.views.trial_pod import trial_pod
from app.errors import Invalid
from tests.unit.k8s_samples import container, deployment, target, template
from tests.unit.scenes import (
    CATALOGUE,
    LIMITS,
    at,
    config_map,
    config_record,
    evidence,
    pods,
    record,
    revision,
    workload,
)

NOW = datetime(2026, 2, 20, 18, tzinfo=UTC)
BEFORE, AFTER = revision(1, -600), revision(2, -3)


def ref(kind: str) -> ObjectRef:
    return ObjectRef(kind=kind, namespace="payments", name="shop")


def item(
    kind: str, spec: Mapping[str, Json] | None = None, status: Mapping[str, Json] | None = None
) -> JsonObject:
    return {**deployment(spec=spec, status=status), "kind": kind}


def controller_revision(number: int, pod_template: JsonObject, named: str, hashed: str) -> JsonObject:
    """As the controllers of StatefulSets and DaemonSets write it."""
    return {
        "kind": "ControllerRevision",
        "metadata": {
            "name": named,
            "uid": f"cr-{number}",
            "creationTimestamp": f"2026-02-20T17:0{number}:00Z",
            "labels": {"controller-revision-hash": hashed},
        },
        "revision": number,
        "data": {"spec": {"template": {**pod_template, "$patch": "replace"}}},
    }


def pod(name: str, label: str, *, ready: bool = True) -> JsonObject:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": "2026-02-20T17:03:00Z",
            "labels": {"controller-revision-hash": label},
            "ownerReferences": [{"controller": True, "uid": "d-1"}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def seen(
    workload_item: JsonObject,
    *,
    revisions: tuple[JsonObject, ...] = (),
    running: tuple[JsonObject, ...] = (),
    events: tuple[JsonObject, ...] = (),
) -> WorkloadView:
    found = WorkloadObjects(
        workload=workload_item, revisions=revisions, pods=running, config_maps=(), events=events
    )
    return workload_view(found, ref(str(workload_item["kind"])), NOW)


# ------------------------------------------------------------------ reading


def test_controller_revisions_are_revisions_and_pods_name_theirs() -> None:
    """The pods of a StatefulSet name the revision by its name, those of a DaemonSet by its hash."""
    old, now = template(container(image="shop:0")), template(container(image="shop:1"))
    kept = (controller_revision(1, old, "shop-a", "a"), controller_revision(3, now, "shop-b", "b"))
    for kind, (first, second) in {"StatefulSet": ("shop-a", "shop-b"), "DaemonSet": ("a", "b")}.items():
        running = (pod("shop-0", first), pod("shop-1", second), pod("shop-2", second, ready=False))
        view = seen(item(kind, {"template": now}), revisions=kept, running=running)
        assert [(one.number, one.images) for one in view.revisions] == [(3, ("shop:1",)), (1, ("shop:0",))]
        assert [(one.replicas, one.ready_replicas) for one in view.revisions] == [(2, 1), (1, 1)]
        assert view.current_revision == 3
        hashes = {one.name: one.template_hash for one in view.pods}
        assert hashes["shop-0"] == view.revisions[1].template_hash
        assert hashes["shop-1"] == hashes["shop-2"] == view.revisions[0].template_hash


def test_a_template_that_came_back_is_the_newest_revision_of_it() -> None:
    """Until its controller has numbered a template, the one before is the current one."""
    old, now = template(container(image="shop:0")), template(container(image="shop:1"))
    kept = (controller_revision(2, now, "shop-b", "b"), controller_revision(3, old, "shop-a", "a"))
    assert seen(item("StatefulSet", {"template": old}), revisions=kept).current_revision == 3
    newer = template(container(image="shop:2"))
    assert seen(item("StatefulSet", {"template": newer}), revisions=kept).current_revision == 3


@pytest.mark.parametrize(
    ("kind", "spec", "status", "counts", "complete"),
    [
        (
            "DaemonSet",
            {"replicas": None},
            {
                "desiredNumberScheduled": 4,
                "currentNumberScheduled": 4,
                "updatedNumberScheduled": 4,
                "numberReady": 4,
                "numberAvailable": 4,
            },
            (4, 4, 4, 4, 4),
            True,
        ),
        (
            "StatefulSet",
            {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
            {"replicas": 3, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3},
            (3, 1, 3, 3, 3),
            False,
        ),
        (
            "Rollout",
            {"replicas": 1},
            {
                "observedGeneration": "3",
                "replicas": 1,
                "updatedReplicas": 1,
                "readyReplicas": 1,
                "availableReplicas": 1,
            },
            (1, 1, 1, 1, 1),
            True,
        ),
    ],
)
def test_every_kind_counts_its_pods(
    kind: str, spec: JsonObject, status: JsonObject, counts: tuple[int, ...], complete: bool
) -> None:
    """A DaemonSet asks for what its nodes need; a partition keeps a rollout incomplete."""
    view = seen(item(kind, spec, {"observedGeneration": 3, **status}))
    assert counts == (
        view.desired_replicas,
        view.updated_replicas,
        view.ready_replicas,
        view.available_replicas,
        view.total_replicas,
    )
    assert view.rollout_complete is complete


@pytest.mark.parametrize(
    ("total", "minutes", "why"),
    [
        (1, 5.0, 'FailedCreate: pods "shop-1" is forbidden: exceeded quota'),
        (2, 5.0, None),
        (1, 30.0, None),
    ],
)
def test_pods_that_are_refused_are_read_from_events_where_there_is_no_condition(
    total: int, minutes: float, why: str | None
) -> None:
    """While pods are missing, and while the refusal is repeated."""
    at = f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    refused: JsonObject = {
        "involvedObject": {"uid": "d-1"},
        "reason": "FailedCreate",
        "message": 'pods "shop-1" is forbidden: exceeded quota',
        "firstTimestamp": at,
        "lastTimestamp": at,
    }
    view = seen(item("StatefulSet", {"replicas": 2}, {"replicas": total}), events=(refused,))
    assert view.replica_failure == why
    assert (view.replica_failure_since is None) is (why is None)


def test_a_rollout_that_was_aborted_or_paused_says_so() -> None:
    """In the words of its controller."""
    status: JsonObject = {
        "phase": "Degraded",
        "message": "RolloutAborted: analysis failed",
        "pauseConditions": [{"reason": "CanaryPauseStep"}],
    }
    view = seen(item("Rollout", {"replicas": 2}, status))
    assert view.paused
    assert view.warnings == ("Degraded: RolloutAborted: analysis failed", "Paused: CanaryPauseStep")


# ------------------------------------------------------------------ changing


def action(name: ActionName, kind: str, **parameters: JsonScalar) -> Action:
    return Action(
        name=name, risk=Risk.LOW, target=ref(kind), parameters=parameters, expected_effect="", undo=None
    )


def patched(act: Action, current: JsonObject, **more: object) -> dict[str, Json]:
    """Path to value of what follows preconditions and marker."""
    assert act.target is not None
    given = {"revision": None, "snapshot": None, **more}
    found = patch_for(act, IntentId("int_1"), current, target=target(current, act.target), **given)  # type: ignore[arg-type]  # a test names real parameters
    return {str(part["path"]): part["value"] for part in found[3:]}


def test_a_snapshot_holds_and_restores_what_its_kind_has() -> None:
    """No `replicas` of a DaemonSet and no `paused` of either: the API server would drop or refuse them."""
    paths = {"StatefulSet": {"/spec/template", "/spec/replicas"}, "DaemonSet": {"/spec/template"}}
    for kind, wanted in paths.items():
        current = item(kind)
        taken = Snapshot(ref=ref(kind), token="t", body=snapshot_body(ref(kind), current))
        assert set(patched(action(ActionName.RESTORE, kind), current, snapshot=taken)) == wanted
        undo = action(ActionName.RESTORE, kind, undoes="rollback")
        assert set(patched(undo, current, snapshot=taken)) == {"/spec/template"}


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_a_rollback_sets_the_template_of_a_controller_revision_and_nothing_else(kind: str) -> None:
    """Without the word that says how it is put back."""
    old = template(container(image="shop:0"))
    kept = controller_revision(1, old, "shop-a", "a")
    change = patched(action(ActionName.ROLLBACK, kind, revision=1), item(kind), revision=kept)
    assert change == {"/spec/template": old}
    by_hand = item(kind, {"updateStrategy": {"type": "OnDelete"}})
    with pytest.raises(Invalid, match="deletes its pods"):
        patched(action(ActionName.ROLLBACK, kind, revision=1), by_hand, revision=kept)


def test_a_trial_pod_of_a_stateful_set_names_its_claims() -> None:
    """Its mounts refer to them; without the volumes the API server would refuse the pod."""
    claims: list[Json] = [{"metadata": {"name": "data"}, "spec": {}}]
    stateful = item("StatefulSet", {"volumeClaimTemplates": claims})
    tried = trial_pod(stateful, stateful)
    spec, metadata = tried["spec"], tried["metadata"]
    assert isinstance(spec, dict)
    assert isinstance(metadata, dict)
    assert spec["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-shop-0"}}]
    assert str(metadata["ownerReferences"]).count("StatefulSet") == 1


@pytest.mark.parametrize(
    ("kind", "strategy", "missing"),
    [
        ("StatefulSet", {}, 1),
        ("StatefulSet", {"rollingUpdate": {"maxUnavailable": "50%"}}, 2),
        ("StatefulSet", {"rollingUpdate": {"maxUnavailable": "1%"}}, 1),
        ("StatefulSet", {"type": "OnDelete"}, 0),
        ("DaemonSet", {"type": "RollingUpdate"}, 1),
        ("DaemonSet", {"rollingUpdate": {"maxUnavailable": "30%"}}, 2),
        ("DaemonSet", {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, 0),
        ("DaemonSet", {"type": "OnDelete"}, 0),
    ],
)
def test_the_strategy_of_each_kind_says_how_many_pods_may_be_missing(
    kind: str, strategy: JsonObject, missing: int
) -> None:
    """Rounded as its controller rounds."""
    found = item(kind, {"replicas": 5, "updateStrategy": strategy}, {"desiredNumberScheduled": 5})
    assert disruption_of(found, [], None) == Disruption(replicas=5, missing_at_once=missing)


# ------------------------------------------------------------------ planning


def resolved(name: ActionName, view: WorkloadView, **parameters: JsonScalar) -> str:
    """Why the action is not planned; empty where it is."""
    found = evidence(Trigger.CRASH_LOOP, workload=view, revision_history=(record(BEFORE),))
    answer = ACTIONS[name].resolve(parameters, found, LIMITS)
    if isinstance(answer, Unmet):
        return answer.reason
    assert isinstance(answer, Resolved)
    assert answer.target == view.target.ref
    return ""


Asked: TypeAlias = tuple[ActionName, Mapping[str, JsonScalar]]
BACK: Asked = (ActionName.ROLLBACK, {"to": "previous_healthy"})
AGAIN: Asked = (ActionName.RESTART, {})
MORE: Asked = (ActionName.SCALE, {"by": 1})


@pytest.mark.parametrize(
    ("kind", "changes", "asked", "why"),
    [
        ("StatefulSet", {}, BACK, ""),
        ("DaemonSet", {}, BACK, ""),
        ("StatefulSet", {}, MORE, ""),
        ("Rollout", {}, BACK, "the agent does not change it"),
        ("Rollout", {}, AGAIN, "the agent does not change it"),
        ("Rollout", {}, MORE, "the agent does not change it"),
        ("DaemonSet", {}, MORE, "one pod on each node"),
        ("StatefulSet", {}, (ActionName.PAUSE, {}), "cannot be paused"),
        ("StatefulSet", {"replaced_by_hand": True}, BACK, "a person must do this"),
        ("DaemonSet", {"replaced_by_hand": True}, AGAIN, "a person must do this"),
        ("StatefulSet", {"one_by_one": True}, BACK, "waits for checkout-2-0 to be ready"),
        ("StatefulSet", {"one_by_one": True}, MORE, "waits for checkout-2-0 to be ready"),
        ("StatefulSet", {"claims_deleted": True}, MORE, "an undo would delete data"),
        ("StatefulSet", {}, (ActionName.SCALE, {"to": 2}), "keeps data in each replica"),
    ],
)
def test_what_a_kind_cannot_take_is_left_to_a_person_with_a_sentence(
    kind: str, changes: Mapping[str, object], asked: Asked, why: str
) -> None:
    """Everything else is planned as for a Deployment."""
    running = (*pods(AFTER, 1, ready=False, created=-0.2), *pods(BEFORE, 2))
    if asked[0] is ActionName.RESTART:
        running = pods(AFTER, 3)
    plain = workload([AFTER, BEFORE], running, **changes)
    view = replace(plain, target=replace(plain.target, ref=ref(kind)))
    reason = resolved(asked[0], view, **asked[1])
    assert (why in reason) if why else reason == ""


STUCK = replace(
    pods(AFTER, 1, ready=False, created=-0.2)[0],
    uid="pod-1",
    ready_changed_at=at(-0.2) + timedelta(seconds=2),
)
DELETES = replace(LIMITS, optional=frozenset({ActionName.DELETE_STUCK_POD}))
BAD_RELEASE = Diagnosis(
    hypotheses=(Hypothesis(cause=Cause.BAD_RELEASE, confidence=0.9, rule="test", evidence_for=()),), at=NOW
)


def held_up_view(*waiting: PodView, **changes: object) -> WorkloadView:
    """An ordered StatefulSet, in the middle of a release."""
    plain = workload([AFTER, BEFORE], (*waiting, *pods(BEFORE, 2)), one_by_one=True, **changes)
    return replace(plain, target=replace(plain.target, ref=ref("StatefulSet")))


def planned(view: WorkloadView, limits: PlanLimits = DELETES, catalogue: Catalogue = CATALOGUE) -> Plan:
    return make_plan(BAD_RELEASE, evidence(Trigger.CRASH_LOOP, workload=view), catalogue, limits)


def why_not(plan: Plan) -> str:
    """Why the shipped rollback was not chosen."""
    return next(one.reason for one in plan.rejected if one.runbook.startswith("roll-back-bad-release"))


def test_a_rollback_that_does_not_reach_a_pod_is_planned_with_its_deletion() -> None:
    """One verdict for both; the deletion holds for that pod alone, and an undo restores the template only."""
    back, delete = planned(held_up_view(STUCK)).actions
    assert (back.name, back.then_verify) == (ActionName.ROLLBACK, False)
    assert (delete.name, delete.then_verify) == (ActionName.DELETE_STUCK_POD, True)
    assert delete.target == ref("StatefulSet").beside("Pod", STUCK.name)
    assert delete.diagnosed_token == "pod-1/ready=false,terminating=false"
    assert back.undo is not None
    assert delete.undo is None


@pytest.mark.parametrize(
    ("waiting", "why"),
    [
        ((replace(STUCK, ready_changed_at=at(0)),), "was ready before"),
        ((replace(STUCK, template_hash=BEFORE.template_hash),), "does not run the revision"),
        ((replace(STUCK, node_lost=True),), "may still run there"),
        ((replace(STUCK, ends_by=at(1)),), "is being deleted"),
        ((replace(STUCK, uid=""),), "does not run the revision"),
        ((STUCK, replace(STUCK, name="checkout-2-1")), "waits for checkout-2-0, checkout-2-1"),
    ],
)
def test_any_other_pod_is_left_to_a_person_and_named(waiting: tuple[PodView, ...], why: str) -> None:
    """The rollback is then left to the person too, with the line that deletes the pods."""
    plan = planned(held_up_view(*waiting))
    assert plan.actions == ()
    assert why in why_not(plan)
    names = " ".join(pod.name for pod in waiting)
    assert f"kubectl -n payments delete pod {names}" in why_not(plan)


def test_a_rollback_is_never_planned_without_the_deletion_that_it_needs() -> None:
    """Not where the action is off, where a runbook has no step for it, or where a controller rolls back."""
    assert "not among ENABLED_ACTIONS" in why_not(planned(held_up_view(STUCK), LIMITS))
    bare = Catalogue(
        runbooks=tuple(
            replace(one, steps=one.steps[:1]) if one.id == "roll-back-bad-release" else one
            for one in CATALOGUE.runbooks
        )
    )
    assert "the runbook has no step for it" in why_not(planned(held_up_view(STUCK), DELETES, bare))
    owned = held_up_view(STUCK, managed_by="argocd")
    assert "managed by argocd" in why_not(planned(owned))


def test_nothing_is_deleted_after_a_rollback_that_reaches_every_pod() -> None:
    """A Deployment, and a StatefulSet whose pods are replaced in parallel, replace the pod themselves."""
    [only] = planned(replace(held_up_view(STUCK), one_by_one=False)).actions
    assert (only.name, only.then_verify) == (ActionName.ROLLBACK, True)
    assert len(planned(replace(held_up_view(STUCK), one_by_one=False), LIMITS).actions) == 1


RESET = revision(2, -3, code_hash=BEFORE.code_hash, config_hash="config-new")
"""The code of the revision before with another configuration inside the template."""
LIMITED = revision(1, -600, memory_limits=(("app", 64 * 2**20),))
KILLED = replace(
    STUCK,
    template_hash=LIMITED.template_hash,
    restarts=3,
    last_termination_reason="OOMKilled",
    failing=FailingContainer(name="app"),
)
RAISES = replace(LIMITS, optional=frozenset({ActionName.DELETE_STUCK_POD, ActionName.RAISE_MEMORY_LIMIT}))


def changed_configuration(**changes: object) -> Evidence:
    """An ordered StatefulSet in the middle of a change of its configuration."""
    waiting = replace(STUCK, template_hash=RESET.template_hash)
    plain = workload([RESET, BEFORE], (waiting, *pods(BEFORE, 2)), one_by_one=True)
    view = replace(plain, target=replace(plain.target, ref=ref("StatefulSet")))
    history = {"revision_history": (record(BEFORE),), "config_history": (config_record("good"),)}
    return evidence(Trigger.CRASH_LOOP, workload=replace(view, **changes), **history)  # type: ignore[arg-type]  # a test names real fields


def killed(**changes: object) -> Evidence:
    """An ordered StatefulSet of one pod, which is killed at every start."""
    plain = workload([LIMITED], (KILLED,), one_by_one=True, desired_replicas=1)
    view = replace(plain, target=replace(plain.target, ref=ref("StatefulSet")))
    return evidence(Trigger.CRASH_LOOP, workload=replace(view, **changes))  # type: ignore[arg-type]  # a test names real fields


def plan_for(
    cause: Cause, seen: Evidence, limits: PlanLimits = RAISES, without: str | None = None
) -> tuple[Plan, str]:
    """The plan, and why a runbook with steps for the cause was rejected; `without`: its first step alone."""
    catalogue = Catalogue(
        runbooks=tuple(
            replace(one, steps=one.steps[:1]) if one.id == without else one for one in CATALOGUE.runbooks
        )
    )
    diagnosis = Diagnosis(
        hypotheses=(Hypothesis(cause=cause, confidence=0.9, rule="test", evidence_for=()),), at=NOW
    )
    plan = make_plan(diagnosis, seen, catalogue, limits)
    return plan, "; ".join(one.reason for one in plan.rejected)


@pytest.mark.parametrize(
    ("cause", "seen", "change"),
    [
        (Cause.BAD_CONFIG, changed_configuration(), ActionName.REVERT_CONFIG),
        (Cause.RESOURCE_LIMIT, killed(), ActionName.RAISE_MEMORY_LIMIT),
    ],
)
def test_every_change_of_a_template_is_planned_with_the_deletion_that_completes_it(
    cause: Cause, seen: Evidence, change: ActionName
) -> None:
    """One verdict for both; where the deletion is not possible, nothing is planned and the line is there."""
    plan, _ = plan_for(cause, seen)
    assert [(one.name, one.then_verify) for one in plan.actions] == [
        (change, False),
        (ActionName.DELETE_STUCK_POD, True),
    ]
    only_raises = replace(LIMITS, optional=frozenset({ActionName.RAISE_MEMORY_LIMIT}))
    off, why = plan_for(cause, seen, only_raises)
    assert off.actions == ()
    assert "delete_stuck_pod is not among ENABLED_ACTIONS" in why
    assert "kubectl -n payments delete pod checkout-2-0" in why
    served = replace(
        seen,
        workload=replace(
            seen.workload, pods=tuple(replace(one, ready_changed_at=at(0)) for one in seen.workload.pods)
        )
        if seen.workload is not None
        else None,
    )
    assert plan_for(cause, served)[0].actions == ()
    runbook = "revert-bad-config" if change is ActionName.REVERT_CONFIG else "raise-memory-limit"
    bare, why = plan_for(cause, seen, without=runbook)
    assert bare.actions == ()
    assert "the runbook has no step for it" in why


def test_a_reverted_config_map_deletes_no_pod() -> None:
    """The container reads the restored content when it starts again; the template did not change."""
    seen = changed_configuration(config_maps=(config_map("new", -1),))
    plan, _ = plan_for(Cause.BAD_CONFIG, seen)
    assert [one.name for one in plan.actions] == [ActionName.REVERT_CONFIG]
    assert plan.actions[0].target == ref("StatefulSet").beside("ConfigMap", "checkout-settings")


def test_after_the_rollback_only_the_pod_of_the_withdrawn_revision_is_deleted() -> None:
    """A pod that runs the revision before that is the fault of something else."""
    again = replace(BEFORE, number=3)
    older = revision(0, -900)
    after = workload([again, AFTER, older], (STUCK, *pods(BEFORE, 2)), one_by_one=True)
    assert why_kept(after, changed=True) is None
    of_older = replace(STUCK, template_hash=older.template_hash)
    other = workload([again, AFTER, older], (of_older, *pods(BEFORE, 2)), one_by_one=True)
    assert "does not run the revision" in (why_kept(other, changed=True) or "")


def test_every_kind_says_what_may_be_changed_of_it_or_why_not() -> None:
    """No part of a workload is without an answer."""
    for kind in WORKLOAD_KINDS.values():
        assert {*kind.parts} | {*kind.without} == {"template", "replicas", "paused"}
        assert not {*kind.parts} & {*kind.without}


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("Rollout", {}, "kubectl argo rollouts -n payments abort shop"),
        ("StatefulSet", {"replaced_by_hand": True}, "only when someone deletes them"),
        ("StatefulSet", {"partition": 2}, "below 2 keep their template"),
        ("StatefulSet", {"one_by_one": True}, "changes no pod while checkout-2-0 is not ready"),
    ],
)
def test_the_handover_says_how_its_kind_is_changed_by_hand(
    kind: str, changes: Mapping[str, object], words: str
) -> None:
    """Nothing of this is said of a Deployment; the line to copy names the kind."""
    running = (*pods(AFTER, 1, ready=False), *pods(BEFORE, 2))
    plain = workload([AFTER, BEFORE], running)
    view = replace(plain, target=replace(plain.target, ref=ref(kind)), **changes)  # type: ignore[arg-type]  # a test names real fields
    given = handover(evidence(Trigger.CRASH_LOOP, workload=view), Cause.UNKNOWN)
    before = handover(evidence(Trigger.CRASH_LOOP, workload=plain), Cause.UNKNOWN)
    assert given is not None
    assert before is not None
    assert any(words in fact for fact in given.facts)
    assert len(before.facts) == len(given.facts) - 1
    assert f"kubectl -n payments describe {kind.lower()} shop" in given.commands

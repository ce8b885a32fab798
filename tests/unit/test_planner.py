"""From a diagnosis to concrete actions: the right revision, content or number, or the reason why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from app.agent.actions import ACTIONS
from app.agent.actions.restore import restore_of
from app.agent.actions.spec import Resolution, Resolved, Unmet, Unneeded
from app.agent.ids import JsonScalar
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    ChangeKind,
    Diagnosis,
    Evidence,
    Hypothesis,
    Plan,
    Risk,
    TelemetryHealth,
    Trigger,
)
from app.agent.planner import PlanLimits, make_plan, no_longer_planned, plan_hash
from app.agent.runbooks import Catalogue, Runbook, Step
from app.agent.workload import (
    ObjectRef,
    Revision,
    RevisionHealth,
    WorkloadView,
)
from tests.unit.scenes import (
    CATALOGUE,
    DAY,
    LIMITS,
    NEW,
    OLD,
    REF,
    change,
    config_map,
    config_record,
    crashing,
    curves,
    evidence,
    pods,
    pulling,
    record,
    released,
    revision,
    workload,
)

BAD = evidence(Trigger.DEPLOY_FAILED, workload=released((*pulling(NEW), *pods(OLD))))
"""A release whose image does not exist, beside the old pods."""


def diagnosed(*causes: Cause, confidence: float = 0.9, next_confidence: float = 0.3) -> Diagnosis:
    """A diagnosis whose first cause is the best."""
    return Diagnosis(
        hypotheses=tuple(
            Hypothesis(
                cause=cause,
                confidence=confidence if index == 0 else next_confidence,
                rule="test",
                evidence_for=("because",),
            )
            for index, cause in enumerate(causes)
        ),
        at=BAD.at,
    )


def plan(seen: Evidence, *causes: Cause, confidence: float = 0.9, limits: PlanLimits = LIMITS) -> Plan:
    return make_plan(diagnosed(*causes, confidence=confidence), seen, CATALOGUE, limits)


def reason(found: Plan, runbook: str) -> str:
    (told,) = [r.reason for r in found.rejected if r.runbook.startswith(runbook)]
    return told


def resolve(name: ActionName, seen: Evidence, **parameters: JsonScalar) -> Resolution:
    return ACTIONS[name].resolve(parameters, seen, LIMITS)


def rolled_back_to(seen: Evidence) -> JsonScalar:
    found = resolve(ActionName.ROLLBACK, seen, to="previous_healthy")
    assert isinstance(found, Resolved), found
    assert found.target == REF
    return found.parameters["revision"]


def unmet(name: ActionName, seen: Evidence, **parameters: JsonScalar) -> str:
    found = resolve(name, seen, **parameters)
    assert isinstance(found, Unmet), found
    return found.reason


# ---------------------------------------------------------------- choosing


def test_the_runbook_of_the_best_cause_is_chosen_and_every_other_gets_its_reason() -> None:
    """A plan says why each other runbook of the catalogue was not taken."""
    found = plan(BAD, Cause.BAD_RELEASE)
    assert found.runbook == "roll-back-bad-release@2"
    (action,) = found.actions
    assert (action.name, action.risk, action.target) == (ActionName.ROLLBACK, Risk.HIGH, REF)
    assert action.parameters == {"revision": 6}
    assert "revision 6" in action.expected_effect
    assert action.undo == ACTIONS[ActionName.ROLLBACK].undo
    others = (r.reference for r in CATALOGUE.runbooks if r.id != "roll-back-bad-release")
    assert [r.runbook for r in found.rejected] == sorted(others)
    assert reason(found, "escalate-bad-release") == "roll-back-bad-release@2 was selected first"
    assert found.handover == ()
    assert reason(found, "scale") == "addresses traffic surge, not bad release"


def test_a_diagnosis_below_the_confidence_of_the_runbook_is_handed_to_a_person() -> None:
    """The reason names both figures; below every runbook there is no plan at all."""
    assert plan(BAD, Cause.BAD_RELEASE, confidence=0.49).runbook is None
    found = plan(BAD, Cause.BAD_RELEASE, confidence=0.59)
    assert (found.runbook, found.actions) == ("escalate-bad-release@1", ())
    assert found.handover
    assert (
        reason(found, "roll-back")
        == "the confidence of 59% is below the 60% that roll-back-bad-release requires"
    )


@pytest.mark.parametrize("cause", [Cause.UNKNOWN, Cause.DEPENDENCY_FAILURE, Cause.TELEMETRY_OUTAGE])
def test_a_second_best_cause_is_never_acted_on(cause: Cause) -> None:
    """Escalation is the plan for causes that have no runbook, whatever comes second."""
    assert plan(BAD, cause, Cause.BAD_RELEASE).actions == ()


def test_two_causes_that_cannot_be_distinguished_get_no_plan() -> None:
    """Unless one runbook answers both."""
    close = diagnosed(Cause.BAD_RELEASE, Cause.TRAFFIC_SURGE, confidence=0.8, next_confidence=0.78)
    found = make_plan(close, BAD, CATALOGUE, LIMITS)
    assert found.actions == ()
    assert reason(found, "roll-back") == "bad release (80%) cannot be distinguished from traffic surge (78%)"
    new = revision(7, -3, code_hash=OLD.code_hash, config_hash="config-new")
    shared = diagnosed(Cause.RESOURCE_LIMIT, Cause.BAD_CONFIG, confidence=0.8, next_confidence=0.8)
    seen = evidence(Trigger.CRASH_LOOP, workload=workload([new, OLD], crashing(new)))
    assert [a.name for a in make_plan(shared, seen, CATALOGUE, LIMITS).actions] == [ActionName.REVERT_CONFIG]


def test_an_action_that_did_not_help_is_not_planned_again() -> None:
    """The same remedy on the same incident is refused, whatever the confidence."""
    found = plan(replace(BAD, failed_actions=(ActionName.ROLLBACK,)), Cause.BAD_RELEASE, confidence=1.0)
    assert found.actions == ()
    assert reason(found, "roll-back") == "rollback was tried on this incident and did not help"


def test_nothing_is_touched_while_the_telemetry_is_broken() -> None:
    """Whatever the diagnosis says: nothing could verify the action."""
    broken = TelemetryHealth(known_services=9, silent_services=9, source_reachable=True)
    found = plan(replace(BAD, telemetry=broken), Cause.BAD_RELEASE, confidence=1.0)
    assert found.actions == ()
    assert "telemetry outage" in reason(found, "roll-back")


def custom(*steps: Step, id: str = "custom", min_confidence: float = 0.5) -> Runbook:  # noqa: A002 - the field's name
    return Runbook(
        id=id,
        version=1,
        title="Custom",
        causes=(Cause.BAD_RELEASE, Cause.TELEMETRY_OUTAGE),
        min_confidence=min_confidence,
        steps=steps,
        hash=id * 8,
        source="custom.yaml",
    )


NOTIFY = Step(action=ActionName.NOTIFY, parameters={"message": "look here"})


def test_people_may_be_notified_while_nothing_may_be_touched() -> None:
    """A runbook that only notifies is no remediation, and may be repeated."""
    broken = TelemetryHealth(known_services=9, silent_services=9, source_reachable=True)
    seen = replace(BAD, telemetry=broken, failed_actions=(ActionName.NOTIFY,))
    found = make_plan(diagnosed(Cause.TELEMETRY_OUTAGE), seen, Catalogue(runbooks=(custom(NOTIFY),)), LIMITS)
    (action,) = found.actions
    assert (action.name, action.target, action.parameters) == (
        ActionName.NOTIFY,
        None,
        {"message": "look here"},
    )


def test_a_runbook_with_one_step_that_cannot_be_resolved_is_rejected_whole() -> None:
    """And the next that fits is taken; the stricter of two goes first."""
    resume = Step(action=ActionName.RESUME, parameters={})
    catalogue = Catalogue(
        runbooks=(
            custom(NOTIFY, id="a-lax"),
            custom(NOTIFY, resume, id="b-strict", min_confidence=0.8),
            custom(NOTIFY, id="c-lax"),
        )
    )
    found = make_plan(diagnosed(Cause.BAD_RELEASE), BAD, catalogue, LIMITS)
    assert found.runbook == "a-lax@1"
    assert reason(found, "b-strict") == f"resume: {REF} is not paused"
    assert reason(found, "c-lax") == "a-lax@1 was selected first"


def test_a_restore_in_a_runbook_is_refused_even_if_it_got_past_the_schema() -> None:
    """The undo is never planned."""
    step = Step(action=ActionName.RESTORE, parameters={})
    found = make_plan(diagnosed(Cause.BAD_RELEASE), BAD, Catalogue(runbooks=(custom(step),)), LIMITS)
    assert found.actions == ()
    assert reason(found, "custom") == "undo: not allowed in a runbook"


def test_without_a_cluster_the_plan_shows_what_it_would_do() -> None:
    """No target, the parameters as the runbook wrote them; only an irreversible release stops it."""
    unseen = replace(BAD, workload=None)
    (action,) = plan(unseen, Cause.BAD_RELEASE).actions
    assert (action.target, action.parameters) == (None, {"to": "previous_healthy"})
    assert [a.name for a in plan(unseen, Cause.BAD_CONFIG).actions] == [ActionName.REVERT_CONFIG]
    assert [a.parameters for a in plan(unseen, Cause.TRAFFIC_SURGE).actions] == [{"by": 2}]
    assert [a.name for a in plan(unseen, Cause.MEMORY_LEAK).actions] == [ActionName.RESTART]
    marked = replace(unseen, changes=(change(ChangeKind.DEPLOY, -3, version="1.7.0", irreversible=True),))
    assert "1.7.0 is marked irreversible" in reason(plan(marked, Cause.BAD_RELEASE), "roll-back")


def test_the_hash_binds_runbook_and_actions_and_not_the_order_of_parameters() -> None:
    """Equal content, equal hash; anything else, another hash."""
    action = plan(BAD, Cause.BAD_RELEASE).actions[0]

    def with_parameters(parameters: dict[str, JsonScalar]) -> str:
        return plan_hash("r", (replace(action, parameters=parameters),))

    assert with_parameters({"a": 1, "b": 2}) == with_parameters({"b": 2, "a": 1})
    hashes = {
        with_parameters({"a": 1, "b": 2}),
        with_parameters({"a": 1, "b": 3}),
        with_parameters({"a": "1", "b": 2}),
        plan_hash("other", (replace(action, parameters={"a": 1, "b": 2}),)),
        plan_hash("r", ()),
        plan_hash("r", (action, action)),
        plan_hash("r", (replace(action, target=ObjectRef(kind="Deployment", namespace="prod", name="x")),)),
        plan_hash(None, ()),
    }
    assert len(hashes) == 8


# ---------------------------------------------------------------- rollback


def test_a_rollback_goes_to_the_newest_older_revision_that_served_well() -> None:
    """Not simply to the one before."""
    five, four = revision(5, -5 * DAY), revision(4, -9 * DAY)
    view = workload([NEW, OLD, five, four], pods(NEW))
    seen = evidence(workload=view, revision_history=(record(five), record(four)))
    assert rolled_back_to(seen) == 5
    assert rolled_back_to(replace(seen, revision_history=(record(OLD), record(five)))) == 6


def test_ready_pods_right_now_are_positive_evidence_too() -> None:
    """The rollout got stuck, the old pods serve, and the agent has no history yet."""
    assert rolled_back_to(replace(BAD, revision_history=())) == 6


def test_a_revision_that_failed_before_is_never_gone_back_to() -> None:
    """Not even when its pods look ready, and not under the number it was given later."""
    failed = record(OLD, RevisionHealth.FAILED)
    seen = replace(BAD, revision_history=(failed, record(OLD)))
    told = unmet(ActionName.ROLLBACK, seen, to="previous_healthy")
    assert told == "there is no revision to roll back to: revision 6 failed before"
    restarted = replace(OLD, number=5, template_hash="restarted", created_at=OLD.created_at)
    view = workload([NEW, restarted, OLD], (*pulling(NEW), *pods(restarted)))
    told = unmet(ActionName.ROLLBACK, replace(seen, workload=view), to="previous_healthy")
    assert "revision 5 failed before" in told


def test_a_revision_without_any_evidence_is_not_gone_back_to() -> None:
    """No record and no ready pod is no evidence of health."""
    seen = evidence(workload=released(), revision_history=())
    assert "no record of serving well" in unmet(ActionName.ROLLBACK, seen, to="previous_healthy")
    only = evidence(workload=workload([NEW], pods(NEW)))
    assert "no older revision is kept" in unmet(ActionName.ROLLBACK, only, to="previous_healthy")


def test_a_restart_of_the_same_version_is_nothing_to_go_back_to() -> None:
    """Another template hash with the same code and configuration is no other version."""
    restarted = replace(NEW, number=8, template_hash="restarted")
    view = workload([restarted, NEW, OLD], pods(restarted))
    seen = evidence(workload=view, revision_history=(record(NEW), record(OLD)))
    assert rolled_back_to(seen) == 6


def test_an_irreversible_release_is_never_crossed() -> None:
    """Neither the current one nor one in between, marked in the cluster or by the pipeline."""
    five = revision(5, -5 * DAY)
    current = evidence(workload=workload([replace(NEW, irreversible=True), OLD], pods(NEW)))
    assert "revision 7 is marked irreversible" in unmet(ActionName.ROLLBACK, current, to="previous_healthy")
    between = evidence(
        workload=workload([NEW, replace(OLD, irreversible=True), five], pods(NEW)),
        revision_history=(record(five),),
    )
    assert "lies before revision 6" in unmet(ActionName.ROLLBACK, between, to="previous_healthy")
    assert rolled_back_to(replace(between, revision_history=(record(OLD), record(five)))) == 6
    told = evidence(
        workload=released(), changes=(change(ChangeKind.DEPLOY, -20, version="1.8.0", irreversible=True),)
    )
    assert "the deploy of 1.8.0" in unmet(ActionName.ROLLBACK, told, to="previous_healthy")
    carried = (change(ChangeKind.DEPLOY, -20, version="1.6.0", irreversible=True),)
    assert rolled_back_to(replace(told, changes=carried)) == 6


FORBIDDING = {
    "opted out": ({"opted_out": True}, "is opted out by its owners"),
    "GitOps": ({"managed_by": "argocd"}, "managed by argocd"),
    "paused": ({"paused": True}, "is paused"),
}


@pytest.mark.parametrize("name", FORBIDDING)
def test_what_forbids_a_rollback_of_the_workload(name: str) -> None:
    """Its owners, a GitOps controller, or a person who holds the rollout."""
    changes, told = FORBIDDING[name]
    view = BAD.workload
    assert view is not None
    seen = replace(BAD, workload=replace(view, **changes))  # type: ignore[arg-type]  # a row names real fields
    found = plan(seen, Cause.BAD_RELEASE)
    assert found.actions == ()
    assert told in reason(found, "roll-back")


def test_a_workload_that_shows_no_current_revision_is_left_alone() -> None:
    """The controller is behind, or the ReplicaSets cannot be read."""
    view = replace(released(), current_revision=9)
    seen = evidence(workload=view)
    assert "shows no revision" in unmet(ActionName.ROLLBACK, seen, to="previous_healthy")
    assert "no configuration is known" in unmet(ActionName.REVERT_CONFIG, seen, to="last_served_well")


# ---------------------------------------------------------------- revert_config


def configured(changed: float | None, *others: float) -> WorkloadView:
    extra = tuple(replace(config_map("other", m), name=f"more-{n}") for n, m in enumerate(others))
    return workload([OLD], pods(OLD), config_maps=(config_map("new", changed), *extra))


def test_a_config_map_goes_back_to_the_content_that_last_served_well() -> None:
    """The newest of those that never failed, not the present one."""
    history = (
        config_record("failed", seen=-10),
        config_record("failed", RevisionHealth.FAILED, seen=-5),
        config_record("good", seen=-60),
        config_record("older", seen=-DAY),
    )
    seen = evidence(workload=configured(-3), config_history=history)
    found = resolve(ActionName.REVERT_CONFIG, seen, to="last_served_well")
    assert isinstance(found, Resolved)
    assert found.target == ObjectRef(kind="ConfigMap", namespace="prod", name="checkout-settings")
    assert found.parameters == {"content_hash": "good"}


def test_the_templates_configuration_goes_back_to_the_last_healthy_one_with_the_same_code() -> None:
    """A revision with other code is passed over, whatever its configuration."""
    current = revision(8, -3, code_hash=OLD.code_hash, config_hash="config-new")
    other_code = revision(7, -60)
    view = workload([current, other_code, OLD], pods(current))
    seen = evidence(workload=view, revision_history=(record(other_code), record(OLD)))
    found = resolve(ActionName.REVERT_CONFIG, seen, to="last_served_well")
    assert isinstance(found, Resolved)
    assert (found.target, found.parameters) == (REF, {"revision": 6})
    paused = replace(seen, workload=replace(view, paused=True))
    assert "is paused" in unmet(ActionName.REVERT_CONFIG, paused, to="last_served_well")


@pytest.mark.parametrize(("map_changed", "wanted"), [(-2, "content_hash"), (-10, "revision")])
def test_of_two_changed_configurations_the_later_one_is_reverted(map_changed: float, wanted: str) -> None:
    """ConfigMap or template, whichever changed last."""
    current = revision(7, -5, code_hash=OLD.code_hash, config_hash="config-new")
    view = workload([current, OLD], pods(current), config_maps=(config_map("new", map_changed),))
    seen = evidence(workload=view, config_history=(config_record("good"),))
    found = resolve(ActionName.REVERT_CONFIG, seen, to="last_served_well")
    assert isinstance(found, Resolved)
    assert list(found.parameters) == [wanted]


MARKED = {
    "released-at": True,
    "checksum/config": True,
    "vault.hashicorp.com/role": False,
}


@pytest.mark.parametrize("annotation", MARKED)
def test_a_template_that_differs_in_a_mark_is_not_reverted(annotation: str) -> None:
    """Its pods would run what runs now, as after the same tag was released with another content."""
    fields = (("image of app", "1"), (f"annotation {annotation}", "old"))
    before = replace(OLD, fields=fields)
    new = (fields[0], (fields[1][0], "new"))
    current = revision(7, -5, code_hash=OLD.code_hash, config_hash="new", images=OLD.images, fields=new)
    then = replace(pods(before, 1)[0], image_digests=("app=sha256:aa",))
    now = replace(pods(current, 1)[0], image_digests=("app=sha256:bb",))
    view = workload([current, before], (then, now))
    seen = evidence(workload=view, revision_history=(record(before),))
    if not MARKED[annotation]:
        assert isinstance(resolve(ActionName.REVERT_CONFIG, seen, to="last_served_well"), Resolved)
        return
    why = unmet(ActionName.REVERT_CONFIG, seen, to="last_served_well")
    assert f"differs only in annotation {annotation}: a revert would run the same images" in why
    assert "sha256:aa before, sha256:bb now" in why
    changed_before = replace(view, config_maps=(config_map("new", -10),))
    both = replace(seen, workload=changed_before, config_history=(config_record("good"),))
    found = resolve(ActionName.REVERT_CONFIG, both, to="last_served_well")
    assert isinstance(found, Resolved)
    assert found.parameters == {"content_hash": "good"}


def test_no_config_map_is_reverted_on_a_guess() -> None:
    """Unknown good content, several changed together, changed long ago, or at an unknown time."""
    good = (config_record("good"),)

    def told(view: WorkloadView, *history: object) -> str:
        seen = evidence(workload=view, config_history=tuple(history))
        return unmet(ActionName.REVERT_CONFIG, seen, to="last_served_well")

    assert "no earlier content" in told(configured(-3))
    assert "several ConfigMaps changed together (checkout-settings, more-0)" in told(
        configured(-3, -3.5), *good
    )
    assert "no configuration is known" in told(configured(-DAY), *good)
    assert "no configuration is known" in told(configured(None), *good)
    assert "no configuration is known" in told(configured(-3), *good, config_record("new", seen=-1))
    assert "opted out" in told(replace(configured(-3), opted_out=True), *good)
    assert "managed by flux" in told(replace(configured(-3), managed_by="flux"), *good)


# ---------------------------------------------------------------- the others


def test_a_plan_holds_each_change_once() -> None:
    """Two steps that come to the same are one: what did not help is not done again (promise 10)."""
    steps: list[dict[str, JsonScalar]] = [{"by": 1}, {"to": 4}, {"to": 7}]
    runbook = replace(
        next(one for one in CATALOGUE.runbooks if Cause.TRAFFIC_SURGE in one.causes),
        steps=tuple(Step(action=ActionName.SCALE, parameters=parameters) for parameters in steps),
    )
    seen = evidence(workload=workload([OLD], pods(OLD)))
    made = make_plan(diagnosed(Cause.TRAFFIC_SURGE), seen, Catalogue(runbooks=(runbook,)), LIMITS)
    assert [action.parameters for action in made.actions] == [{"replicas": 4}, {"replicas": 7}]


def test_scaling_stays_within_the_bounds() -> None:
    """Adding stops at the most allowed; a number outside is refused."""
    seen = evidence(workload=workload([OLD], pods(OLD)))

    def replicas(parameters: dict[str, JsonScalar], limits: PlanLimits = LIMITS) -> JsonScalar:
        found = ACTIONS[ActionName.SCALE].resolve(parameters, seen, limits)
        assert not isinstance(found, Unneeded)
        return found.parameters["replicas"] if isinstance(found, Resolved) else found.reason

    assert replicas({"by": 2}) == 5
    assert replicas({"by": 50}) == 10
    assert replicas({"to": 8}) == 8
    assert "the most that the bounds 1..3 allow" in str(
        replicas({"by": 2}, PlanLimits(scale_min=1, scale_max=3))
    )
    assert "outside the bounds 1..10" in str(replicas({"to": 11}))
    assert "has 3 replicas already" in str(replicas({"to": 3}))
    assert "needs `by`, `to` or `restore`" in str(replicas({}))


def test_scaling_is_refused_where_it_would_do_harm_or_nothing() -> None:
    """Crash loops, a workload at zero, a GitOps controller, its owners."""
    sick = evidence(workload=workload([OLD], crashing(OLD)))
    assert "3 of 3 pods" in unmet(ActionName.SCALE, sick, by=2)
    zero = evidence(workload=replace(workload([OLD], ()), desired_replicas=0))
    assert "is scaled to zero" in unmet(ActionName.SCALE, zero, by=2)
    assert "managed by" in unmet(ActionName.SCALE, evidence(workload=released(managed_by="argocd")), by=2)
    assert "opted out" in unmet(ActionName.SCALE, evidence(workload=released(opted_out=True)), by=2)


def test_a_restart_waits_for_no_rollout_and_interrupts_none() -> None:
    """In the middle of a rollout it would remove the pods that still serve."""
    assert isinstance(resolve(ActionName.RESTART, evidence()), Resolved)
    assert "a rollout of" in unmet(ActionName.RESTART, BAD)
    assert "is paused" in unmet(ActionName.RESTART, evidence(workload=released(paused=True)))
    assert "opted out" in unmet(ActionName.RESTART, evidence(workload=released(opted_out=True)))
    assert isinstance(resolve(ActionName.RESTART, evidence(workload=released(managed_by="argocd"))), Resolved)


def test_pausing_and_resuming_need_the_other_state() -> None:
    """What is so already is not planned; without a cluster both are shown."""
    running, paused = evidence(workload=released()), evidence(workload=released(paused=True))
    assert isinstance(resolve(ActionName.PAUSE, running), Resolved)
    assert isinstance(resolve(ActionName.RESUME, paused), Resolved)
    assert "paused already" in unmet(ActionName.PAUSE, paused)
    assert "not paused" in unmet(ActionName.RESUME, running)
    for name in (ActionName.PAUSE, ActionName.RESUME):
        found = resolve(name, evidence(workload=None))
        assert isinstance(found, Resolved)
        assert found.target is None


def test_the_closed_set_is_complete_and_carries_its_risks() -> None:
    """Every name has one specification; the dangerous ones are marked so."""
    assert set(ACTIONS) == set(ActionName)
    risks = {name: spec.risk for name, spec in ACTIONS.items()}
    assert {n for n, r in risks.items() if r is Risk.HIGH} >= {
        ActionName.ROLLBACK,
        ActionName.REVERT_CONFIG,
        ActionName.RESTORE,
    }
    assert risks[ActionName.RESTART] is risks[ActionName.SCALE] is Risk.MEDIUM
    for name, spec in ACTIONS.items():
        assert spec.name is name
        assert spec.undoable is (spec.undo is not None)
        assert spec.describe().startswith(f"{name} ({spec.risk} risk): ")


def test_an_undo_keeps_target_and_risk_of_what_it_undoes() -> None:
    """And there is none for what cannot be undone or touched nothing."""
    action = plan(BAD, Cause.BAD_RELEASE).actions[0]
    undo = restore_of(action)
    assert undo is not None
    assert (undo.name, undo.risk, undo.target) == (ActionName.RESTORE, Risk.HIGH, action.target)
    assert undo.parameters == {"undoes": "rollback"}
    assert restore_of(replace(action, undo=None)) is None
    assert restore_of(replace(action, target=None)) is None
    assert "never part of a plan" in unmet(ActionName.RESTORE, BAD)
    assert isinstance(action, Action)


# ---------------------------------------------------------------- images that are the same


def fields(image: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return (("image of app", image), *((f"label {name}", value) for name, value in labels.items()))


def moving(number: int, created: float, **labels: str) -> Revision:
    """A revision under a tag that moves, distinguished by its labels."""
    latest = "registry.example/checkout:latest"
    return revision(number, created, images=(latest,), fields=fields("same", **labels))


def test_a_rollback_that_pulls_the_same_image_is_none() -> None:
    """Only a label differs under one tag: the reason says so, and no older revision is taken instead."""
    new, old = moving(7, -3, build="43"), moving(6, -DAY, build="42")
    older = revision(5, -2 * DAY, fields=fields("another"))
    seen = evidence(
        Trigger.CRASH_LOOP,
        workload=workload([new, old, older], crashing(new)),
        revision_history=(record(old), record(older)),
    )
    told = unmet(ActionName.ROLLBACK, seen, to="previous_healthy")
    assert told == (
        "revision 6 specifies the same image as revision 7 (registry.example/checkout:latest) "
        "and differs only in label build: a rollback would pull the same image again"
    )


def test_a_tag_that_was_moved_is_named_with_both_digests() -> None:
    """The pods show it: a rollback to the tag is refused, and the reason says how to go back."""
    new, old = moving(7, -3, build="43"), moving(6, -DAY, build="42")
    now, before = (f"sha256:{digit * 64}" for digit in "ab")
    running = (
        *(replace(pod, image_digests=(f"app={now}",)) for pod in crashing(new)),
        *pods(old, 1, image_digests=(f"app={before}", "proxy=sha256:" + "c" * 64)),
    )
    seen = evidence(
        Trigger.CRASH_LOOP, workload=workload([new, old], running), revision_history=(record(old),)
    )
    assert unmet(ActionName.ROLLBACK, seen, to="previous_healthy").endswith(
        f"a rollback would pull the same image again. The digests that ran differ: {before} in revision 6, "
        f"{now} in revision 7. The tag was moved, so only a release by digest goes back to the older image"
    )
    same = tuple(replace(pod, image_digests=(f"app={now}",)) for pod in running)
    unmoved = replace(seen, workload=workload([new, old], same))
    assert unmet(ActionName.ROLLBACK, unmoved, to="previous_healthy").endswith("pull the same image again")


def test_a_rollback_of_a_command_under_the_same_tag_is_one() -> None:
    """What runs differs; that the image is pulled again is part of the expected effect."""
    new = replace(moving(7, -3), fields=(*fields("same"), ("command of app", "bad")))
    old = moving(6, -DAY)
    seen = evidence(
        Trigger.CRASH_LOOP, workload=workload([new, old], crashing(new)), revision_history=(record(old),)
    )
    found = resolve(ActionName.ROLLBACK, seen, to="previous_healthy")
    assert isinstance(found, Resolved)
    assert found.expected_effect.endswith("so the same images are pulled")
    digests = {new: "sha256:" + "a" * 64, old: "sha256:" + "b" * 64}
    running = tuple(
        pod for one, digest in digests.items() for pod in pods(one, 1, image_digests=("app=" + digest,))
    )
    moved = resolve(
        ActionName.ROLLBACK, replace(seen, workload=workload([new, old], running)), to="previous_healthy"
    )
    assert isinstance(moved, Resolved)
    assert moved.expected_effect.endswith(f"are pulled, and not {digests[old]}, which ran in revision 6")


# ---------------------------------------------------------------- revisions without requests


def test_a_revision_without_requests_is_passed_over() -> None:
    """Ready pods without a request show nothing; requests after the newer release are not its own."""
    new, silent = revision(8, -3), revision(7, -15)
    seen = evidence(
        Trigger.CRASH_LOOP,
        workload=workload([new, silent, OLD], (*crashing(new, 1), *pods(silent))),
        sli=curves(requests=lambda minute: 50.0 if minute < -15 or minute > -3 else 0.0),
    )
    assert rolled_back_to(seen) == OLD.number
    called = replace(seen, sli=curves())
    assert rolled_back_to(called) == silent.number
    assert rolled_back_to(replace(seen, sli=())) == silent.number


def test_the_runbooks_for_the_cause_are_marked_among_those_rejected() -> None:
    """So that a summary names them, and leaves out those for other causes and kinds of workloads."""
    found = plan(BAD, Cause.BAD_RELEASE, confidence=0.59)
    assert [r.runbook for r in found.rejected if r.addresses_cause] == ["roll-back-bad-release@2"]


# ---------------------------------------------------------------- a newer diagnosis

COMPLETING = Step(action=ActionName.RESTART, parameters={"when": "config_read_at_start"})


def rest_of_plan(*, then_verify: bool, target: ObjectRef = REF) -> str | None:
    """What a newer diagnosis says against a restart that follows another step of its plan."""
    runbook = custom(Step(action=ActionName.ROLLBACK, parameters={"to": "previous_healthy"}), COMPLETING)
    act = Action(
        name=ActionName.RESTART, risk=Risk.MEDIUM, target=target, parameters={}, expected_effect="", undo=None
    )
    before = replace(act, name=ActionName.REVERT_CONFIG, then_verify=then_verify)
    found = Plan(
        runbook=runbook.reference,
        runbook_hash=runbook.hash,
        actions=(before, replace(act, then_verify=True)),
        rejected=(),
        hash="h",
        at=BAD.at,
    )
    return no_longer_planned(
        found,
        1,
        diagnosed(Cause.BAD_RELEASE),
        evidence(Trigger.HIGH_ERROR_RATE, workload=released()),
        Catalogue(runbooks=(runbook,)),
        LIMITS,
    )


def test_only_the_step_that_completes_the_last_one_is_exempt_from_a_newer_diagnosis() -> None:
    """Its condition was that step; it keeps its target, and no other step is exempt."""
    assert rest_of_plan(then_verify=False) is None
    assert rest_of_plan(then_verify=True) == "restart: no longer needed"
    elsewhere = structs.replace(REF, name="another")
    assert rest_of_plan(then_verify=False, target=elsewhere) == "restart: no longer needed"

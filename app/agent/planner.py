"""Plan: select the approved runbook for a diagnosis and resolve its steps, or report why none fits.

Pure. The loop calls `make_plan` and binds every decision to the plan's hash
(promise 1). An empty plan means: take no action, escalate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import msgspec

from app.agent.actions import ACTIONS, ENABLED_BY_DEFAULT, PlanLimits, Unmet, Unneeded
from app.agent.actions.preconditions import held_up, released_by_tool
from app.agent.actions.spec import ActionSpec
from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.log_patterns import credentials_refused
from app.agent.evidence.format import confidence, in_words
from app.agent.guardrails.target_token import READY, TEMPLATE, TERMINATING, object_token
from app.agent.guardrails.workload_kinds import POD
from app.agent.ids import JsonScalar
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    Diagnosis,
    Evidence,
    Hypothesis,
    Plan,
    RejectedRunbook,
    Trigger,
)
from app.agent.runbooks import Catalogue, Runbook, Step
from app.agent.workload import ObjectRef

__all__ = ["PlanLimits", "make_plan", "no_longer_planned", "plan_hash"]

AMBIGUITY = 0.05
"""Two causes whose confidence differs by less cannot be distinguished."""

_UNDO_OF_COMPLETION = "once the previous step is undone, replace the pods again"


def make_plan(diagnosis: Diagnosis, evidence: Evidence, catalogue: Catalogue, limits: PlanLimits) -> Plan:
    """The plan for the best hypothesis; every rejected runbook is listed with its reason.

    A runbook that escalates is chosen only if none with steps applies.
    """
    chosen: Runbook | None = None
    actions: tuple[Action, ...] = ()
    rejected: list[RejectedRunbook] = []
    for runbook in sorted(catalogue.runbooks, key=lambda r: (bool(r.escalate), -r.min_confidence, r.id)):
        reason = _objection(runbook, diagnosis, evidence, limits)
        if reason is None and chosen is not None:
            reason = f"{chosen.reference} was selected first"
        if reason is None:
            steps = _resolve(runbook, evidence, limits)
            if isinstance(steps, Unmet):
                reason = steps.reason
            else:
                chosen, actions = runbook, steps
        if reason is not None:
            rejected.append(
                RejectedRunbook(
                    runbook=runbook.reference,
                    reason=reason,
                    addresses_cause=_concerns(runbook, diagnosis.best.cause, evidence)
                    and not _would_do_nothing(runbook, evidence, limits),
                )
            )
    runbook_hash = chosen.hash if chosen is not None else None
    return Plan(
        runbook=chosen.reference if chosen is not None else None,
        runbook_hash=runbook_hash,
        actions=actions,
        rejected=tuple(sorted(rejected, key=lambda r: r.runbook)),
        hash=plan_hash(runbook_hash, actions),
        at=evidence.at,
        handover=chosen.escalate if chosen is not None else (),
    )


def _concerns(runbook: Runbook, cause: Cause, evidence: Evidence) -> bool:
    """Whether a person asks why it was not chosen: it addresses the cause, and this kind of workload."""
    kinds = runbook.scope.kinds
    known = evidence.workload
    return cause in runbook.causes and (not kinds or known is None or known.target.ref.kind in kinds)


def _would_do_nothing(runbook: Runbook, evidence: Evidence, limits: PlanLimits) -> bool:
    """Whether an action of the runbook is disabled, and the runbook would not apply even with it enabled."""
    off = _disabled(runbook, limits)
    return off is not None and not runbook.escalate and isinstance(_resolve(runbook, evidence, limits), Unmet)


def _disabled(runbook: Runbook, limits: PlanLimits) -> ActionName | None:
    """The first action that it always takes and that the settings leave out.

    A step that only accompanies others does not count: the plan skips it.
    """
    named = (
        step.action
        for step in runbook.steps
        if ACTIONS[step.action].in_runbooks and "when" not in step.parameters
    )
    return next((one for one in named if not (_enabled(one, limits) or ACTIONS[one].accompanies)), None)


def _enabled(name: ActionName, limits: PlanLimits) -> bool:
    return name in ENABLED_BY_DEFAULT | limits.optional


def no_longer_planned(
    plan: Plan,
    next_action: int,
    diagnosis: Diagnosis,
    evidence: Evidence,
    catalogue: Catalogue,
    limits: PlanLimits,
) -> str | None:
    """Why a newer diagnosis does not support the rest of a plan; None if it does.

    The runbook must still handle the cause, and each remaining action must resolve to the same target and
    parameters. A step that completes the previous one needs only the same target: its condition was that
    step.
    """
    runbook = next((each for each in catalogue.runbooks if each.hash == plan.runbook_hash), None)
    if runbook is None:
        return f"{plan.runbook} is no longer an approved runbook"
    objection = _objection(runbook, diagnosis, evidence, limits)
    if objection is not None:
        return f"{plan.runbook}: {objection}"
    if next_action == 0:
        steps = _resolve(runbook, evidence, limits)
        if isinstance(steps, Unmet):
            return steps.reason
        same = [*map(_aims, steps)] == [*map(_aims, plan.actions)]
        return None if same else f"{plan.runbook} now resolves to other actions"
    for index, action in enumerate(plan.actions[next_action:], start=next_action):
        resolved = [_action(step, evidence, limits) for step in runbook.steps if step.action is action.name]
        if any(isinstance(one, Action) and _aims(one) == _aims(action) for one in resolved):
            continue
        before = plan.actions[index - 1]
        completes = index == next_action and not before.then_verify and not ACTIONS[before.name].accompanies
        workload = evidence.workload
        same_target = workload is not None and action.target == workload.target.ref
        if completes and same_target and any(isinstance(one, Unneeded) for one in resolved):
            continue
        unmet = "; ".join(one.reason for one in resolved if isinstance(one, Unmet))
        return f"{action.name.words}: {unmet or _other_change(action, resolved)}"
    return None


def _other_change(action: Action, resolved: list[Action | Unmet | Unneeded]) -> str:
    """The current resolution of the step, if it differs from the planned action."""
    targets = [one.target for one in resolved if isinstance(one, Action)]
    if targets and action.target not in targets:
        return f"planned for {action.target}, now resolves to {targets[0]}"
    return "now resolves to another change" if targets else "no longer needed"


def _aims(action: Action) -> tuple[ActionName, ObjectRef | None, dict[str, JsonScalar]]:
    """The identity of an action: name, target and parameters."""
    return action.name, action.target, dict(action.parameters)


def plan_hash(runbook_hash: str | None, actions: tuple[Action, ...]) -> str:
    """SHA-256 of the canonical JSON of both; the order of parameters is ignored."""
    content = {"runbook_hash": runbook_hash, "actions": [_content(action) for action in actions]}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _content(action: Action) -> dict[str, object]:
    """Its fields; a missing release or cluster is left out, as in plans of older versions."""
    content = asdict(_plain(action)) | {"target": msgspec.to_builtins(action.target)}
    return {name: value for name, value in content.items() if name != "drifts_from" or value is not None}


def _plain(action: Action) -> Action:
    """The same action with its parameters in a plain dict, as `asdict` requires."""
    return Action(
        name=action.name,
        risk=action.risk,
        target=action.target,
        parameters=dict(action.parameters),
        expected_effect=action.expected_effect,
        undo=action.undo,
        diagnosed_token=action.diagnosed_token,
        then_verify=action.then_verify,
        leaves=action.leaves,
        reaches=action.reaches,
        drifts_from=action.drifts_from,
    )


def _objection(runbook: Runbook, diagnosis: Diagnosis, evidence: Evidence, limits: PlanLimits) -> str | None:
    """Why this runbook does not fit the diagnosis; None if it does."""
    best = diagnosis.best
    if best.cause is Cause.UNKNOWN:
        return "no cause reached the required confidence"
    kind = None if evidence.workload is None else evidence.workload.target.ref.kind
    if evidence.batch is not None:
        kind = evidence.batch.ref.kind
    objection = runbook.objection(best.cause, best.confidence, evidence.key, kind)
    if objection is not None:
        return objection
    off = _disabled(runbook, limits)
    if off is not None:
        return f"{off} is not among ENABLED_ACTIONS"
    touching = [
        step.action
        for step in runbook.steps
        if ACTIONS[step.action].kinds and not ACTIONS[step.action].accompanies
    ]
    if touching and _measuring_is_broken(evidence):
        return "telemetry outage: an action could not be verified"
    if touching and _left_by_logs(runbook, evidence):
        return "without the logs, which only hold actions back, another cause would be as likely"
    rival = _rival(runbook, diagnosis)
    if touching and rival is not None:
        return (
            f"{in_words(best.cause)} ({confidence(best.confidence)}) cannot be distinguished from "
            f"{in_words(rival.cause)} ({confidence(rival.confidence)})"
        )
    again = [name for name in touching if name in evidence.failed_actions]
    if again:
        return f"{again[0]} was tried on this incident and did not help"
    return None


def _left_by_logs(runbook: Runbook, evidence: Evidence) -> bool:
    """Whether only what logs say against another cause leaves this one: anyone may write to a log."""
    if credentials_refused(evidence.log_patterns) is None:
        return False
    silent = diagnose(replace(evidence, log_patterns=()))
    return silent.best.cause not in runbook.causes or _rival(runbook, silent) is not None


def _measuring_is_broken(evidence: Evidence) -> bool:
    """Whether there is a telemetry outage; a failed measurement supports no action."""
    outage = evidence.telemetry is not None and evidence.telemetry.outage
    return outage or evidence.unmeasured is not None or Trigger.TELEMETRY_OUTAGE in evidence.triggers


def _rival(runbook: Runbook, diagnosis: Diagnosis) -> Hypothesis | None:
    """A cause about as likely as the best one that this runbook does not handle."""
    for other in diagnosis.hypotheses[1:]:
        near = diagnosis.best.confidence - other.confidence < AMBIGUITY
        if near and other.cause not in runbook.causes and other.cause is not Cause.UNKNOWN:
            return other
    return None


def _resolve(runbook: Runbook, evidence: Evidence, limits: PlanLimits) -> tuple[Action, ...] | Unmet:
    """All steps resolved to actions without duplicates, or the first that cannot be resolved."""
    actions: list[Action] = []
    for step in runbook.steps:
        if ACTIONS[step.action].accompanies and not _enabled(step.action, limits):
            continue
        action = _action(step, evidence, limits)
        if isinstance(action, Unmet):
            return Unmet(reason=f"{step.action.words}: {action.reason}")
        if isinstance(action, Unneeded) or _completes_nothing(step, action, actions, evidence):
            continue
        if any(_aims(action) == _aims(before) for before in actions):
            continue  # it would only run after the same action failed and was undone (promise 10)
        if "when" in step.parameters and action.name not in ENABLED_BY_DEFAULT | limits.optional:
            return Unmet(reason=f"{action.name} is not among ENABLED_ACTIONS")
        if "when" in step.parameters and actions:
            actions[-1] = replace(actions[-1], then_verify=False)
            action = action if _removes(action) else replace(action, undo=_UNDO_OF_COMPLETION)
        elif actions and ACTIONS[actions[-1].name].accompanies:
            actions[-1] = replace(actions[-1], then_verify=False)
        actions.append(action)
    while actions and ACTIONS[actions[-1].name].accompanies:
        actions.pop()  # it accompanies nothing
    return _unfinished(actions, evidence) or tuple(actions)


def _removes(action: Action) -> bool:
    return ACTIONS[action.name].removes


def _completes_nothing(step: Step, action: Action, before: Sequence[Action], evidence: Evidence) -> bool:
    """A pod is deleted only to complete a change of the template: another change needs no new pod."""
    return (
        "when" in step.parameters
        and _removes(action)
        and not any(_sets_template(one, evidence) for one in before[-1:])
    )


def _sets_template(action: Action, evidence: Evidence) -> bool:
    workload = evidence.workload
    same_target = workload is not None and action.target == workload.target.ref
    return same_target and TEMPLATE in ACTIONS[action.name].changes


def _unfinished(actions: Sequence[Action], evidence: Evidence) -> Unmet | None:
    """A change of the template that would not reach a pod, in a runbook without the step that deletes it."""
    change = next((action for action in actions if _sets_template(action, evidence)), None)
    if evidence.workload is None or change is None or any(map(_removes, actions)):
        return None
    reason = held_up(evidence.workload, "the runbook has no step for it")
    return None if reason is None else Unmet(reason=f"{change.name.words}: {reason}")


def _action(step: Step, evidence: Evidence, limits: PlanLimits) -> Action | Unmet | Unneeded:
    spec = ACTIONS[step.action]
    if not spec.in_runbooks:
        return Unmet(reason="not allowed in a runbook")
    resolution = spec.resolve(step.parameters, evidence, limits)
    if isinstance(resolution, Unmet | Unneeded):
        return resolution
    return Action(
        name=spec.name,
        risk=spec.risk,
        target=resolution.target,
        parameters=_sorted(resolution.parameters),
        expected_effect=resolution.expected_effect,
        undo=spec.undo,
        diagnosed_token=_diagnosed_token(resolution.target, evidence),
        leaves=resolution.change.leaves,
        reaches=resolution.change.reaches,
        drifts_from=_drifts_from(spec, evidence),
    )


def _drifts_from(spec: ActionSpec, evidence: Evidence) -> str | None:
    workload = evidence.workload
    return released_by_tool(workload) if spec.drifts and workload is not None else None


def _sorted(
    parameters: Mapping[str, str | int | float | bool | None],
) -> dict[str, str | int | float | bool | None]:
    return {name: parameters[name] for name in sorted(parameters)}


def _diagnosed_token(target: ObjectRef | None, evidence: Evidence) -> str | None:
    """The target's specification token in the evidence; for a ConfigMap only the content hash is known."""
    workload = evidence.workload
    if target is None or workload is None:
        return None
    if target == workload.target.ref:
        return workload.target.token
    if target.kind == POD:
        pod = next((one for one in workload.pods if one.name == target.name and one.uid), None)
        return None if pod is None else object_token(pod.uid, {READY: "false", TERMINATING: "false"})
    return next((c.content_hash for c in workload.config_maps if c.name == target.name), None)

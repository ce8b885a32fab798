"""Restore: the undo of another action, from the snapshot taken right before it. Never in a runbook."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.spec import CONFIG_MAP, ActionSpec, PlanLimits, Resolution, Unmet, no_pods
from app.agent.gitops.steps import carried
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import AUTOSCALER, NODE, ROLLOUT, kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import (
    Action,
    ActionName,
    Evidence,
    Risk,
)


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """A plan never contains it."""
    return Unmet(reason="restore is the undo of an action and never part of a plan")


def restore_of(action: Action) -> Action | None:
    """The undo of `action`, with the same target and risk; None if it has none."""
    if action.undo is None or action.target is None:
        return None
    return Action(
        name=ActionName.RESTORE,
        risk=action.risk,
        target=action.target,
        parameters={"undoes": action.name.value, **carried(action)},
        expected_effect=f"{action.target} has its specification from before the {action.name.words}",
        undo=None,
        leaves=action.reaches,
        reaches=action.leaves,
    )


SPEC = ActionSpec(
    name=ActionName.RESTORE,
    risk=Risk.HIGH,  # the risk of the undone action; the highest if unknown
    parameters=(),
    expected_effect="the object has its specification from before the action",
    undo=None,
    resolve=resolve,
    kinds=kinds_with(TEMPLATE) | {CONFIG_MAP, NODE, AUTOSCALER, ROLLOUT},
    changes=(),  # those of the undone action
    pods_taken=no_pods,  # no guardrail limits an undo
    enabled_by_default=False,
    in_runbooks=False,
)

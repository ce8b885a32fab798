"""Restart: replace every pod, one after another, without changing what they run."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import (
    first_reason,
    owner_refuses,
    rollout_paused,
    rollout_under_way,
)
from app.agent.actions.spec import ActionSpec, PlanLimits, Resolution, Resolved, Unmet
from app.agent.models import ActionName, Evidence, JsonScalar, Risk

_EFFECT = "every pod is replaced in a rolling restart; memory and connections start afresh"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a settled rollout: in the middle of one it would remove the pods that still serve."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT)
    reason = first_reason(owner_refuses(workload), rollout_paused(workload), rollout_under_way(workload))
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(target=workload.target.ref, parameters={}, expected_effect=_EFFECT)


SPEC = ActionSpec(
    name=ActionName.RESTART,
    risk=Risk.MEDIUM,
    parameters=(),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
)

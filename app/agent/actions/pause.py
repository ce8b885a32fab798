"""Pause: stop a rollout so that no more pods are replaced."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, kind_refuses, owner_refuses, would_be_reverted
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    no_pods,
)
from app.agent.guardrails.target_token import PAUSED
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the rollout stops; no more pods are replaced"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a rollout that is not paused yet."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    paused = f"{workload.target.ref} is paused already" if workload.paused else None
    reason = first_reason(
        kind_refuses(workload, PAUSED), owner_refuses(workload), would_be_reverted(workload), paused
    )
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=workload.target.ref,
        parameters={},
        expected_effect=_EFFECT,
        change=StateChange(leaves="going on", reaches="paused"),
    )


SPEC = ActionSpec(
    name=ActionName.PAUSE,
    risk=Risk.LOW,
    parameters=(),
    expected_effect=_EFFECT,
    undo="resume the rollout",
    resolve=resolve,
    kinds=kinds_with(PAUSED),
    changes=(PAUSED,),
    pods_taken=no_pods,
    enabled_by_default=True,
)

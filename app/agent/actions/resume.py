"""Resume: continue a paused rollout."""

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
    rolling_pods,
)
from app.agent.guardrails.target_token import PAUSED
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the paused rollout continues"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a rollout that is paused."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    running = None if workload.paused else f"{workload.target.ref} is not paused"
    reason = first_reason(
        kind_refuses(workload, PAUSED), owner_refuses(workload), would_be_reverted(workload), running
    )
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=workload.target.ref,
        parameters={},
        expected_effect=_EFFECT,
        change=StateChange(leaves="paused", reaches="going on"),
    )


SPEC = ActionSpec(
    name=ActionName.RESUME,
    risk=Risk.LOW,
    parameters=(),
    expected_effect=_EFFECT,
    undo="pause the rollout again",
    resolve=resolve,
    kinds=kinds_with(PAUSED),
    changes=(PAUSED,),
    pods_taken=rolling_pods,
    enabled_by_default=True,
)

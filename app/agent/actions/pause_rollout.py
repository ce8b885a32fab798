"""Pause a Rollout: its update takes no further step."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, owner_refuses, rollout_of, would_be_reverted
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
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the update takes no further step"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a running update of an Argo Rollout that is not paused."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    progress = rollout_of(workload)
    if isinstance(progress, str):
        return Unmet(reason=progress)
    ref, state = workload.target.ref, None
    if progress.stable or progress.aborted:
        state = f"no update of {ref} is under way"
    elif workload.paused:
        state = f"{ref} is paused already"
    reason = first_reason(owner_refuses(workload), would_be_reverted(workload), state)
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=ref,
        parameters={},
        expected_effect=f"the update of {ref} takes no further step",
        change=StateChange(leaves="going on", reaches="paused"),
    )


SPEC = ActionSpec(
    name=ActionName.PAUSE_ROLLOUT,
    risk=Risk.LOW,
    parameters=(),
    expected_effect=_EFFECT,
    undo="let the update go on",
    resolve=resolve,
    kinds=frozenset({ROLLOUT}),
    changes=(PAUSED,),
    pods_taken=no_pods,
    enabled_by_default=False,
)

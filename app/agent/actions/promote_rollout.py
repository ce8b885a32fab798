"""Promote a Rollout: an update that waits at a step continues with the next one."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, owner_refuses, rollout_of
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    PlanLimits,
    Resolution,
    Resolved,
    Unmet,
    rolling_pods,
)
from app.agent.guardrails.target_token import STEP, parts_of
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the update continues with its next step"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs an update of an Argo Rollout that waits at a step and whose analysis did not fail."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    progress = rollout_of(workload)
    if isinstance(progress, str):
        return Unmet(reason=progress)
    ref, state = workload.target.ref, None
    if progress.waits is None or progress.aborted:
        state = f"{ref} waits at no step"
    elif progress.analysis is not None:
        state = f"an analysis of {ref} failed: {progress.analysis}"
    reason = first_reason(owner_refuses(workload), state)
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=ref,
        parameters={},
        expected_effect=f"the update of {ref}, which waits at a step ({progress.waits}), "
        "continues with the next one",
        change=UNNAMED,
    )


def _shows(decided: str | None, now: str) -> bool:
    """It no longer waits where it did."""
    return parts_of(now).get(STEP) != parts_of(decided or "").get(STEP)


SPEC = ActionSpec(
    name=ActionName.PROMOTE_ROLLOUT,
    risk=Risk.HIGH,
    parameters=(),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
    kinds=frozenset({ROLLOUT}),
    changes=(STEP,),
    pods_taken=rolling_pods,
    enabled_by_default=False,
    effect_shows=_shows,
    no_undo_note="The {name} of {target} cannot be undone: abort the update instead.",
)

"""Retry a Rollout: an aborted update begins again."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, owner_refuses, rollout_of
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
from app.agent.guardrails.target_token import ABORTED, ABORTED_AT, parts_of
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the aborted update begins again"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs an aborted update of an Argo Rollout."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    progress = rollout_of(workload)
    if isinstance(progress, str):
        return Unmet(reason=progress)
    ref, state = workload.target.ref, None
    if not progress.aborted:
        state = f"the update of {ref} is not aborted"
    reason = first_reason(owner_refuses(workload), state)
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=ref,
        parameters={},
        expected_effect=f"the aborted update of {ref} begins again",
        change=StateChange(leaves="aborted", reaches="updating"),
    )


def _shows(decided: str | None, now: str) -> bool:  # noqa: ARG001 - every check has the same signature
    """The status says so, no matter who retried it."""
    return parts_of(now).get(ABORTED) == "false"


SPEC = ActionSpec(
    name=ActionName.RETRY_ROLLOUT,
    risk=Risk.HIGH,
    parameters=(),
    expected_effect=_EFFECT,
    undo="abort the update again",
    resolve=resolve,
    kinds=frozenset({ROLLOUT}),
    changes=(ABORTED,),
    based_on=(ABORTED_AT,),
    pods_taken=rolling_pods,
    enabled_by_default=False,
    effect_shows=_shows,
)

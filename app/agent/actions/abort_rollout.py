"""Abort a Rollout: its controller goes back to the stable release; its specification stays."""

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
    no_pods,
)
from app.agent.guardrails.target_token import ABORTED, parts_of
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the controller goes back to the stable release; the specification keeps the new one"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a running update of an Argo Rollout that is not aborted.

    A GitOps controller does not treat a change of the status as drift.
    """
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    progress = rollout_of(workload)
    if isinstance(progress, str):
        return Unmet(reason=progress)
    ref, state = workload.target.ref, None
    if progress.stable:
        state = f"no update of {ref} is under way"
    elif progress.aborted:
        state = f"the update of {ref} is aborted already"
    reason = first_reason(owner_refuses(workload), state)
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=ref,
        parameters={},
        expected_effect=f"the controller of {ref} goes back to the stable release; "
        "its specification keeps the new one",
        change=StateChange(leaves="updating", reaches="aborted"),
    )


def _shows(decided: str | None, now: str) -> bool:  # noqa: ARG001 - every check has the same signature
    """The status says so, no matter who aborted it."""
    return parts_of(now).get(ABORTED) == "true"


SPEC = ActionSpec(
    name=ActionName.ABORT_ROLLOUT,
    risk=Risk.MEDIUM,
    parameters=(),
    expected_effect=_EFFECT,
    undo="retry the update",
    resolve=resolve,
    kinds=frozenset({ROLLOUT}),
    changes=(ABORTED,),
    pods_taken=no_pods,
    enabled_by_default=False,
    effect_shows=_shows,
)

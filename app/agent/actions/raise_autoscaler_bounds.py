"""Raise autoscaler bounds: an autoscaler that is at its maximum may add more replicas."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import (
    first_reason,
    owner_refuses,
    pods_cannot_start,
    would_be_reverted,
)
from app.agent.actions.spec import (
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    no_pods,
)
from app.agent.guardrails.target_token import MAXIMUM
from app.agent.guardrails.workload_kinds import AUTOSCALER
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import AutoscalerView, WorkloadView

_EFFECT = "the autoscaler may add more replicas"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """`by` becomes `maximum`, at most SCALE_MAX_REPLICAS; needs one autoscaler at its maximum."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(
        owner_refuses(workload), would_be_reverted(workload), pods_cannot_start(workload, evidence)
    )
    if reason is not None:
        return Unmet(reason=reason)
    scaler = _at_its_maximum(workload)
    if isinstance(scaler, Unmet):
        return scaler
    now, by = scaler.maximum or 0, parameters.get("by")
    wanted = min(limits.scale_max, now + (by if isinstance(by, int) else 0))
    if wanted <= now:
        return Unmet(
            reason=f"{scaler} sets up to {now} replicas, and SCALE_MAX_REPLICAS={limits.scale_max} "
            "allows no more"
        )
    return Resolved(
        target=workload.target.ref.beside(AUTOSCALER, scaler.name),
        parameters={"maximum": wanted},
        expected_effect=f"{scaler} may set up to {wanted} replicas instead of {now}",
        change=StateChange(leaves=f"maximum {now}", reaches=f"maximum {wanted}"),
    )


def _at_its_maximum(workload: WorkloadView) -> AutoscalerView | Unmet:
    setting = [one for one in workload.autoscalers if one.sets_replicas]
    if not setting:
        return Unmet(reason=f"no autoscaler sets the replicas of {workload.target.ref}")
    if len(setting) > 1:
        names = ", ".join(str(one) for one in setting)
        return Unmet(reason=f"several autoscalers set the replicas ({names}): a person must choose")
    [scaler] = setting
    if scaler.kind != AUTOSCALER:
        return Unmet(reason=f"{scaler} sets the replicas: change it where it is defined")
    if not scaler.at_maximum:
        return Unmet(reason=f"{scaler} is not at its maximum of {scaler.maximum} replicas")
    return scaler


SPEC = ActionSpec(
    name=ActionName.RAISE_AUTOSCALER_BOUNDS,
    risk=Risk.MEDIUM,
    parameters=(Parameter(name="by", meaning="Replicas to add to its maximum.", minimum=1, maximum=50),),
    expected_effect=_EFFECT,
    undo="restore the previous maximum",
    resolve=resolve,
    kinds=frozenset({AUTOSCALER}),
    changes=(MAXIMUM,),
    pods_taken=no_pods,
    enabled_by_default=False,
    drifts=True,
)

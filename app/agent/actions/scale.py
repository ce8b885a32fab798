"""Scale: more (or a set number of) replicas, within the bounds of the settings."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import (
    first_reason,
    kind_refuses,
    owner_refuses,
    pods_cannot_start,
    replicas_held,
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
)
from app.agent.evidence.cluster.reduction import Reduction, reduction_of
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.target_token import REPLICAS
from app.agent.guardrails.workload_kinds import STATEFUL_SET, kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import Action, ActionName, Evidence, Risk
from app.agent.workload import WorkloadView

_EFFECT = "the number of replicas changes"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """`by` (added to the desired replicas), `to` or `restore` becomes `replicas`."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(
        kind_refuses(workload, REPLICAS),
        owner_refuses(workload),
        would_be_reverted(workload),
        replicas_held(workload),
        pods_cannot_start(workload, evidence),
    )
    if reason is not None:
        return Unmet(reason=reason)
    wanted = _wanted(parameters, workload, reduction_of(evidence), limits)
    if isinstance(wanted, Unmet):
        return wanted
    reason = _data_refuses(workload, wanted)
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=workload.target.ref,
        parameters={"replicas": wanted},
        expected_effect=f"{wanted} replicas share the load instead of {workload.desired_replicas}",
        change=StateChange(leaves=f"replicas {workload.desired_replicas}", reaches=f"replicas {wanted}"),
    )


def _wanted(
    parameters: Mapping[str, JsonScalar],
    workload: WorkloadView,
    reduced: Reduction | None,
    limits: PlanLimits,
) -> int | Unmet:
    now = workload.desired_replicas
    bounds = f"{limits.scale_min}..{limits.scale_max}"
    by, to = parameters.get("by"), parameters.get("to")
    if parameters.get("restore") is not None:
        if reduced is None:
            return Unmet(reason=f"no change took replicas of {workload.target.ref} away")
        wanted = min(reduced.before, limits.scale_max)
    elif isinstance(by, int):
        wanted = min(now + by, limits.scale_max)
    elif isinstance(to, int):
        wanted = to
    else:
        return Unmet(reason="scale needs `by`, `to` or `restore`")
    if now == 0:
        return Unmet(reason=f"{workload.target.ref} is scaled to zero")
    if to is None and wanted <= now:
        return Unmet(
            reason=f"{workload.target.ref} has {now} replicas, the most that the bounds {bounds} allow"
        )
    if wanted == now:
        return Unmet(reason=f"{workload.target.ref} has {now} replicas already")
    if not limits.scale_min <= wanted <= limits.scale_max:
        return Unmet(reason=f"{wanted} replicas are outside the bounds {bounds}")
    return wanted


def _data_refuses(workload: WorkloadView, wanted: int) -> str | None:
    """Each replica of a StatefulSet has its own data: none is removed, and an undo could not delete one."""
    ref = workload.target.ref
    if ref.kind != STATEFUL_SET:
        return None
    if wanted < workload.desired_replicas:
        return f"{ref} keeps data in each replica: a person must decide which one may go"
    if workload.claims_deleted:
        return f"{ref} deletes the PersistentVolumeClaim of a removed replica: an undo would delete data"
    return None


def pods_taken(action: Action, disruption: Disruption) -> int:
    """The replicas removed, where fewer are wanted."""
    wanted = action.parameters.get("replicas")
    return max(0, disruption.replicas - wanted) if isinstance(wanted, int) else 0


SPEC = ActionSpec(
    name=ActionName.SCALE,
    risk=Risk.MEDIUM,
    parameters=(
        Parameter(name="by", meaning="Replicas to add.", minimum=1, maximum=50, required=False),
        Parameter(name="to", meaning="Replicas to have.", minimum=1, maximum=1000, required=False),
        Parameter(
            name="restore",
            meaning="The number of replicas that the workload had before someone took replicas away.",
            choices=("count_before_reduction",),
            required=False,
        ),
    ),
    exactly_one_parameter=True,
    expected_effect=_EFFECT,
    undo="restore the previous number of replicas",
    resolve=resolve,
    kinds=kinds_with(REPLICAS),
    changes=(REPLICAS,),
    pods_taken=pods_taken,
    enabled_by_default=True,
    drifts=True,
)

"""Restart: replace every pod, one after another, without changing the template."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions import revert_config
from app.agent.actions.preconditions import (
    first_reason,
    kind_refuses,
    owner_refuses,
    owner_rolls_out,
    rollout_paused,
    rollout_under_way,
)
from app.agent.actions.spec import (
    CONFIG_MAP,
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    Unmet,
    Unneeded,
    rolling_pods,
)
from app.agent.evidence.pods import failing_node
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_CONFIG_READ_AT_START = "config_read_at_start"
_ON_FAILING_NODE = "pods_on_failing_node"
_EFFECT = "every pod is replaced in a rolling restart; memory and connections are reset"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """Needs a complete rollout: during one, a restart would remove pods that still serve.

    With `when: config_read_at_start` it runs only if running pods must read the
    ConfigMap that the previous step restored, with `when: pods_on_failing_node` only if
    all failing pods are on one node, which the previous step cordoned.
    """
    workload = evidence.workload
    if parameters.get("when") == _ON_FAILING_NODE and (
        workload is None or failing_node(workload.pods, evidence) is None
    ):
        return Unneeded()
    if parameters.get("when") == _CONFIG_READ_AT_START and not _reads_reverted_config(evidence, limits):
        return Unneeded()
    if workload is None:
        return Resolved(target=None, parameters={}, expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(
        kind_refuses(workload, TEMPLATE),
        owner_refuses(workload),
        owner_rolls_out(workload),
        rollout_paused(workload),
        rollout_under_way(workload),
    )
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(target=workload.target.ref, parameters={}, expected_effect=_EFFECT, change=UNNAMED)


def _reads_reverted_config(evidence: Evidence, limits: PlanLimits) -> bool:
    """Whether running pods would not read the reverted content; crashing pods read it on restart."""
    workload = evidence.workload
    if workload is None or rollout_under_way(workload) is not None:
        return False
    reverted = revert_config.resolve({"to": "last_served_well"}, evidence, limits)
    if not isinstance(reverted, Resolved) or reverted.target is None or reverted.target.kind != CONFIG_MAP:
        return False
    return any(c.read_at_start for c in workload.config_maps if c.name == reverted.target.name)


SPEC = ActionSpec(
    name=ActionName.RESTART,
    risk=Risk.MEDIUM,
    parameters=(
        Parameter(
            name="when",
            meaning="config_read_at_start: only if running pods would not see the ConfigMap put back before; "
            "pods_on_failing_node: only if all failing pods are on the node cordoned before",
            choices=(_CONFIG_READ_AT_START, _ON_FAILING_NODE),
            required=False,
        ),
    ),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
    kinds=kinds_with(TEMPLATE),
    changes=(TEMPLATE,),
    pods_taken=rolling_pods,
    enabled_by_default=True,
    undo_note="Replacing the pods of {target} again, so that they read the restored configuration.",
    no_undo_note="The {name} of {target} cannot be undone: the replaced pods are gone.",
)

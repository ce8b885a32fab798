"""Revert configuration: restore the last version that served well, without changing the code.

Either the content of one ConfigMap, or the configuration inside the pod
template (environment, resources, references), whichever changed last.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from app.agent.actions.preconditions import (
    first_reason,
    held_up_for_good,
    kind_lacks,
    owner_refuses,
    rollout_paused,
    would_be_reverted,
)
from app.agent.actions.spec import (
    CONFIG_MAP,
    UNNAMED,
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    rolling_pods,
    template_change,
)
from app.agent.evidence.facts import (
    LOOKBACK,
    ConfigMapChange,
    changed_fields,
    config_map_changes,
    current_revision,
    differs_in_marks,
    in_force_since,
    moved_digests,
    older_versions,
    served,
)
from app.agent.guardrails.target_token import TEMPLATE
from app.agent.guardrails.workload_kinds import kinds_with
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk
from app.agent.workload import Revision, WorkloadView

_EFFECT = "the last known-good configuration is restored; the code is unchanged"

_TOGETHER = timedelta(minutes=1)
"""Two ConfigMaps changed within this time may belong together; reverting one could make it worse."""


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """`to: last_served_well` becomes `content_hash` of a ConfigMap, or `revision` of a template."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(owner_refuses(workload), would_be_reverted(workload))
    if reason is not None:
        return Unmet(reason=reason)
    maps = [c for c in config_map_changes(evidence) if c.at >= evidence.opened_at - LOOKBACK]
    changed_template, marked = _template_change(workload, evidence)
    since = in_force_since(workload)
    if maps and (changed_template is None or since is None or maps[0].at >= since):
        return _config_map(maps, workload)
    if changed_template is not None:
        return _template(changed_template, workload, limits)
    if marked is not None:
        return Unmet(reason=_same_again(marked, workload))
    return Unmet(
        reason="no configuration is known that served well with this code and differs from the present one"
    )


def _config_map(maps: list[ConfigMapChange], workload: WorkloadView) -> Resolution:
    newest = maps[0]
    if len(maps) > 1 and newest.at - maps[1].at <= _TOGETHER:
        names = ", ".join(sorted(c.view.name for c in maps if newest.at - c.at <= _TOGETHER))
        return Unmet(reason=f"several ConfigMaps changed together ({names}): a person must choose")
    if newest.last_good is None:
        return Unmet(
            reason=f"no earlier content of ConfigMap {newest.view.name} is known to have served well"
        )
    ref = workload.target.ref.beside(CONFIG_MAP, newest.view.name)
    return Resolved(
        target=ref,
        parameters={"content_hash": newest.last_good.content_hash},
        expected_effect=f"{ref} has its last known-good content again",
        change=StateChange(
            leaves=f"content {newest.view.content_hash}", reaches=f"content {newest.last_good.content_hash}"
        ),
    )


def _template_change(workload: WorkloadView, evidence: Evidence) -> tuple[Revision | None, Revision | None]:
    """The newest older template with the same code, another configuration, and a record of working.

    The second value is the newest older template that differs only in annotations that nothing in the
    cluster reads. It is skipped: its pods would run the same images with the same configuration.
    """
    current = current_revision(workload)
    if current is None:
        return None, None
    marked: Revision | None = None
    for revision in older_versions(workload):
        same_code = revision.code_hash == current.code_hash
        if same_code and revision.config_hash != current.config_hash and served(evidence, revision):
            if not differs_in_marks(revision, current):
                return revision, marked
            marked = marked or revision
    return None, marked


def _same_again(revision: Revision, workload: WorkloadView) -> str:
    """Why a revert to the revision would not change the running code or configuration."""
    current = current_revision(workload)
    fields = () if current is None else changed_fields(revision, current)
    digests = None if current is None else moved_digests(revision, current, workload)
    reason = (
        f"revision {revision.number} differs only in {', '.join(fields)}: a revert would run the same images "
        f"({', '.join(revision.images)}) with the same configuration again"
    )
    if digests is not None:
        reason += f". The digests that ran differ: {digests[0]} before, {digests[1]} now. The tag was moved"
    return reason


def _template(revision: Revision, workload: WorkloadView, limits: PlanLimits) -> Resolution:
    reason = first_reason(
        kind_lacks(workload, TEMPLATE), held_up_for_good(workload, limits), rollout_paused(workload)
    )
    if reason is not None:
        return Unmet(reason=reason)
    return Resolved(
        target=workload.target.ref,
        parameters={"revision": revision.number},
        expected_effect=f"the configuration of revision {revision.number} is restored, "
        f"with the same code as revision {workload.current_revision}",
        change=template_change(workload, revision),
    )


SPEC = ActionSpec(
    name=ActionName.REVERT_CONFIG,
    risk=Risk.HIGH,
    parameters=(
        Parameter(
            name="to",
            meaning="last_served_well: the newest other configuration that served well and never failed",
            choices=("last_served_well",),
        ),
    ),
    expected_effect=_EFFECT,
    undo="restore the configuration from before the revert",
    resolve=resolve,
    kinds=kinds_with(TEMPLATE) | {CONFIG_MAP},
    changes=(TEMPLATE,),
    pods_taken=rolling_pods,
    enabled_by_default=True,
    drifts=True,
)

"""Disable a feature flag: the one flag whose change is the diagnosed cause has its previous value again."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.preconditions import first_reason, owner_refuses, would_be_reverted
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
    no_pods,
)
from app.agent.evidence.cluster.flags import DEFAULT_VARIANT, DISABLED, STATE, FlagChange, changed_flags
from app.agent.evidence.facts import LOOKBACK, ConfigMapChange, config_map_changes
from app.agent.guardrails.target_token import DATA
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "the feature flag that changed has its previous value again, or is disabled"

KEY, FLAG, FIELD, VALUE = "key", "flag", "field", "value"
"""The parameters of a resolved action: the entry of the ConfigMap, the flag, its field and the new value."""


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs exactly one flag, and no other field, to differ from the last content that served well."""
    workload = evidence.workload
    if workload is None:
        return Resolved(target=None, parameters=dict(parameters), expected_effect=_EFFECT, change=UNNAMED)
    reason = first_reason(owner_refuses(workload), would_be_reverted(workload))
    if reason is not None:
        return Unmet(reason=reason)
    recent = [c for c in config_map_changes(evidence) if c.at >= evidence.opened_at - LOOKBACK]
    if not recent:
        return Unmet(reason="no ConfigMap of the service changed around that time")
    changed = _changed(recent[0], evidence)
    if isinstance(changed, Unmet):
        return changed
    field, value = _wanted(changed, parameters)
    now = (changed.now or {}).get(field)
    if now == value:
        return Unmet(reason=f"{field} of flag {changed.place.name} is {value} already")
    name, flag = recent[0].view.name, changed.place.name
    return Resolved(
        target=workload.target.ref.beside(CONFIG_MAP, name),
        parameters={KEY: changed.place.key, FLAG: flag, FIELD: field, VALUE: value},
        expected_effect=f"{field} of flag {flag} in ConfigMap {name} is {value} instead of {now}",
        change=StateChange(
            leaves=f"flag {flag} {field} {now}",
            reaches=f"flag {flag} {field} {value}",
        ),
    )


def _changed(change: ConfigMapChange, evidence: Evidence) -> FlagChange | Unmet:
    """The one flag of the ConfigMap that changed last."""
    name = change.view.name
    present = next(
        (
            one
            for one in evidence.flag_contents
            if one.name == name and one.content_hash == change.view.content_hash
        ),
        None,
    )
    if change.last_good is None:
        return Unmet(reason=f"no earlier content of ConfigMap {name} is known to have served well")
    if present is None:
        return Unmet(reason=f"ConfigMap {name} holds no feature flags, or changed again")
    flags = changed_flags(change.last_good.data, present.data)
    if flags is None:
        return Unmet(reason=f"not only feature flags changed in ConfigMap {name}")
    if len(flags) != 1:
        names = ", ".join(one.place.name for one in flags) or "none"
        return Unmet(reason=f"exactly one flag must have changed in ConfigMap {name}; changed: {names}")
    if flags[0].now is None:
        return Unmet(reason=f"flag {flags[0].place.name} was removed from ConfigMap {name}")
    return flags[0]


def _wanted(change: FlagChange, parameters: Mapping[str, JsonScalar]) -> tuple[str, str]:
    """The field to set and its value: the previous value if only it changed, else disable the flag."""
    if parameters.get("to") == "previous" and change.before is not None:
        for field in (DEFAULT_VARIANT, STATE):
            earlier = change.before.get(field)
            if change.fields == {field} and isinstance(earlier, str):
                return field, earlier
    return STATE, DISABLED


SPEC = ActionSpec(
    name=ActionName.DISABLE_FLAG,
    risk=Risk.MEDIUM,
    parameters=(
        Parameter(
            name="to",
            meaning="previous: the value before the change where only state or defaultVariant changed, "
            "else disabled; disabled: the flag is disabled",
            choices=("previous", "disabled"),
        ),
    ),
    expected_effect=_EFFECT,
    undo="restore the content of the ConfigMap",
    resolve=resolve,
    kinds=frozenset({CONFIG_MAP}),
    changes=(DATA,),
    pods_taken=no_pods,
    enabled_by_default=False,
    drifts=True,
)

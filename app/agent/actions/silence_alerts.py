"""Silence the alerts of the service until the incident ends, while the next step of the runbook heals it."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.spec import (
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unneeded,
    no_pods,
)
from app.agent.guardrails.limits import NAMESPACE
from app.agent.guardrails.target_token import SILENCED
from app.agent.guardrails.workload_kinds import SILENCE
from app.agent.ids import JsonScalar, ServiceKey
from app.agent.models import ActionName, Alert, Evidence, Risk
from app.agent.workload import ObjectRef

MINUTES = "minutes"
"""The parameter with the length of the silence."""
INCIDENT = "incident"
"""The parameter with the id of the incident, for the comment of the silence."""

_SHORTEST, _LONGEST = 5, 120
_EFFECT = "alerts of the service are silenced until the incident ends, for a bounded time"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:
    """Unneeded without a monitoring, for an incident that no alert reported, and after its first silence."""
    workload = evidence.workload
    incident_id = evidence.incident_id
    if not limits.silences or workload is None or incident_id is None:
        return Unneeded()
    if evidence.silenced or not _alerted(evidence):
        return Unneeded()
    minutes = parameters[MINUTES]
    return Resolved(
        target=silence_of(evidence.key, workload.target.ref.cluster),
        parameters={
            MINUTES: minutes,
            INCIDENT: incident_id,
            NAMESPACE: workload.target.ref.namespace,
        },
        expected_effect=f"alerts of {evidence.key} are silenced until the incident ends, "
        f"for at most {minutes} minutes",
        change=StateChange(leaves="alerts notify", reaches="alerts silenced"),
    )


def silence_of(key: ServiceKey, cluster: str = "") -> ObjectRef:
    """The agent's own silences of a service, as the target of an action."""
    return ObjectRef(kind=SILENCE, namespace=key.environment, name=key.service, cluster=cluster)


def silenced_service(ref: ObjectRef) -> ServiceKey:
    """The service of the target's silences."""
    return ServiceKey(environment=ref.namespace, service=ref.name)


def _alerted(evidence: Evidence) -> bool:
    return any(
        isinstance(one.payload, Alert) and one.payload.firing and one.payload.labels is not None
        for one in evidence.signals
    )


SPEC = ActionSpec(
    name=ActionName.SILENCE_ALERTS,
    risk=Risk.MEDIUM,
    parameters=(
        Parameter(
            name=MINUTES,
            meaning="after how many minutes the silence ends by itself",
            minimum=_SHORTEST,
            maximum=_LONGEST,
        ),
    ),
    expected_effect=_EFFECT,
    undo=None,  # it ends with the incident, and by itself
    no_undo_note="{name} of {target} ends with the incident, and by itself.",
    resolve=resolve,
    kinds=frozenset({SILENCE}),
    changes=(SILENCED,),
    pods_taken=no_pods,
    enabled_by_default=False,
    accompanies=True,
)

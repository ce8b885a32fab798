"""Content hashes of states and of evidence, which identify them across incidents.

Pure. An object's token changes with every write, but its content can recur. The
planner records the state that each action leaves and reaches, the diagnosis its
evidence; `app.agent.guardrails.limits` compares both with earlier actions (promise 10).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.evidence.facts import current_revision
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Cause, Evidence
from app.agent.workload import ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The state change of an action: from which state to which; None where states have no hash."""

    leaves: str | None = None
    reaches: str | None = None


def state_change_of(
    name: ActionName, target: ObjectRef | None, parameters: Mapping[str, JsonScalar], evidence: Evidence
) -> StateChange:
    """The state change of an action with resolved parameters; empty for a restart."""
    workload = evidence.workload
    if workload is None or target is None:
        return StateChange()
    match name:
        case ActionName.SCALE:
            wanted = parameters.get("replicas")
            return StateChange(leaves=f"replicas {workload.desired_replicas}", reaches=f"replicas {wanted}")
        case ActionName.PAUSE:
            return StateChange(leaves="going on", reaches="paused")
        case ActionName.RESUME:
            return StateChange(leaves="paused", reaches="going on")
        case ActionName.ROLLBACK | ActionName.REVERT_CONFIG if "revision" in parameters:
            current = current_revision(workload)
            wanted_one = next((r for r in workload.revisions if r.number == parameters["revision"]), None)
            if current is None or wanted_one is None:
                return StateChange()
            return StateChange(
                leaves=f"template {current.template_hash}", reaches=f"template {wanted_one.template_hash}"
            )
        case ActionName.REVERT_CONFIG:
            held = next((c.content_hash for c in workload.config_maps if c.name == target.name), None)
            reached = parameters.get("content_hash")
            if held is None or reached is None:
                return StateChange()
            return StateChange(leaves=f"content {held}", reaches=f"content {reached}")
        case _:
            return StateChange()


def fingerprint_of(evidence: Evidence, cause: Cause) -> str:
    """SHA-256 of service, cause, symptoms and running state: equal for the same evidence.

    Times, measured values and pod names are excluded because they never recur.
    """
    workload = evidence.workload
    current = current_revision(workload) if workload is not None else None
    content = {
        "service": [evidence.key.environment, evidence.key.service],
        "cause": cause,
        "conditions": sorted(evidence.conditions),
        "template": current.template_hash if current is not None else None,
        "replicas": workload.desired_replicas if workload is not None else None,
        "config_maps": sorted([c.name, c.content_hash] for c in workload.config_maps) if workload else [],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

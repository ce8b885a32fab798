"""The closed set of actions, one file each; a runbook can use no other.

Each file holds what the operation is (`ActionSpec`) and how a runbook's
symbolic parameters become concrete on given evidence. Everything is pure: the
connectors carry actions out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from app.agent.actions import notify, pause, restart, restore, resume, revert_config, rollback, scale
from app.agent.actions.restore import restore_of
from app.agent.actions.spec import ActionSpec, Parameter, PlanLimits, Resolution, Resolved, Unmet, Unneeded
from app.agent.models import ActionName

__all__ = [
    "ACTIONS",
    "ActionSpec",
    "Parameter",
    "PlanLimits",
    "Resolution",
    "Resolved",
    "Unmet",
    "Unneeded",
    "restore_of",
]

ACTIONS: Mapping[ActionName, ActionSpec] = MappingProxyType(
    {
        module.SPEC.name: module.SPEC
        for module in (restart, rollback, revert_config, scale, pause, resume, notify, restore)
    }
)

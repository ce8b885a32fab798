"""The closed set of actions, one file each; a runbook can use no other.

Each file holds everything about its action as `SPEC`: its parameters and how they
become concrete on given evidence, the objects and the parts of them that it changes,
the state change, the pods that it makes unavailable, its undo, and whether it is
enabled by default. A name in `ActionName` registers the file of that name. Everything
is pure: the connectors carry actions out.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from app.agent.actions.spec import (
    ActionSpec,
    Parameter,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    Unneeded,
)
from app.agent.models import ActionName

__all__ = [
    "ACTIONS",
    "ENABLED_BY_DEFAULT",
    "ActionSpec",
    "Parameter",
    "PlanLimits",
    "Resolution",
    "Resolved",
    "StateChange",
    "Unmet",
    "Unneeded",
]


def _spec(name: ActionName) -> ActionSpec:
    spec: ActionSpec = import_module(f"{__name__}.{name}").SPEC
    return spec


ACTIONS: Mapping[ActionName, ActionSpec] = MappingProxyType({name: _spec(name) for name in ActionName})

ENABLED_BY_DEFAULT = frozenset(name for name, spec in ACTIONS.items() if spec.enabled_by_default)
"""The default of ENABLED_ACTIONS."""

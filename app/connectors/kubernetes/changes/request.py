"""What every change of an object is made from, and the operations of a JSON patch. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from app.agent.ids import IntentId, Json, JsonObject
from app.agent.models import Action, Snapshot
from app.agent.workload import ObjectRef
from app.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequest:
    """An action on an object as it is now, with what its change needs."""

    action: Action
    ref: ObjectRef
    intent_id: IntentId
    current: JsonObject
    revision: JsonObject | None
    """What keeps the revision of `revision_wanted`; None when the workload keeps none of that number."""
    snapshot: Snapshot | None


Change: TypeAlias = Callable[[ChangeRequest], list[JsonObject]]


def body_of(request: ChangeRequest) -> JsonObject:
    """What the object asked for before, from the snapshot of exactly this object."""
    action, ref, snapshot = request.action, request.ref, request.snapshot
    if snapshot is None:
        raise Invalid(f"{action.name} of {ref} needs a snapshot")
    if snapshot.ref != ref:
        raise Invalid(f"{action.name}: the snapshot is of {snapshot.ref}, not of {ref}")
    return snapshot.body


def integer(action: Action, parameter: str) -> int:
    """A parameter that is a whole number."""
    value = action.parameters.get(parameter)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"{action.name}: parameter {parameter} must be a whole number, not {value!r}")
    return value


def put(path: str, value: Json) -> JsonObject:
    """Set a field, whether it is there or not."""
    return {"op": "add", "path": path, "value": value}


def remove(path: str) -> JsonObject:
    """Remove a field that is there."""
    return {"op": "remove", "path": path}


def escaped(name: str) -> str:
    """A name as one part of a path."""
    return name.replace("~", "~0").replace("/", "~1")

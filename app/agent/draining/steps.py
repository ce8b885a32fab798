"""The steps of a drain, as the timeline records them. Pure.

The cordon is recorded as begun before its effect and as done after it. An eviction is
recorded once, before it is sent for the first time: it is bound to the uid of its pod, so
that a repeat has no further effect (promise 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.guardrails.drains import NodePod
from app.agent.ids import IntentId, JsonObject
from app.agent.models import IncidentRecord, Intent, Note, Stage

_STEP, _UID, _TOKEN = "drain_step", "uid", "token"


class DrainStep(StrEnum):
    """In their order."""

    CORDON = "cordon"
    CORDONED = "cordoned"
    EVICT = "evict"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProgress:
    """How far a drain has come."""

    cordons: int = 0
    """How often the cordon was begun."""
    token: str | None = None
    """The state that the cordon left the node in; None before it is done."""
    began_at: datetime | None = None
    """When the cordon was begun first."""
    evictions: frozenset[str] = frozenset()
    """The uids of the pods of which an eviction was begun."""


def drain_progress(record: IncidentRecord, intent_id: IntentId) -> DrainProgress:
    """How far an intent has come, from the timeline."""
    cordons, token, began_at, evictions = 0, None, None, set()
    for entry in record.timeline:
        if entry.data.get("intent") != intent_id:
            continue
        match entry.data.get(_STEP):
            case DrainStep.CORDON:
                cordons += 1
                began_at = began_at or entry.at
            case DrainStep.CORDONED:
                token = str(entry.data.get(_TOKEN))
            case DrainStep.EVICT:
                evictions.add(str(entry.data.get(_UID)))
    return DrainProgress(cordons=cordons, token=token, began_at=began_at, evictions=frozenset(evictions))


def cordon_begun(intent: Intent, at: datetime) -> Note:
    """Before the cordon is sent."""
    return _note(intent, f"Cordoning {intent.action.target}.", at, {_STEP: DrainStep.CORDON})


def cordon_done(intent: Intent, token: str, at: datetime) -> Note:
    """After the cordon is seen."""
    data: JsonObject = {_STEP: DrainStep.CORDONED, _TOKEN: token}
    return _note(intent, f"{intent.action.target} is cordoned.", at, data)


def eviction_begun(intent: Intent, pod: NodePod, at: datetime) -> Note:
    """Before an eviction is sent for the first time."""
    data: JsonObject = {_STEP: DrainStep.EVICT, "pod": str(pod.ref), _UID: pod.uid}
    return _note(intent, f"Evicting {pod.ref} from {intent.action.target}.", at, data)


def _note(intent: Intent, message: str, at: datetime, data: JsonObject) -> Note:
    return Note(at=at, stage=Stage.EXECUTE, message=message, data={"intent": intent.id, **data})

"""The record of an incident: its entries, and everything that was stored about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.agent.ids import JsonObject
from app.agent.models.decisions import Approval
from app.agent.models.incidents import Incident
from app.agent.models.intents import Intent


class Stage(StrEnum):
    OBSERVE = "observe"
    DIAGNOSE = "diagnose"
    PLAN = "plan"
    POLICY = "policy"
    EXECUTE = "execute"
    VERIFY = "verify"
    UNDO = "undo"
    LEARN = "learn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A timeline entry to be: the store adds sequence and hash."""

    at: datetime
    stage: Stage
    message: str
    data: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line of an incident's tamper-evident record (promise 12)."""

    sequence: int
    at: datetime
    stage: Stage
    message: str
    data: JsonObject
    hash: str
    """SHA-256 over the previous entry's hash and this entry's canonical form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRecord:
    """An incident with everything that was recorded about it."""

    incident: Incident
    intents: tuple[Intent, ...]
    timeline: tuple[TimelineEntry, ...]
    approvals: tuple[Approval, ...] = ()
    """Every approval asked for, oldest first."""
    timeline_length: int | None = None
    """The number of written entries, stored separately from the timeline; None if it was not read."""
    timeline_head: str | None = None
    """The hash of the last entry that was written, likewise."""

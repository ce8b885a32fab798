"""Requests of people about an incident, apart from answers to approvals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.identity.people import Person


class ResponderAct(StrEnum):
    """The operations of a person on an incident, except answering approvals."""

    ACKNOWLEDGE = "acknowledge"
    ASSIGN = "assign"
    NOTE = "note"
    TAKE_OVER = "take-over"
    HAND_BACK = "hand-back"
    RESOLVE = "resolve"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderRequest:
    """One act of one person."""

    act: ResponderAct
    by: Person
    at: datetime
    text: str = ""
    """The note, or the reason; may be empty except for a note and for resolving."""
    owner: str | None = None
    """For ASSIGN: the new owner; None removes the owner."""

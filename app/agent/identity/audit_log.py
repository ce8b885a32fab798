"""The audit trail of people: their decisions, chained so that a changed entry is detected (promise 12).

The store appends an entry in the transaction of the decision itself. As in a
timeline, each entry's hash covers the one before it; a holder of an exported
trail can check it with `first_broken`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from app import hash_chain
from app.agent.identity.people import Door, Person
from app.agent.ids import JsonObject

START = hash_chain.start_of("the audit trail of people")
"""The hash before the first entry."""


class HumanDecisionKind(StrEnum):
    """The kind of decision of a person."""

    APPROVED = "approval_approved"
    DENIED = "approval_denied"
    BRAKE_ENGAGED = "kill_switch_engaged"
    BRAKE_RELEASED = "kill_switch_released"
    CIRCUIT_CLOSED = "circuit_closed"
    PASS_REQUESTED = "pass_requested"  # noqa: S105 - a pass of the loop
    TOKEN_CREATED = "token_created"  # noqa: S105 - a kind of decision
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - as above
    ACKNOWLEDGED = "incident_acknowledged"
    ASSIGNED = "incident_assigned"
    NOTED = "incident_note_added"
    TAKEN_OVER = "incident_taken_over"
    HANDED_BACK = "incident_handed_back"
    RESOLVED = "incident_resolved_by_hand"
    UNDO_REQUESTED = "incident_undo_requested"
    SIGNED_ON = "signed_on"
    SIGNED_OFF = "signed_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanDecision:
    """One decision of one person, before it is on record."""

    at: datetime
    by: Person
    kind: HumanDecisionKind
    subject: str
    """The subject: the id of an approval or token, a service, or empty."""
    data: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLogEntry:
    """One decision on record."""

    sequence: int
    """0, 1, ... without a gap."""
    at: datetime
    by: str
    door: Door
    verified: bool
    kind: HumanDecisionKind
    subject: str
    data: JsonObject
    hash: str
    """SHA-256 over the hash before it and this entry's canonical form."""


def entry(previous: str, sequence: int, human_decision: HumanDecision) -> AuditLogEntry:
    """The decision as the entry after the one with the hash `previous`."""
    unsealed = AuditLogEntry(
        sequence=sequence,
        at=human_decision.at,
        by=human_decision.by.name,
        door=human_decision.by.door,
        verified=human_decision.by.verified,
        kind=human_decision.kind,
        subject=human_decision.subject,
        data=human_decision.data,
        hash="",
    )
    return replace(unsealed, hash=hash_chain.link(previous, _canonical(unsealed)))


def first_broken(entries: Sequence[AuditLogEntry], previous: str = START) -> int | None:
    """The sequence of the first entry that does not follow from those before it; None when all do."""
    first = entries[0].sequence if previous != START and entries else 0
    broken = hash_chain.first_broken(previous, ((_canonical(one), one.hash) for one in entries))
    gaps = (position for position, one in enumerate(entries) if one.sequence != first + position)
    position = min((one for one in (broken, next(gaps, None)) if one is not None), default=None)
    return None if position is None else entries[position].sequence


def _canonical(one: AuditLogEntry) -> bytes:
    body: JsonObject = {
        "at": hash_chain.instant(one.at),
        "by": one.by,
        "data": one.data,
        "door": one.door.value,
        "kind": one.kind.value,
        "subject": one.subject,
        "verified": one.verified,
    }
    return hash_chain.canonical(body)

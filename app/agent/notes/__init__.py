"""The sentences of the timeline, built from the values that the loop's stages return.

Pure. The message is for the on-call engineer; the structured values are in each
note's data.
"""

from __future__ import annotations

from app.agent.notes.diagnosis import (
    diagnosis_note,
    evidence_note,
    handover_note,
    less_likely,
    wait_note,
    with_commands,
)
from app.agent.notes.endings import (
    ending_note,
    named_actions,
    nothing_written,
    still_in_place,
    symptoms_ended,
    to_inspect,
    unknown_effects,
    why_escalated,
    why_recovered,
    why_recovered_alone,
    why_returning,
)
from app.agent.notes.plans import plan_note, why_no_action, why_no_runbook, why_proposed
from app.agent.notes.silences import silence_ended_note, silence_left_note
from app.agent.notes.undo import (
    no_undo_notes,
    undo_begun_note,
    undo_not_done_note,
    undo_note,
    why_not_restored,
)
from app.agent.notes.verification import turning_points, verdict_note

__all__ = [
    "diagnosis_note",
    "ending_note",
    "evidence_note",
    "handover_note",
    "less_likely",
    "named_actions",
    "no_undo_notes",
    "nothing_written",
    "plan_note",
    "silence_ended_note",
    "silence_left_note",
    "still_in_place",
    "symptoms_ended",
    "to_inspect",
    "turning_points",
    "undo_begun_note",
    "undo_not_done_note",
    "undo_note",
    "unknown_effects",
    "verdict_note",
    "wait_note",
    "why_escalated",
    "why_no_action",
    "why_no_runbook",
    "why_not_restored",
    "why_proposed",
    "why_recovered",
    "why_recovered_alone",
    "why_returning",
    "with_commands",
]

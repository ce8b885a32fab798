"""The delays between two attempts of a stage, and how often a failure is noted. Pure."""

from __future__ import annotations

from datetime import timedelta

from app.agent.models import IncidentRecord, Note

RETRY_AFTER = timedelta(seconds=5)
"""The first delay after a transient error without a `retry_after`."""

LONGEST_RETRY = timedelta(minutes=1)

FAILURE_NOTES, FAILURE_NOTES_APART = 4, timedelta(minutes=15)
"""The maximum number of notes about failing stages within this time, one for each message."""


def delay_after(failing: timedelta) -> timedelta:
    """The delay before the next attempt of a stage that has been failing for this time."""
    return min(max(RETRY_AFTER, failing / 2), LONGEST_RETRY)


def noted_recently(record: IncidentRecord, note: Note) -> bool:
    """Whether a failure that comes and goes has its notes: a cause has one in `FAILURE_NOTES_APART`."""
    recently = [
        entry.message
        for entry in record.timeline
        if "retrying" in entry.data and abs(note.at - entry.at) < FAILURE_NOTES_APART
    ]
    return note.message in recently or len(recently) >= FAILURE_NOTES

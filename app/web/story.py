"""The six stages of the loop as chapters of an incident page, each with its part of the timeline.

Pure; `app.api.pages.dashboard` hands the chapters to the incident page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.agent.models import Incident, IncidentRecord, IncidentState, Stage, TimelineEntry


class ChapterProgress(StrEnum):
    """Progress of a chapter."""

    DONE = "done"
    CURRENT = "now"
    AHEAD = "ahead"
    SKIPPED = "not needed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One stage of the loop with its timeline entries, oldest first."""

    number: int
    anchor: str
    title: str
    question: str
    progress: ChapterProgress
    entries: tuple[TimelineEntry, ...]


_CHAPTERS = (
    ("observe", "Observe", "What is wrong?", (Stage.OBSERVE,)),
    ("diagnose", "Diagnose", "Why?", (Stage.DIAGNOSE,)),
    ("plan", "Plan", "What is the remedy?", (Stage.PLAN,)),
    (
        "execute",
        "Decide and execute",
        "Is it permitted, and what was the outcome?",
        (Stage.POLICY, Stage.EXECUTE, Stage.UNDO),
    ),
    ("verify", "Verify", "Did it help?", (Stage.VERIFY,)),
    ("learn", "Learn", "What is the lesson?", (Stage.LEARN,)),
)


def chapters(record: IncidentRecord) -> tuple[Chapter, ...]:
    """All six, in the order of the loop, reached or not."""
    reached = [tuple(entry for entry in record.timeline if entry.stage in stages) for *_, stages in _CHAPTERS]
    current = _current(record.incident, [bool(entries) for entries in reached])
    return tuple(
        Chapter(
            number=index + 1,
            anchor=anchor,
            title=title,
            question=question,
            progress=_progress(index, current, bool(reached[index])),
            entries=reached[index],
        )
        for index, (anchor, title, question, _) in enumerate(_CHAPTERS)
    )


def _current(incident: Incident, reached: list[bool]) -> int | None:
    """The current chapter; None once the incident has ended."""
    if incident.state.closed:
        return None
    if incident.state is IncidentState.VERIFYING:
        return 4
    if incident.state in (IncidentState.EXECUTING, IncidentState.AWAITING_APPROVAL):
        return 3
    return max(index for index, has_entries in enumerate([True, *reached[1:]]) if has_entries)


def _progress(index: int, current: int | None, has_entries: bool) -> ChapterProgress:
    if index == current:
        return ChapterProgress.CURRENT
    if has_entries:
        return ChapterProgress.DONE
    return ChapterProgress.SKIPPED if current is None or index < current else ChapterProgress.AHEAD

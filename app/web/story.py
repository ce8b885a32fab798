"""The six stages of the loop as chapters of an incident page, each with its part of the timeline.

Pure; `app.api.pages.dashboard` hands the chapters to the incident page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.agent.models import (
    Approval,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    Rehearsal,
    Stage,
    TimelineEntry,
)

_FOLDED_FROM = 3
"""So many signals in a row that add nothing are shown as one line."""


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

    @property
    def groups(self) -> tuple[tuple[TimelineEntry, ...], ...]:
        """The entries, with signals that only repeat what is known as one group."""
        return grouped(self.entries)


def grouped(entries: Sequence[TimelineEntry]) -> tuple[tuple[TimelineEntry, ...], ...]:
    """Entries in order, each alone, but three or more signals in a row that add no trigger together."""
    known: set[str] = set()
    groups: list[tuple[TimelineEntry, ...]] = []
    repeats: list[TimelineEntry] = []
    for entry in entries:
        recorded = entry.data.get("triggers")
        triggers = {str(one) for one in recorded} if isinstance(recorded, list) else set()
        repeat = "source" in entry.data and triggers <= known and entry.stage is Stage.OBSERVE and known
        known |= triggers
        if repeat:
            repeats.append(entry)
            continue
        groups += _folded(repeats)
        repeats = []
        groups.append((entry,))
    return (*groups, *_folded(repeats))


def _folded(repeats: Sequence[TimelineEntry]) -> list[tuple[TimelineEntry, ...]]:
    enough = len(repeats) >= _FOLDED_FROM
    return [tuple(repeats)] if enough else [(entry,) for entry in repeats]


def rehearsed(record: IncidentRecord, asked: Approval) -> Rehearsal | None:
    """What the API server said of the action in the dry run before the approval was requested."""
    for entry in reversed(record.timeline):
        recorded = entry.data.get("rehearsal")
        if entry.data.get("approval") == asked.id and isinstance(recorded, dict):
            return Rehearsal(
                accepted=recorded.get("accepted") is True, message=str(recorded.get("message", ""))
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoOffer:
    """The agent's last change as a person may have it undone."""

    changed: Intent
    blocked: Sequence[str] = ()
    """Why that cannot work now; empty: it can, as far as is known."""
    done: Intent | None = None
    """The undo, once it took place: nothing is left to request."""


def commands(record: IncidentRecord) -> tuple[str, ...]:
    """The commands of the newest handover, to inspect the workload with."""
    for entry in reversed(record.timeline):
        recorded = entry.data.get("commands")
        if isinstance(recorded, list) and recorded:
            return tuple(str(one) for one in recorded)
    return ()


_CHAPTERS = (
    ("observe", "Observe", "What is wrong?", (Stage.OBSERVE,)),
    ("diagnose", "Diagnose", "Why?", (Stage.DIAGNOSE,)),
    ("plan", "Plan", "What should be done?", (Stage.PLAN,)),
    (
        "execute",
        "Decide and execute",
        "Was it allowed, and what happened?",
        (Stage.POLICY, Stage.EXECUTE, Stage.UNDO),
    ),
    ("verify", "Verify", "Did it help?", (Stage.VERIFY,)),
    ("learn", "Learn", "What was learned?", (Stage.LEARN,)),
)


def chapters(record: IncidentRecord) -> tuple[Chapter, ...]:
    """All six, in the order of the loop, reached or not."""
    reached = [tuple(entry for entry in record.timeline if entry.stage in stages) for *_, stages in _CHAPTERS]
    current = _current(record.incident, [bool(entries) for entries in reached])
    shown = _with_results(record)
    return tuple(
        Chapter(
            number=index + 1,
            anchor=anchor,
            title=title,
            question=question,
            progress=_progress(index, current, bool(reached[index]) or anchor in shown),
            entries=reached[index],
        )
        for index, (anchor, title, question, _) in enumerate(_CHAPTERS)
    )


def _with_results(record: IncidentRecord) -> frozenset[str]:
    """The chapters that show a result of their own, whatever entries the timeline has."""
    incident = record.incident
    results = {
        "diagnose": incident.diagnosis,
        "plan": incident.plan,
        "execute": record.intents,
        "verify": incident.verdict,
        "learn": incident.lesson,
    }
    return frozenset(anchor for anchor, result in results.items() if result)


def _current(incident: Incident, reached: list[bool]) -> int | None:
    """The current chapter; None once the incident has ended."""
    if incident.state.closed:
        return None
    if incident.state is IncidentState.VERIFYING:
        return 4
    if incident.state in (IncidentState.EXECUTING, IncidentState.AWAITING_APPROVAL):
        return 3
    return max(index for index, has_entries in enumerate([True, *reached[1:]]) if has_entries)


def _progress(index: int, current: int | None, reached: bool) -> ChapterProgress:
    if index == current:
        return ChapterProgress.CURRENT
    if reached:
        return ChapterProgress.DONE
    return ChapterProgress.SKIPPED if current is None or index < current else ChapterProgress.AHEAD

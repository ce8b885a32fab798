"""The chart of an incident: samples, SLO lines, marks of deploys and actions, soak windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from app.agent.evidence.format import in_words
from app.agent.models import Change, IncidentRecord, Intent, SliSample, Stage
from app.agent.slo import SloThresholds

BEFORE = timedelta(minutes=10)
AFTER = timedelta(minutes=5)
MOST_MARKS = 40


class MarkKind(StrEnum):
    """What a mark on the chart is about."""

    OPENED = "opened"
    CHANGE = "change"
    APPROVAL = "approval"
    ACTION = "action"
    UNDO = "undo"
    PERSON = "person"
    CLOSED = "closed"


class MarkView(BaseModel):
    """A moment to mark."""

    at: datetime
    kind: MarkKind
    text: str


class SampleView(BaseModel):
    """Service levels at one moment; null is no data."""

    at: datetime
    error_rate: float | None
    p95_latency_ms: float | None
    request_rate: float | None


class SloView(BaseModel):
    """Above these levels the service counts as unhealthy."""

    max_error_rate: float
    max_p95_latency_ms: float


class SoakView(BaseModel):
    """The time over which an action was verified."""

    since: datetime
    until: datetime | None = Field(description="Null while it lasts.")


class ChartView(BaseModel):
    """The service around an incident; `measured` says that the agent's own source took the samples."""

    since: datetime
    until: datetime
    measured: bool
    samples: list[SampleView] = Field(description="Oldest first.")
    slo: SloView
    marks: list[MarkView] = Field(description="Oldest first.")
    soaks: list[SoakView]

    @classmethod
    def of(
        cls,
        record: IncidentRecord,
        samples: Sequence[SliSample],
        changes: Sequence[Change],
        slo: SloThresholds,
        now: datetime,
    ) -> Self:
        """Measured samples where there are any, else posted ones; the two are never mixed."""
        since, until = window_of(record, now)
        measured = any(sample.measured for sample in samples)
        chosen = {
            sample.at: sample
            for sample in samples
            if sample.measured is measured and since <= sample.at <= until
        }
        marks = [mark for mark in _marks(record, changes) if since <= mark.at <= until]
        return cls(
            since=since,
            until=until,
            measured=measured,
            samples=[
                SampleView(
                    at=at,
                    error_rate=sample.error_rate,
                    p95_latency_ms=sample.p95_latency_ms,
                    request_rate=sample.request_rate,
                )
                for at, sample in sorted(chosen.items())
            ],
            slo=SloView(max_error_rate=slo.max_error_rate, max_p95_latency_ms=slo.max_p95_latency_ms),
            marks=sorted(marks, key=lambda mark: mark.at)[:MOST_MARKS],
            soaks=list(_soaks(record)),
        )


def window_of(record: IncidentRecord, now: datetime) -> tuple[datetime, datetime]:
    """From a while before the incident until a while after its end, or until now."""
    incident = record.incident
    until = now if incident.closed_at is None else min(now, incident.closed_at + AFTER)
    return incident.opened_at - BEFORE, max(until, incident.opened_at + timedelta(minutes=1))


def _of_change(change: Change) -> str:
    """Its summary, with its kind before it where the summary does not begin with that."""
    kind = in_words(change.kind)
    if change.summary.lower().startswith(kind):
        return change.summary[:1].upper() + change.summary[1:]
    return f"{kind}: {change.summary}"


def _marks(record: IncidentRecord, changes: Sequence[Change]) -> Iterator[MarkView]:
    incident = record.incident
    yield MarkView(at=incident.opened_at, kind=MarkKind.OPENED, text="Incident opened")
    for change in changes:
        yield MarkView(at=change.at, kind=MarkKind.CHANGE, text=_of_change(change))
    for asked in record.approvals:
        text = f"Approval of {asked.action.words} requested"
        yield MarkView(at=asked.requested_at, kind=MarkKind.APPROVAL, text=text)
        for answer in asked.answers:
            verb = "approved" if answer.approve else "denied"
            text = f"{asked.action.words.capitalize()} {verb} by {answer.by}"
            yield MarkView(at=answer.at, kind=MarkKind.APPROVAL, text=text)
    for intent in record.intents:
        if intent.started_at is not None:
            yield _action(intent, intent.started_at)
    for entry in record.timeline:
        if "act" in entry.data and entry.data["act"] != "note":
            yield MarkView(at=entry.at, kind=MarkKind.PERSON, text=entry.message)
    if incident.closed_at is not None:
        # An escalated incident may recover, or be resolved, long after the end of the chart.
        over = incident.over_at == incident.closed_at
        text = f"Closed: {in_words(incident.state)}" if over else "Escalated"
        yield MarkView(at=incident.closed_at, kind=MarkKind.CLOSED, text=text)


def _action(intent: Intent, at: datetime) -> MarkView:
    on = f" on {intent.action.target}" if intent.action.target is not None else ""
    kind = MarkKind.ACTION if intent.undoes is None else MarkKind.UNDO
    return MarkView(at=at, kind=kind, text=f"{intent.action.words.capitalize()} started{on}")


def _soaks(record: IncidentRecord) -> Iterator[SoakView]:
    """From the entry that begins a verification of an action to its verdict."""
    since: datetime | None = None
    for entry in record.timeline:
        if entry.stage is not Stage.VERIFY:
            continue
        if "intent" in entry.data and since is None:
            since = entry.at
        elif "verdict" in entry.data and since is not None:
            yield SoakView(since=since, until=entry.at)
            since = None
    if since is not None:
        yield SoakView(since=since, until=record.incident.closed_at)

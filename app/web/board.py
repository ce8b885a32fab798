"""The board of incidents: which states a view shows, its order, and links that keep a view. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from app.agent.evidence.format import in_words
from app.agent.models import Incident, IncidentRecord, IncidentState
from app.agent.responders.attention import WaitsFor, by_urgency, next_step, severity, waits_for
from app.durations import age
from app.web.times import stamp

ACTIVE = tuple(state for state in IncidentState if not state.closed or state is IncidentState.ESCALATED)
ENDED = tuple(state for state in IncidentState if state not in ACTIVE)
FOR_PEOPLE = (IncidentState.AWAITING_APPROVAL, IncidentState.ESCALATED)
RANGES = (
    ("", "any time"),
    ("1h", "last hour"),
    ("24h", "last 24 h"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A ready-made view."""

    title: str
    address: str
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One incident in words. The board shows a hundred: a template computes nothing for them."""

    id: str
    service: str
    environment: str
    state: str
    state_words: str
    severity: str
    dry_run: bool
    stale: bool
    cause: str
    """The cause, or what opened the incident while there is no diagnosis."""
    summary: str
    """Without the service and environment of the row; empty where it says no more than `cause`."""
    next: str
    """The next step; empty once the incident has ended."""
    asks: bool
    """An approval is pending."""
    person: str
    """Who has to act; empty where the agent acts or the incident has ended."""
    beside: str
    """The owner, or who has seen it; empty without either."""
    opened: str
    opened_stamp: str
    age: str


def rows(records: Iterable[IncidentRecord], now: datetime) -> list[Row]:
    """The incidents in the same order."""
    return [_row(record.incident, now) for record in records]


def _row(incident: Incident, now: datetime) -> Row:
    who = waits_for(incident)
    held = incident.taken_over if not incident.state.closed else None
    asks = held is None and incident.state is IncidentState.AWAITING_APPROVAL
    person = ""
    if who is WaitsFor.PERSON and not asks:
        person = held.by if held is not None else incident.owner or "on-call"
    beside = ""
    if who is not WaitsFor.NONE and incident.owner and not incident.taken_over:
        beside = f"owner {incident.owner}"
    elif who is not WaitsFor.NONE and incident.acknowledged:
        beside = f"seen by {incident.acknowledged.by}"
    diagnosis = incident.diagnosis
    cause = in_words(diagnosis.best.cause if diagnosis is not None else ", ".join(incident.triggers))
    summary = incident.summary.removeprefix(f"{incident.key}: ") or "No summary yet."
    return Row(
        id=incident.id,
        service=incident.key.service,
        environment=incident.key.environment,
        state=incident.state.value,
        state_words=in_words(incident.state),
        severity=severity(incident).value,
        dry_run=incident.dry_run,
        stale=incident.stale,
        cause=cause,
        summary="" if summary == cause else summary,
        next="" if who is WaitsFor.NONE else next_step(incident),
        asks=asks,
        person=person,
        beside=beside,
        opened=incident.opened_at.isoformat(),
        opened_stamp=stamp(incident.opened_at),
        age=age(now - incident.opened_at),
    )


def chips(states: Sequence[str], *, filtered: bool) -> tuple[Chip, ...]:
    """The ready-made views, one of them current at most."""
    views = (("Needs a person", FOR_PEOPLE), ("Active", ACTIVE), ("Ended", ENDED))
    return (
        Chip(title="Board", address="/dashboard", current=not filtered),
        *(
            Chip(
                title=title,
                address="/dashboard?" + urlencode([("state", state.value) for state in wanted]),
                current=set(states) == {state.value for state in wanted},
            )
            for title, wanted in views
        ),
    )


def address(given: Mapping[str, Sequence[str]], **more: str) -> str:
    """The board with these parameters, as a link."""
    pairs = [(name, value) for name, values in given.items() if name not in more for value in values]
    return "/dashboard?" + urlencode([*pairs, *more.items()])


def most_urgent_first(records: Iterable[IncidentRecord]) -> list[IncidentRecord]:
    """Active incidents: what needs a person first, then by severity, then the oldest."""
    return sorted(records, key=lambda record: by_urgency(record.incident))

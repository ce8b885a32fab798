"""The board of incidents: which states a view shows, its order, and links that keep a view. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.agent.models import IncidentRecord, IncidentState
from app.agent.responders.attention import by_urgency

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

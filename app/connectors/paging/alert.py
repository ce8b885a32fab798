"""When an incident pages a person, and when its alert ends. Pure.

Used by `PagerChannel` for every paging service. An alert opens once a person is needed, changes with the
state of the incident, is acknowledged once a person acknowledged the incident or took it over, and ends
once the incident needs a person no longer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum

from app.agent.models import IncidentState
from app.agent.notifications.channel import Bulletin
from app.connectors.chat.last_posted import PostedIncident
from app.errors import Invalid
from app.settings.entries import PageWhen

_NEEDS_A_PERSON = (IncidentState.AWAITING_APPROVAL, IncidentState.ESCALATED)


class PageStep(StrEnum):
    """What a paging service is asked to do with the alert of an incident."""

    OPEN = "open"
    UPDATE = "update"
    ACKNOWLEDGE = "acknowledge"
    END = "end"


class Urgency(StrEnum):
    """How urgent an alert is; services map it to their own levels."""

    CRITICAL = "critical"
    """Nothing happens without a person."""
    HIGH = "high"
    """A person has to answer."""
    LOW = "low"
    """The agent works on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagerAlert:
    """The alert of an incident, as every paging service shows it."""

    incident_id: str
    """The key of the alert: one alert for each incident."""
    service: str
    environment: str
    title: str
    details: tuple[str, ...]
    urgency: Urgency
    links: tuple[tuple[str, str], ...] = ()
    """Address and label of pages to open; the most important first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedIncident:
    """An incident as its pager last saw it: the `reference` of a pager."""

    posted: PostedIncident
    alerting: bool = False
    """Whether the incident has an alert that did not end."""
    taken: str = ""
    """Who had the incident, and since when, as far as the alert shows it; empty: no person."""

    @staticmethod
    def read(reference: str) -> PagedIncident:
        """Raises `Invalid` for a reference that `written` did not make."""
        try:
            document = json.loads(reference)
            posted = PostedIncident.read(json.dumps(document["posted"]))
            alerting, taken = document["alerting"], document["taken"]
        except (TypeError, ValueError, KeyError):
            raise Invalid("the record of the last page cannot be parsed") from None
        return PagedIncident(posted=posted, alerting=alerting is True, taken=str(taken))

    def written(self) -> str:
        """The reference as it is stored."""
        posted = json.loads(self.posted.written())
        document = {"posted": posted, "alerting": self.alerting, "taken": self.taken}
        return json.dumps(document, separators=(",", ":"))


def needs_page(bulletin: Bulletin, when: PageWhen) -> bool:
    """Whether the incident should have an open alert now."""
    incident = bulletin.record.incident
    if incident.over_at is not None or incident.state is IncidentState.PROPOSED:
        return False
    return when is PageWhen.OPENED or incident.state in _NEEDS_A_PERSON


def urgency_of(state: IncidentState) -> Urgency:
    """The urgency of an alert about an incident in that state."""
    if state is IncidentState.ESCALATED:
        return Urgency.CRITICAL
    return Urgency.HIGH if state is IncidentState.AWAITING_APPROVAL else Urgency.LOW


def next_step(
    before: PagedIncident | None, bulletin: Bulletin, when: PageWhen
) -> tuple[PageStep | None, PagedIncident]:
    """What to send now, None for nothing, and the record of it once it was sent.

    An alert is acknowledged by what a person does while it is open: who acknowledged the incident before did
    not see it. An acknowledgement carries the state too, and so takes the place of an update.
    """
    posted = PostedIncident.first(bulletin) if before is None else before.posted.followed_by(bulletin)
    last = before or PagedIncident(posted=PostedIncident.first(bulletin))
    now = last if posted is None else replace(last, posted=posted)
    taken = _taken(bulletin)
    if not needs_page(bulletin, when):
        return (PageStep.END if now.alerting else None), replace(now, alerting=False, taken="")
    if not now.alerting:
        return PageStep.OPEN, replace(now, alerting=True, taken=taken)
    if taken and taken != now.taken:
        return PageStep.ACKNOWLEDGE, replace(now, taken=taken)
    return (None if posted is None else PageStep.UPDATE), replace(now, taken=taken)


def _taken(bulletin: Bulletin) -> str:
    incident = bulletin.record.incident
    marks = [one for one in (incident.acknowledged, incident.taken_over) if one is not None]
    return "; ".join(f"{one.by} {one.at.isoformat()}" for one in marks)

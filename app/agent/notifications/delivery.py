"""The next message for a channel about an incident, and the state stored before and after. Pure.

Called by the announcer. A message has a permanent key, so that one whose response was
lost can be found, or sent again unchanged. Messages of one incident are ordered: the
first message, announcements by number, timeline entries, then an update of the first
message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.ids import IncidentId
from app.agent.models import IncidentRecord
from app.agent.notifications.channel import Announcement, Posting
from app.bounds.backoff import Backoff

_ENTRIES_AT_ONCE = 20


class NotificationKind(StrEnum):
    """The purpose of a message; the values are part of keys and are stored."""

    BEGIN = "begin"
    ANNOUNCE = "a"
    ENTRIES = "t"
    REFRESH = "r"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationTask:
    """One message to one channel about one incident."""

    kind: NotificationKind
    after: int = 0
    """ENTRIES: the number of entries sent before."""
    until: int = 0
    """ANNOUNCE: the announcement's number; otherwise the number of entries sent including this message."""

    def key(self, incident_id: IncidentId) -> str:
        """Identical for each attempt of this message; the first message has the incident's id."""
        match self.kind:
            case NotificationKind.BEGIN:
                return incident_id
            case NotificationKind.ENTRIES:
                return f"{incident_id}-t{self.after}-{self.until}"
            case kind:
                return f"{incident_id}-{kind}{self.until}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPace:
    """Intervals and time-outs of delivery."""

    refresh_every: timedelta = timedelta(seconds=2)
    """The minimum interval between updates of an incident."""
    answer_within: timedelta = timedelta(seconds=30)
    """The time-out of a send; connectors time out earlier."""
    patience: timedelta = timedelta(seconds=90)
    """A message sent less than this ago may still arrive: it is neither searched for nor sent again."""
    retry_first: timedelta = timedelta(seconds=2)
    retry_longest: timedelta = timedelta(minutes=5)
    retry_refused: timedelta = timedelta(minutes=15)
    """The delay after a permanent failure, which needs a manual fix."""


def next_notification(
    record: IncidentRecord, posting: Posting, announcements: Sequence[Announcement]
) -> NotificationTask | None:
    """The next message for the channel; None if it is up to date."""
    length = len(record.timeline)
    if posting.reference is None:
        return NotificationTask(kind=NotificationKind.BEGIN, until=length)
    number = min((one.number for one in announcements if one.number > posting.announced), default=None)
    if number is not None:
        return NotificationTask(kind=NotificationKind.ANNOUNCE, until=number)
    if length > posting.shown:
        until = min(length, posting.shown + _ENTRIES_AT_ONCE)
        return NotificationTask(kind=NotificationKind.ENTRIES, after=posting.shown, until=until)
    if length > posting.refreshed:
        return NotificationTask(kind=NotificationKind.REFRESH, until=length)
    return None


def in_doubt(posting: Posting) -> NotificationTask | None:
    """The message with an unknown outcome that must be searched for.

    A refresh may be repeated, and so may messages with keys of another version;
    neither is searched for.
    """
    if posting.sending is None:
        return None
    if posting.sending == posting.incident_id:
        return NotificationTask(kind=NotificationKind.BEGIN) if posting.reference is None else None
    rest = posting.sending.removeprefix(f"{posting.incident_id}-")
    if (parsed := re.fullmatch(r"a([0-9]{1,18})", rest, re.ASCII)) and int(parsed[1]) > posting.announced:
        return NotificationTask(kind=NotificationKind.ANNOUNCE, until=int(parsed[1]))
    parsed = re.fullmatch(r"t([0-9]{1,9})-([0-9]{1,9})", rest, re.ASCII)
    if parsed and int(parsed[1]) == posting.shown < int(parsed[2]):
        return NotificationTask(kind=NotificationKind.ENTRIES, after=int(parsed[1]), until=int(parsed[2]))
    return None


def under_way(posting: Posting, now: datetime, pace: DeliveryPace) -> bool:
    """Whether a message may still be in flight, possibly from another announcer."""
    since = posting.sending_since
    return posting.sending is not None and since is not None and abs(now - since) < pace.patience


def setting_out(posting: Posting, task: NotificationTask, now: datetime, pace: DeliveryPace) -> Posting:
    """The state stored before the message is sent; reserved until the message must have arrived."""
    return replace(
        posting,
        sending=task.key(posting.incident_id),
        sending_since=now,
        due_at=now + pace.patience,
    )


def delivered(
    posting: Posting, task: NotificationTask, reference: str, now: datetime, pace: DeliveryPace
) -> Posting:
    """The state stored after successful delivery."""
    sent = replace(
        posting,
        reference=reference,
        sending=None,
        sending_since=None,
        failures=0,
        due_at=now + pace.refresh_every,
    )
    match task.kind:
        case NotificationKind.ANNOUNCE:
            return replace(sent, announced=task.until)
        case NotificationKind.ENTRIES:
            return replace(sent, shown=task.until)
        case _:
            return replace(sent, refreshed=task.until)


def not_sent(posting: Posting, due_at: datetime) -> Posting:
    """The state after a certain failure: send again at that time."""
    return replace(posting, sending=None, sending_since=None, failures=posting.failures + 1, due_at=due_at)


def unheard(posting: Posting, due_at: datetime) -> Posting:
    """The state after an unknown outcome: search for the message at that time."""
    return replace(posting, failures=posting.failures + 1, due_at=due_at)


def wait_after(failures: int, pace: DeliveryPace) -> timedelta:
    """The delay after one more failure than these in a row; bounded."""
    return Backoff(first=pace.retry_first, longest=pace.retry_longest).after(failures + 1)

"""What a channel is told next about an incident, and what is on record before and after. Pure.

Called by the announcer. A message has a key that names it for good, so that one
whose answer was lost is looked for, and sent again as the very same. In one
incident everything has its order: the first message, announcements by number,
the timeline entry by entry, then the first message anew as things stand.
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

_ENTRIES_AT_ONCE = 20


class ErrandKind(StrEnum):
    """What a message is for; the values stand in keys, and in the store."""

    BEGIN = "begin"
    ANNOUNCE = "a"
    ENTRIES = "t"
    REFRESH = "r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One message to one channel about one incident."""

    kind: ErrandKind
    after: int = 0
    """ENTRIES: so many entries were told before."""
    until: int = 0
    """ANNOUNCE: the announcement's number; otherwise how many entries are told, or shown, with it."""

    def key(self, incident_id: IncidentId) -> str:
        """The same whenever this very message is sent; the first one's is the incident's id."""
        match self.kind:
            case ErrandKind.BEGIN:
                return incident_id
            case ErrandKind.ENTRIES:
                return f"{incident_id}-t{self.after}-{self.until}"
            case kind:
                return f"{incident_id}-{kind}{self.until}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPace:
    """How fast, and how patiently, channels are told."""

    refresh_every: timedelta = timedelta(seconds=2)
    """An incident that changes all the time is told that often, and not more."""
    answer_within: timedelta = timedelta(seconds=30)
    """What takes longer has no answer; connectors give up earlier."""
    patience: timedelta = timedelta(seconds=90)
    """A message that set out less than this ago may still arrive: it is neither looked for nor sent again."""
    retry_first: timedelta = timedelta(seconds=2)
    retry_longest: timedelta = timedelta(minutes=5)
    retry_refused: timedelta = timedelta(minutes=15)
    """After a refusal that only a person can mend."""


def next_errand(
    record: IncidentRecord, posting: Posting, announcements: Sequence[Announcement]
) -> Errand | None:
    """What the channel is to be told now; None when it knows everything."""
    length = len(record.timeline)
    if posting.reference is None:
        return Errand(kind=ErrandKind.BEGIN, until=length)
    number = min((one.number for one in announcements if one.number > posting.announced), default=None)
    if number is not None:
        return Errand(kind=ErrandKind.ANNOUNCE, until=number)
    if length > posting.shown:
        until = min(length, posting.shown + _ENTRIES_AT_ONCE)
        return Errand(kind=ErrandKind.ENTRIES, after=posting.shown, until=until)
    if length > posting.refreshed:
        return Errand(kind=ErrandKind.REFRESH, until=length)
    return None


def in_doubt(posting: Posting) -> Errand | None:
    """The message of which nobody can tell whether it arrived, where that matters.

    A refresh may be repeated, and so may what some other version of this program
    calls by a key of its own; neither is looked for.
    """
    if posting.sending is None:
        return None
    if posting.sending == posting.incident_id:
        return Errand(kind=ErrandKind.BEGIN) if posting.reference is None else None
    rest = posting.sending.removeprefix(f"{posting.incident_id}-")
    if (told := re.fullmatch(r"a([0-9]{1,18})", rest, re.ASCII)) and int(told[1]) > posting.announced:
        return Errand(kind=ErrandKind.ANNOUNCE, until=int(told[1]))
    told = re.fullmatch(r"t([0-9]{1,9})-([0-9]{1,9})", rest, re.ASCII)
    if told and int(told[1]) == posting.shown < int(told[2]):
        return Errand(kind=ErrandKind.ENTRIES, after=int(told[1]), until=int(told[2]))
    return None


def under_way(posting: Posting, now: datetime, pace: DeliveryPace) -> bool:
    """Whether a message may still be on its way, perhaps another announcer's: hands off."""
    since = posting.sending_since
    return posting.sending is not None and since is not None and abs(now - since) < pace.patience


def setting_out(posting: Posting, errand: Errand, now: datetime, pace: DeliveryPace) -> Posting:
    """On record before the message leaves; nobody else looks at it before it must have arrived."""
    return replace(
        posting,
        sending=errand.key(posting.incident_id),
        sending_since=now,
        due_at=now + pace.patience,
    )


def delivered(posting: Posting, errand: Errand, reference: str, now: datetime, pace: DeliveryPace) -> Posting:
    """On record once the channel has it."""
    told = replace(
        posting,
        reference=reference,
        sending=None,
        sending_since=None,
        failures=0,
        due_at=now + pace.refresh_every,
    )
    match errand.kind:
        case ErrandKind.ANNOUNCE:
            return replace(told, announced=errand.until)
        case ErrandKind.ENTRIES:
            return replace(told, shown=errand.until)
        case _:
            return replace(told, refreshed=errand.until)


def not_sent(posting: Posting, due_at: datetime) -> Posting:
    """It certainly did not arrive, and is sent then."""
    return replace(posting, sending=None, sending_since=None, failures=posting.failures + 1, due_at=due_at)


def unheard(posting: Posting, due_at: datetime) -> Posting:
    """Nobody can tell, or nobody could be asked: it is looked for then."""
    return replace(posting, failures=posting.failures + 1, due_at=due_at)


def wait_after(failures: int, pace: DeliveryPace) -> timedelta:
    """How long to wait after so many failures in a row before this one; never for good."""
    return min(pace.retry_longest, pace.retry_first * (1 << min(failures, 20)))

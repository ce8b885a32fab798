"""Where people are shown incidents: the values and the port between the announcer and a chat. Pure.

The loop never talks to a channel. It puts announcements on record, and the
announcer (`app.workers.notifier`) brings them, the incident as it stands and
its timeline to every channel, in its own time: a channel that is down holds
nothing up, and nothing is lost. Delivery is at least once; after a lost answer
the channel is searched before anything is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.agent.ids import IncidentId
from app.agent.models import Approval, ApprovalState, IncidentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Something people are to be told at once, besides what the incident shows."""

    number: int
    """Grows over all incidents."""
    incident_id: IncidentId
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """How far one channel has been told about one incident; one bounded row."""

    channel: str
    incident_id: IncidentId
    reference: str | None = None
    """Where the channel shows the incident, in the channel's own words; None before the first message."""
    shown: int = 0
    """So many entries of the timeline were told."""
    announced: int = 0
    """The number of the last announcement that was delivered."""
    refreshed: int = 0
    """The length of the timeline when the first message was last brought up to date."""
    sending: str | None = None
    """The key of a message that was on its way when this was stored: its answer may have been lost."""
    sending_since: datetime | None = None
    due_at: datetime
    """Not to be looked at before: a failed attempt is given time."""
    failures: int = 0
    """Attempts in a row that failed."""
    version: int = 0
    """Grows with every stored change; 0 is not stored yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulletin:
    """What a channel shows of an incident, as it stands now."""

    record: IncidentRecord
    nonce: str | None = field(default=None, repr=False)
    """Makes one answer by button count, once; given where something waits for an answer."""

    @property
    def asked(self) -> Approval | None:
        """What waits for an answer; None where nothing does."""
        pending = [one for one in self.record.approvals if one.state is ApprovalState.PENDING]
        return pending[-1] if pending else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadReply:
    """One message besides the incident's own: in its thread, where the channel has threads."""

    key: str
    """The same whenever this very reply is sent again."""
    lines: tuple[str, ...]
    loud: bool
    """Meant for everybody now, and not only for who follows the incident."""


class Channel(Protocol):
    """One chat or webhook. Constructed only when `DRY_RUN=false` (promise 5).

    Every call sends at most one message. Errors as in `app.agent.ports`, with two
    meanings of their own: a `TransientError` with `retry_after` is the channel's
    own limit, and holds for all incidents; `UnknownOutcome` says that the message
    may have arrived, and is followed by `find`.
    """

    @property
    def name(self) -> str:
        """Stands in the store; one for each channel of an agent, and never changes."""
        ...

    @property
    def has_buttons(self) -> bool:
        """Whether people can answer right there, so that it needs a nonce."""
        ...

    async def begin(self, bulletin: Bulletin) -> str:
        """Show an incident for the first time; where, for the calls below. Its key is the incident's id."""
        ...

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Bring what is shown up to date; the reference from now on. Harmless when nothing has changed."""
        ...

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        """Tell one thing more about the incident."""
        ...

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:
        """Whether a message with that key arrived since then: its reference, or None without a trace.

        A channel that cannot be searched answers None; the message is sent again.
        """
        ...

    async def check(self) -> None:
        """Raise when the channel cannot be used as it is configured; for readiness and `heal doctor`."""
        ...

    async def aclose(self) -> None: ...

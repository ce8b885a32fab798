"""Notification channels: the values and the port between the announcer and a chat. Pure.

The loop never calls a channel. It stores announcements; the announcer
(`app.workers.notifier`) delivers them, the current incident and its timeline to every
channel asynchronously: a channel that is down blocks nothing, and nothing is lost.
Delivery is at least once; after a lost response the channel is searched before a
message is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from app.agent.ids import IncidentId
from app.agent.models import Approval, ApprovalState, IncidentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An immediate notification in addition to the incident's message."""

    number: int
    """Grows over all incidents."""
    incident_id: IncidentId
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """The delivery state of one incident in one channel; one bounded row."""

    channel: str
    incident_id: IncidentId
    reference: str | None = None
    """Where the channel shows the incident, in the channel's own words; None before the first message."""
    shown: int = 0
    """The number of timeline entries that were sent."""
    announced: int = 0
    """The number of the last announcement that was delivered."""
    refreshed: int = 0
    """The length of the timeline when the first message was last brought up to date."""
    sending: str | None = None
    """The key of a message in flight when this was stored: its response may have been lost."""
    sending_since: datetime | None = None
    due_at: datetime
    """Not due before this time, after a failed attempt."""
    failures: int = 0
    """Consecutive failed attempts."""
    version: int = 0
    """Grows with every stored change; 0 is not stored yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulletin:
    """The current content of an incident's message."""

    record: IncidentRecord
    nonce: str | None = field(default=None, repr=False)
    """Makes a button valid once; set if an approval is pending."""

    @property
    def asked(self) -> Approval | None:
        """The pending approval; None if there is none."""
        pending = [one for one in self.record.approvals if one.state is ApprovalState.PENDING]
        return pending[-1] if pending else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadReply:
    """One message in addition to the incident's message: in its thread, if the channel has threads."""

    key: str
    """Identical for each attempt of this reply."""
    lines: tuple[str, ...]
    loud: bool
    """Notifies the whole channel, not only followers of the incident."""


class Channel(Protocol):
    """One chat or webhook. Constructed only when `DRY_RUN=false` (promise 5).

    Every call sends at most one message. Errors as in `app.agent.ports`, with two special meanings: a
    `TransientError` with `retry_after` is the channel's own limit, and applies to all incidents;
    `UnknownOutcome` says that the message may have arrived, and is followed by `find`.
    """

    @property
    def name(self) -> str:
        """The name in the store; unique for each channel of an agent, and never changes."""
        ...

    @property
    def has_buttons(self) -> bool:
        """Whether people can answer right there, so that it needs a nonce."""
        ...

    async def begin(self, bulletin: Bulletin) -> str:
        """Show an incident for the first time; where, for the calls below. Its key is the incident's id."""
        ...

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Bring the message up to date; returns its new reference. Harmless if nothing has changed."""
        ...

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        """Post a reply about the incident."""
        ...

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:
        """Whether a message with that key arrived since then: its reference, or None without a trace.

        A channel that cannot be searched answers None; the message is sent again.
        """
        ...

    async def check(self) -> None:
        """Raise if the channel cannot be used as configured; for readiness and `heal doctor`."""
        ...

    async def aclose(self) -> None: ...

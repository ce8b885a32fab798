"""The announcer: brings every channel up to date about every incident, one message at a time.

One elected process does it for all. A message is recorded as pending before it is sent, and as sent once it
has arrived. After a crash, a lost answer or a take-over the notifier therefore searches the channel before
it sends again, and nothing is lost (`docs/channels.md`). Each channel has its own sender: a channel that is
down or hangs delays neither another channel nor the loop, which only stores announcements.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from app.agent.ids import IncidentId
from app.agent.models import IncidentRecord
from app.agent.notifications import delivery
from app.agent.notifications.channel import (
    Announcement,
    Bulletin,
    Channel,
    Posting,
    ThreadReply,
)
from app.agent.notifications.delivery import DeliveryPace, NotificationKind, NotificationTask
from app.agent.ports.store import Store
from app.clock import Clock
from app.connectors.chatops import announced_line, timeline_line
from app.errors import AgentError, Conflict, PermanentError, TransientError, UnknownOutcome

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_EVERY_SECONDS = 1.0
_INCIDENTS_AT_ONCE = 50
_MESSAGES_IN_A_TURN = 20
"""Of one incident, before the others have their turn."""
_LONGEST_PAUSE = timedelta(hours=1)
_SEARCH_MARGIN = timedelta(minutes=10)
"""The channel's clock may differ from ours by so much."""
_NONCE_BYTES = 24


@dataclass(slots=True, kw_only=True)
class _Turn:
    """One incident's turn: its record and the channel's last notification."""

    record: IncidentRecord
    posting: Posting
    announcements: tuple[Announcement, ...]

    @property
    def id(self) -> IncidentId:
        return self.record.incident.id


@dataclass(kw_only=True)
class ChannelSender:
    """Notifies one channel; `run` is the work of one process."""

    store: Store
    clock: Clock
    channel: Channel
    pace: DeliveryPace = field(default_factory=DeliveryPace)
    _paused_until: datetime | None = None
    """The channel's own limit: nothing is sent before this time, for any incident."""
    _failing: bool = False
    """Its last call failed, and that was said."""

    async def run(self) -> None:
        """Notify until cancelled; retry while the store is unavailable."""
        while True:
            try:
                await self.round()
            except AgentError as error:
                log.warning("updating %s failed: %s", self.channel.name, error)
            await self.clock.sleep(_LOOK_EVERY_SECONDS)

    async def round(self) -> None:
        """Notify the channel of every incident with pending notifications."""
        if self._paused:
            return
        for incident_id in await self.store.notifications.due(
            self.channel.name, self.clock.now(), _INCIDENTS_AT_ONCE
        ):
            if self._paused:
                return
            try:
                await self._bring_up_to_date(incident_id)
            except Conflict:
                log.debug("another worker notifies %s of %s", self.channel.name, incident_id)
            except TransientError:
                raise
            except Exception as error:  # noqa: BLE001 - the worker's boundary: one incident holds up no other
                await self._set_aside(incident_id, error)

    @property
    def _paused(self) -> bool:
        return self._paused_until is not None and self.clock.now() < self._paused_until

    async def _bring_up_to_date(self, incident_id: IncidentId) -> None:
        posting = await self.store.notifications.get(self.channel.name, incident_id)
        now = self.clock.now()
        if posting is None:
            posting = Posting(channel=self.channel.name, incident_id=incident_id, due_at=now)
        if delivery.under_way(posting, now, self.pace):
            return
        # Read the announcements first: the record is then at least as new as they are.
        announcements = await self.store.notifications.announcements(incident_id, posting.announced)
        record = await self.store.incidents.get(incident_id)
        if record is None:
            return
        turn = _Turn(record=record, posting=posting, announcements=announcements)
        if not await self._settled(turn):
            return
        for _ in range(_MESSAGES_IN_A_TURN):
            task = delivery.next_notification(turn.record, turn.posting, turn.announcements)
            if task is None or not await self._sent(turn, task):
                return

    async def _settled(self, turn: _Turn) -> bool:
        """Find out what became of a message whose answer is missing; send it again if it did not arrive."""
        task, since = delivery.in_doubt(turn.posting), turn.posting.sending_since
        if task is None or since is None:
            return True
        key = task.key(turn.id)
        try:
            found = await self._in_time(
                self.channel.find(key, turn.posting.reference, since - _SEARCH_MARGIN)
            )
        except Exception as error:  # noqa: BLE001 - the worker's boundary: a channel may fail in any way
            await self._unheard(turn, error)
            return False
        self._well()
        if found is None:
            return await self._sent(turn, task)
        await self._record(turn, task, found)
        return True

    async def _sent(self, turn: _Turn, task: NotificationTask) -> bool:
        """Send one message; whether the next may follow."""
        turn.posting = await self.store.notifications.save(
            delivery.setting_out(turn.posting, task, self.clock.now(), self.pace)
        )
        try:
            reference = await self._in_time(self._send(turn, task))
        except (TransientError, PermanentError) as error:
            await self._not_sent(turn, error)
            return False
        except Exception as error:  # noqa: BLE001 - as above; it may have been sent before the call failed
            await self._unheard(turn, error)
            return False
        self._well()
        await self._record(turn, task, reference)
        return True

    async def _send(self, turn: _Turn, task: NotificationTask) -> str:
        """The one call to the channel; where it shows the incident from now on."""
        reference = turn.posting.reference
        if task.kind is NotificationKind.BEGIN or reference is None:
            return await self.channel.begin(await self._bulletin(turn.record))
        if task.kind is NotificationKind.REFRESH:
            return await self.channel.refresh(reference, await self._bulletin(turn.record))
        loud = task.kind is NotificationKind.ANNOUNCE
        lines = (
            tuple(
                announced_line(announcement)
                for announcement in turn.announcements
                if announcement.number == task.until
            )
            if loud
            else tuple(timeline_line(entry) for entry in turn.record.timeline[task.after : task.until])
        )
        await self.channel.reply(reference, ThreadReply(key=task.key(turn.id), lines=lines, loud=loud))
        return reference

    async def _bulletin(self, record: IncidentRecord) -> Bulletin:
        """With a fresh nonce where people can answer right there: of an old one only the hash is kept."""
        bulletin = Bulletin(record=record)
        asked = bulletin.asked
        if asked is None or not self.channel.has_buttons:
            return bulletin
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        await self.store.approvals.issue_nonce(asked.id, nonce, self.clock.now())
        return replace(bulletin, nonce=nonce)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a call, bounded by this clock; a hanging call may have had its effect."""
        calling = asyncio.ensure_future(work)
        too_late = asyncio.ensure_future(self.clock.sleep(self.pace.answer_within.total_seconds()))
        try:
            await asyncio.wait({calling, too_late}, return_when=asyncio.FIRST_COMPLETED)
            if calling.done():
                return calling.result()
            raise UnknownOutcome(f"no answer within {self.pace.answer_within.total_seconds():.0f} s")
        finally:
            calling.cancel()
            too_late.cancel()
            await asyncio.gather(calling, too_late, return_exceptions=True)

    # ------------------------------------------------------------ results

    async def _record(self, turn: _Turn, task: NotificationTask, reference: str) -> None:
        """A found reply does not count as the reference: only the first message and its refreshes do."""
        if task.kind in (NotificationKind.ANNOUNCE, NotificationKind.ENTRIES):
            reference = turn.posting.reference or reference
        turn.posting = await self.store.notifications.save(
            delivery.delivered(turn.posting, task, reference, self.clock.now(), self.pace)
        )

    async def _not_sent(self, turn: _Turn, error: TransientError | PermanentError) -> None:
        due_at = self._next_try(turn, error)
        turn.posting = await self.store.notifications.save(delivery.not_sent(turn.posting, due_at))

    async def _unheard(self, turn: _Turn, error: Exception) -> None:
        due_at = self._next_try(turn, error)
        if turn.posting.sending_since is not None:
            due_at = max(due_at, turn.posting.sending_since + self.pace.patience)
        turn.posting = await self.store.notifications.save(delivery.unheard(turn.posting, due_at))

    async def _set_aside(self, incident_id: IncidentId, error: Exception) -> None:
        """Its record cannot be sent or read: retry much later."""
        now = self.clock.now()
        posting = await self.store.notifications.get(self.channel.name, incident_id)
        if posting is None:
            posting = Posting(channel=self.channel.name, incident_id=incident_id, due_at=now)
        if posting.failures == 0:
            log.error("notifying %s of %s failed", self.channel.name, incident_id, exc_info=error)
        await self.store.notifications.save(delivery.unheard(posting, now + self.pace.retry_refused))

    def _next_try(self, turn: _Turn, error: Exception) -> datetime:
        """When to retry this incident; logs the failure once, not at every attempt."""
        now = self.clock.now()
        if isinstance(error, TransientError) and error.retry_after is not None:
            self._paused_until = now + min(max(error.retry_after, self.pace.retry_first), _LONGEST_PAUSE)
            self._report_failure(error)
            return self._paused_until
        if isinstance(error, PermanentError):
            if turn.posting.failures == 0:
                log.warning("%s rejected the notification of %s: %s", self.channel.name, turn.id, error)
            return now + self.pace.retry_refused
        if isinstance(error, AgentError):
            self._report_failure(error)
        elif turn.posting.failures == 0:
            log.error("%s failed for %s", self.channel.name, turn.id, exc_info=error)
        return now + delivery.wait_after(turn.posting.failures, self.pace)

    def _report_failure(self, error: AgentError) -> None:
        if not self._failing:
            log.warning("%s unavailable, notifications delayed: %s", self.channel.name, error)
        self._failing = True

    def _well(self) -> None:
        if self._failing:
            log.info("%s available again, notifications resumed", self.channel.name)
        self._failing = False

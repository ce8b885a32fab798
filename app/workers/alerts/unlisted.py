"""The ends of alerts that are not delivered: their source no longer lists them.

An alert that ended before its source notified of it never gets an end by delivery, and neither
does one that ended while it was silenced, which the agent does itself. Only a
complete answer counts, for any receiver and with what people silenced; a source that has
just restarted lists nothing until its senders repeat what fires, so several answers over
minutes have to agree. What was found is read from the store when a process takes over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.freshness.firings import polled_alert, withheld_alert
from app.agent.freshness.memory import FORGOTTEN_AFTER, may_fire
from app.agent.freshness.reasons import Reason, alert_identity, find
from app.agent.ids import ServiceKey
from app.agent.intents import has_silenced
from app.agent.models import Alert
from app.agent.ports.store.incidents import IncidentFilter, IncidentRepository
from app.agent.ports.store.signals import SignalRepository
from app.connectors.kinds import AlertSource
from app.redaction import HIDDEN

ABSENT_FOR = timedelta(minutes=5)
"""An alert is over once it has been missing for so long."""
ABSENT_ANSWERS = 3
"""So many answers have to agree."""
_PAGE = 200
_WHOLE_NAME = 200
"""Longer names are kept in part."""


@dataclass(slots=True, kw_only=True)
class _Found:
    """An alert whose end is not delivered: polling found it, or the agent silenced it."""

    key: ServiceKey
    alert: Alert
    absent_since: datetime | None = None
    answers: int = 0
    """The complete answers in a row in which it was missing."""


@dataclass(slots=True, kw_only=True)
class UnlistedAlerts:
    """Remembers the alerts whose ends are not delivered, and since when their source no longer lists them."""

    signals: SignalRepository
    incidents: IncidentRepository
    _found: dict[str, _Found] = field(default_factory=dict)
    """By identity."""
    _ended: dict[str, tuple[ServiceKey, datetime]] = field(default_factory=dict)
    """The ends of a day, by identity: an alert that is listed again is reported again."""
    _silenced: set[ServiceKey] = field(default_factory=set)
    """The services whose alerts the agent silenced; a record of it is open, or not older than a day."""

    async def recall(self, now: datetime) -> None:
        """Take over the recorded alerts of services that had an incident within a day."""
        cursor, keys = None, set[ServiceKey]()
        while True:
            where = IncidentFilter(since=now - FORGOTTEN_AFTER)
            page = await self.incidents.find(where, limit=_PAGE, cursor=cursor)
            keys.update(record.incident.key for record in page.items)
            self._silenced.update(one.incident.key for one in page.items if has_silenced(one))
            cursor = page.next_cursor
            if cursor is None:
                break
        keys.update(one.key for one in await self.incidents.all_open())
        for key in sorted(keys, key=str):
            for reason in await self._reasons(key):
                alert = self._undelivered(key, reason)
                if alert is not None:
                    self._found.setdefault(alert.identity, _Found(key=key, alert=alert))
                elif (reason.polled or key in self._silenced) and reason.withdrawn is not None:
                    self._ended[alert_identity(reason)] = (key, reason.withdrawn.at)

    async def silenced(self, keys: Collection[ServiceKey]) -> None:
        """The agent silences the alerts of these services now: no repeat and no end of them is delivered."""
        self._silenced.update(keys)
        for key in keys:
            for reason in await self._reasons(key):
                alert = withheld_alert(reason)
                if alert is not None:
                    self._found.setdefault(alert.identity, _Found(key=key, alert=alert))

    def add(self, key: ServiceKey, alert: Alert) -> None:
        """An alert that polling found is on record now."""
        self._found[alert.identity] = _Found(key=key, alert=alert)
        self._ended.pop(alert.identity, None)

    async def listed_again(self, listed: Mapping[str, ServiceKey]) -> frozenset[str]:
        """The identities of listed alerts whose end was found here and is still on record."""
        again: set[str] = set()
        for identity, (key, _) in list(self._ended.items()):
            if listed.get(identity) != key:
                continue
            reason = find(await self._reasons(key), f"alert {identity}")
            if reason is None or not may_fire(reason):
                again.add(identity)
                continue
            del self._ended[identity]
            alert = self._undelivered(key, reason)
            if alert is not None:
                self.add(key, alert)
        return frozenset(again)

    async def to_refresh(
        self, listed: Mapping[str, ServiceKey], since: datetime, now: datetime
    ) -> frozenset[str]:
        """The identities of listed alerts that were found here and not reported since then.

        One that was delivered is left to its deliveries, unless the agent silenced it. One that
        was muted fires again.
        """
        due: set[str] = set()
        for key in {one.key for identity, one in self._found.items() if listed.get(identity) == one.key}:
            for reason in await self._reasons(key):
                muted_at = None if reason.withdrawn is None else reason.withdrawn.at
                old = reason.last_true_at < since if muted_at is None else muted_at < now
                if (
                    old
                    and self._undelivered(key, reason) is not None
                    and listed.get(alert_identity(reason)) == key
                ):
                    due.add(alert_identity(reason))
        return frozenset(due)

    async def over(
        self, source: AlertSource, held: Collection[str], every: timedelta, now: datetime
    ) -> list[tuple[ServiceKey, Alert]]:
        """The alerts that have ended, given the fingerprints of the firing alerts.

        Raises if the answer of the source is incomplete: it leads to no conclusion.
        """
        missing: list[_Found] = []
        for one in self._found.values():
            if one.alert.fingerprint.lower() in held:
                one.absent_since, one.answers = None, 0
            else:
                missing.append(one)
        listed = {name: await source.listed(name) for name in sorted({_name(one.alert) for one in missing})}
        ended = []
        for one in missing:
            if one.alert.fingerprint.lower() in listed[_name(one.alert)]:
                one.absent_since, one.answers = None, 0
                continue
            one.absent_since = one.absent_since or now
            one.answers += 1
            lasted = now - one.absent_since
            if one.answers >= ABSENT_ANSWERS and lasted >= max(ABSENT_FOR, 2 * every):
                ended.append(one)
        return [(one.key, one.alert) for one in ended if await self._still_undelivered(one, now)]

    def ended(self, key: ServiceKey, alert: Alert, at: datetime) -> None:
        """The end of the alert is on record."""
        self._found.pop(alert.identity, None)
        self._ended = {one: end for one, end in self._ended.items() if at - end[1] <= FORGOTTEN_AFTER}
        self._ended[alert.identity] = (key, at)

    async def _still_undelivered(self, one: _Found, now: datetime) -> bool:
        """Whether it was neither delivered since `now` nor ended meanwhile; it is forgotten otherwise."""
        found = find(await self._reasons(one.key), f"alert {one.alert.identity}")
        if found is not None and found.last_true_at <= now and self._undelivered(one.key, found) is not None:
            return True
        self._found.pop(one.alert.identity, None)
        return False

    def _undelivered(self, key: ServiceKey, reason: Reason) -> Alert | None:
        """The alert behind a reason, if it may fire and its end is not delivered."""
        return polled_alert(reason) or (withheld_alert(reason) if key in self._silenced else None)

    async def _reasons(self, key: ServiceKey) -> tuple[Reason, ...]:
        levels = await self.signals.levels(key)
        return () if levels is None else levels.reasons


def _name(alert: Alert) -> str:
    """The name by which its source lists it; empty where only a part of it may be known."""
    alertname = dict(alert.labels or ()).get("alertname")
    return (
        alert.name
        if alertname == alert.name and HIDDEN not in alertname and len(alertname) < _WHOLE_NAME
        else ""
    )

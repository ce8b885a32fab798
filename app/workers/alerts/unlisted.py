"""The ends of alerts that polling found: their source lists them no more.

An alert that ended before its source notified of it never gets an end by delivery. Only a
complete answer counts, for any receiver and with what people silenced; a source that has
just restarted lists nothing until its senders repeat what fires, so several answers over
minutes have to agree. What was found is read from the store when a process takes over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.freshness.firings import polled_alert
from app.agent.freshness.memory import FORGOTTEN_AFTER
from app.agent.ids import ServiceKey
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
    """An alert that polling found and that was no delivery so far."""

    key: ServiceKey
    alert: Alert
    absent_since: datetime | None = None
    answers: int = 0
    """The complete answers in a row in which it was missing."""


@dataclass(slots=True, kw_only=True)
class UnlistedAlerts:
    """Remembers the alerts that polling found, and since when their source lists them no more."""

    signals: SignalRepository
    incidents: IncidentRepository
    _found: dict[str, _Found] = field(default_factory=dict)
    """By identity."""

    async def recall(self, now: datetime) -> None:
        """Take over what is on record of the services that had an incident within a day."""
        cursor, keys = None, set[ServiceKey]()
        while True:
            where = IncidentFilter(since=now - FORGOTTEN_AFTER)
            page = await self.incidents.find(where, limit=_PAGE, cursor=cursor)
            keys.update(record.incident.key for record in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        keys.update(one.key for one in await self.incidents.all_open())
        for key in sorted(keys, key=str):
            for alert in await self._polled(key):
                self._found.setdefault(alert.identity, _Found(key=key, alert=alert))

    def add(self, key: ServiceKey, alert: Alert) -> None:
        """An alert that polling found is on record now."""
        self._found[alert.identity] = _Found(key=key, alert=alert)

    async def over(
        self, source: AlertSource, held: Collection[str], every: timedelta, now: datetime
    ) -> list[tuple[ServiceKey, Alert]]:
        """The alerts that are over, given the fingerprints of the alerts that fire now.

        Raises where the source gives no complete answer: nothing is concluded from it.
        """
        missing = [one for one in self._found.values() if one.alert.fingerprint.lower() not in held]
        for one in self._found.values():
            if one not in missing:
                one.absent_since, one.answers = None, 0
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
        return [(one.key, one.alert) for one in ended if await self._still_polled(one)]

    def forget(self, alert: Alert) -> None:
        """The end of the alert is on record."""
        self._found.pop(alert.identity, None)

    async def _still_polled(self, one: _Found) -> bool:
        """Whether it was neither delivered nor ended meanwhile; it is forgotten otherwise."""
        if any(alert.identity == one.alert.identity for alert in await self._polled(one.key)):
            return True
        self.forget(one.alert)
        return False

    async def _polled(self, key: ServiceKey) -> list[Alert]:
        levels = await self.signals.levels(key)
        found = () if levels is None else levels.reasons
        return [alert for reason in found if (alert := polled_alert(reason)) is not None]


def _name(alert: Alert) -> str:
    """The name by which its source lists it; empty where only a part of it may be known."""
    told = dict(alert.labels or ()).get("alertname")
    return alert.name if told == alert.name and HIDDEN not in told and len(told) < _WHOLE_NAME else ""

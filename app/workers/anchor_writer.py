"""Writes an anchor of all records at regular intervals, apart from the database (promise 12).

A duty: one process does it for all. The log also gets the digest, so that a copy of the log on another
system proves which anchors existed.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from app.agent.audit.anchoring import (
    Anchor,
    Head,
    Known,
    digest,
    next_anchor,
    people_head,
    receded,
)
from app.agent.identity.audit_log import AuditLogEntry
from app.agent.ids import IncidentId
from app.agent.ports.store import Store
from app.clock import Clock
from app.connectors.anchors import AnchorFolder
from app.errors import AgentError, Conflict

log = logging.getLogger(__name__)

_PAGE = 1000
_LOOK_EVERY_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchorer:
    """Keeps the folder of anchors up to date."""

    store: Store
    clock: Clock
    folder: AnchorFolder
    every: timedelta

    async def run(self) -> None:
        """For ever: an anchor whenever the newest is older than the interval, or dated in the future."""
        while True:
            try:
                await self.write_if_due()
            except AgentError as error:
                log.warning("audit anchor not written: %s", error)
            await self.clock.sleep(min(_LOOK_EVERY_SECONDS, self.every.total_seconds()))

    async def write_if_due(self) -> Anchor | None:
        """The anchor that was written now, if one was due."""
        known = Known.of(await asyncio.to_thread(self.folder.read))
        now = self.clock.now()
        if known.last is not None and now - self.every < known.last.at <= now:
            return None
        return await self._write(known)

    async def write(self) -> Anchor:
        """An anchor of this moment, due or not. Raises `PermanentError`, or `Conflict` for a race."""
        return await self._write(Known.of(await asyncio.to_thread(self.folder.read)))

    async def _write(self, known: Known) -> Anchor:
        people = people_head(await whole_trail(self.store))
        incidents = await all_heads(self.store)
        for sentence in receded(known, incidents, people):
            log.error("the records do not match the audit anchors: %s", sentence)
        anchor = next_anchor(known, incidents, people, self.clock.now(), self.folder.key)
        try:
            await asyncio.to_thread(self.folder.write, anchor)
        except Conflict:
            log.info("another process wrote audit anchor %d", anchor.number)
            raise
        log.info(
            "audit anchor %d: digest %s, %s, %d incidents changed of %d, %d decisions of people",
            anchor.number,
            digest(anchor),
            "sealed" if anchor.seal else "not sealed",
            len(anchor.incidents),
            len(incidents),
            people.length,
        )
        return anchor


async def all_heads(store: Store) -> dict[IncidentId, Head]:
    """The length and last hash of every timeline."""
    found: dict[IncidentId, Head] = {}
    after: IncidentId | None = None
    while part := await store.incidents.timeline_heads(after=after, limit=_PAGE):
        found.update(part)
        after = part[-1][0]
    return found


async def whole_trail(store: Store) -> tuple[AuditLogEntry, ...]:
    """Every decision of people, oldest first."""
    found: list[AuditLogEntry] = []
    while part := await store.audit_log.entries(after=found[-1].sequence if found else -1, limit=_PAGE):
        found += part
    return tuple(found)

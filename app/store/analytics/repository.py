"""Statistics as SQL: counting, and the judgement of what dry runs proposed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from app.agent.analytics.report import Counted, StatsFilter, StatsPart
from app.agent.analytics.shadow import JUDGED_AFTER, STAYS_HEALTHY_FOR, Judged, Proposal, judged
from app.agent.models import ActionName, Change, IncidentState
from app.store.analytics import rollups
from app.store.analytics.reading import counted_of
from app.store.analytics.spans import block_of
from app.store.database.codec import read
from app.store.database.repository import Repository, reads
from app.store.database.tables import changes, incidents, intents

BATCH = 200
MOST_DAYS = 64
"""Days that one call counts; the next one continues with the rest."""
_LOOK_BACK = timedelta(days=7)
"""Proposals of incidents that ended before are not judged any more."""


class SqlStatistics(Repository):
    """`StatisticsRepository` over SQL."""

    @reads
    def counted(
        self, connection: Connection, where: StatsFilter, parts: Collection[StatsPart] = tuple(StatsPart)
    ) -> Counted:
        rows, outdated = rollups.counted_parts(connection, where, parts)
        return counted_of(rows, outdated)

    async def roll_up(self, now: datetime) -> int:
        days = await self.database.read(partial(rollups.due_days, now=now, most=MOST_DAYS))
        done = [day for day in days if await self.database.write(partial(rollups.count_day, day=day))]
        for block in sorted({block_of(day) for day in done}):
            await self.database.write(partial(rollups.add_up_block, block=block))
        return len(done)

    async def judge(self, now: datetime, known_since: datetime) -> int:
        return await self.in_batches(partial(_judge, now=now, known_since=known_since), BATCH)


def _judge(connection: Connection, now: datetime, known_since: datetime) -> int:
    """Over the index of closing times; nothing else writes the column."""
    wanted: Select[Any] = (
        select(
            incidents.c.id,
            incidents.c.environment,
            incidents.c.service,
            incidents.c.state,
            incidents.c.closed_at,
        )
        .where(
            incidents.c.closed_at > now - _LOOK_BACK,
            incidents.c.closed_at <= now - JUDGED_AFTER,
            incidents.c.dry_run,
            incidents.c.judged.is_(None),
        )
        .order_by(incidents.c.closed_at)
        .limit(BATCH)
    )
    rows = connection.execute(wanted).all()
    for row in rows:
        found = _of_incident(connection, row, known_since)
        connection.execute(update(incidents).where(incidents.c.id == row.id).values(judged=found.value))
    return len(rows)


def _of_incident(connection: Connection, row: Row[Any], known_since: datetime) -> Judged:
    first = connection.execute(
        select(intents.c.action, intents.c.decided_at)
        .where(
            intents.c.incident_id == row.id,
            intents.c.dry_run,
            intents.c.undoes.is_(None),
            intents.c.decided_at.is_not(None),
        )
        .order_by(intents.c.sequence)
        .limit(1)
    ).one_or_none()
    if first is None:
        return Judged.NONE
    last = row.closed_at + JUDGED_AFTER
    made = connection.execute(
        select(changes.c.body, changes.c.at).where(
            changes.c.at >= first.decided_at,
            changes.c.at <= last,
            changes.c.environment == row.environment,
            changes.c.service == row.service,
        )
    )
    later = connection.execute(
        select(incidents.c.opened_at).where(
            incidents.c.service == row.service,
            incidents.c.environment == row.environment,
            incidents.c.opened_at > first.decided_at,
            incidents.c.opened_at <= last + STAYS_HEALTHY_FOR,
        )
    ).scalars()
    proposal = Proposal(
        action=ActionName(first.action),
        at=first.decided_at,
        ended_at=row.closed_at,
        recovered=row.state == IncidentState.RECOVERED_WITHOUT_ACTION.value,
    )
    return judged(proposal, [(read(Change, one.body).kind, one.at) for one in made], [*later], known_since)

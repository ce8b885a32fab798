"""Fills PostgreSQL with a year of incidents and their timelines, by copies inside the database.

A few incidents are played by the real agent on the simulated cluster: one recovered after an
approval, one denied, one proposed by a dry run, one that still awaits approval. Every other
incident is a copy of one of their rows under its own id, service and times; the hashes of its
timeline are not those of its chain (`chain` repairs them for the incidents that are read).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, create_engine, insert, select, text, update

from app.agent.ids import IncidentId
from app.agent.models import Note
from app.agent.timeline import chain_start, extend_chain
from app.store.database.tables import approvals, incidents, intents, timeline
from app.store.timeline import entries
from tests.stories import ACTING, NAMESPACE, SERVICE, story

YEAR = timedelta(days=365)
SERVICES = 500
ACTIVE = 60
"""The newest incidents, which await approval."""
_BATCH = 20_000
_WRITERS = 2
_ENDED = ("approved", "denied", "dry-run")
_ASKED = "asked"

_AS_IN_STATISTICS = {
    "cause": "CASE m.k % 5 WHEN 0 THEN 'bad_release' WHEN 1 THEN 'bad_config' WHEN 2 THEN 'memory_leak'"
    " WHEN 3 THEN 'traffic_surge' ELSE 'unknown' END",
    "severity": "CASE m.k % 7 WHEN 0 THEN 'critical' WHEN 1 THEN 'minor' ELSE 'major' END",
}
_COPIED = {
    "incidents": {
        "id": "m.id",
        "environment": "m.environment",
        "service": "m.service",
        "opened_at": "m.at",
        "body": "replace(CAST(t.body AS text), t.id, m.id)::json",
        "timeline_length": ":entries",
        "search": "m.service || ' ' || m.environment || ' ' || m.id || ' ' || t.search",
        "began_at": "m.at - make_interval(secs => m.k % 600)",
        "acknowledged_at": "CASE WHEN m.k % 2 = 0 THEN m.at + make_interval(secs => m.k % 3600) END",
        "restored_at": "CASE WHEN t.restored_at IS NOT NULL"
        " THEN m.at + make_interval(secs => 60 + (m.k * 7919) % 7200) END",
        **_AS_IN_STATISTICS,
    },
    "intents": {
        "id": "'int_' || md5(m.k || '/' || t.sequence)",
        "incident_id": "m.id",
        "environment": "m.environment",
        "service": "m.service",
        "reason": "CASE WHEN t.reason IS NOT NULL THEN 'error budget of the service spent: ' || m.k % 40 END",
        "approval": "CASE WHEN t.approval IS NOT NULL THEN 'apr_' || md5(m.k || '/1') END",
        "cause": _AS_IN_STATISTICS["cause"],
    },
    "approvals": {"id": "'apr_' || md5(m.k || '/1')", "incident_id": "m.id"},
}
_TIMES = {
    "incidents": ("closed_at", "wake_at"),
    "intents": ("started_at", "decided_at"),
    "approvals": ("requested_at", "expires_at", "answered_at"),
}
_MADE = (
    "SELECT k, 'inc_' || md5(k::text) AS id,"  # noqa: S608 - constants
    " CAST(:begin AS timestamptz) + k * CAST(:apart AS interval) AS at,"
    f" 'service-' || (k % {SERVICES}) AS service,"
    " CASE k % 3 WHEN 0 THEN 'staging' ELSE 'prod' END AS environment"
    " FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint), CAST(:stride AS bigint)) AS k"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much history there is, and when it ends."""

    incidents: int
    entries: int
    """Timeline entries of each incident."""
    until: datetime

    @property
    def apart(self) -> timedelta:
        return YEAR / self.incidents

    @property
    def begin(self) -> datetime:
        return self.until - YEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The rows of one incident that the agent handled."""

    incident: Row[Any]
    intents: Sequence[Row[Any]]
    approvals: Sequence[Row[Any]]
    timeline: Sequence[Row[Any]]


def engine_of(url: str) -> Engine:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))


async def play(folder: Path) -> Mapping[str, Played]:
    """Handle one incident each way with the real loop; their rows."""
    found = {}
    for name in (*_ENDED, _ASKED):
        own = folder / name
        own.mkdir()
        found[name] = await _played(own, name)
    return found


async def _played(folder: Path, name: str) -> Played:
    settings = {} if name == "dry-run" else {**ACTING, "approval_for_risks": frozenset({"high"})}
    async with story(folder, on_file=True, **settings) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        if name != "dry-run":
            asked = await stage.live_until_asked()
            if name != _ASKED:
                await stage.say(asked, yes=name == "approved", comment="seen")
        if name != _ASKED:
            await stage.live_until_ended()
        record = await stage.newest()
        if record is None:
            raise LookupError(f"{name}: no incident was opened")
        engine = create_engine(f"sqlite:///{folder}/heal.db")
        with engine.connect() as connection:
            return _rows_of(connection, record.incident.id)


def _rows_of(connection: Connection, incident_id: IncidentId) -> Played:
    def of(table: Any) -> Sequence[Row[Any]]:
        return connection.execute(select(table).where(table.c.incident_id == incident_id)).all()

    [incident] = connection.execute(select(incidents).where(incidents.c.id == incident_id)).all()
    lines = sorted(of(timeline), key=lambda entry: int(entry.sequence))
    return Played(incident=incident, intents=of(intents), approvals=of(approvals), timeline=lines)


def load(url: str, played: Mapping[str, Played], size: Size, say: Callable[[str], None]) -> None:
    """Copy the incidents over the year; keys and indexes are built after it, triggers do not run."""
    engine = engine_of(url)
    with engine.begin() as connection:
        _store_patterns(connection, played, size)
        found = _definitions(connection)
        for each in found:
            connection.execute(text(each.drop))

    def copied(batch: tuple[int, int]) -> None:
        with engine.begin() as connection:
            _unguarded(connection)
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            _copy(connection, played, size, *batch)

    batches = list(_batches(size))
    with ThreadPoolExecutor(max_workers=_WRITERS) as writers:
        for number, _ in enumerate(writers.map(copied, batches), start=1):
            if number % max(1, len(batches) // 10) == 0:
                say(f"{100 * number // len(batches)} % loaded")
    with engine.begin() as connection:
        _unguarded(connection)
        for each in reversed(found):
            say(each.create[:100])
            connection.execute(text(each.create))
        for name in ("timeline", "approvals", "intents"):
            chosen = f"DELETE FROM {name} WHERE incident_id IN (SELECT id FROM patterns)"  # noqa: S608 - ours
            connection.execute(text(chosen))
        connection.execute(text("DELETE FROM incidents WHERE id IN (SELECT id FROM patterns)"))
        connection.execute(text("DROP TABLE pattern_entries, patterns"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def _unguarded(connection: Connection) -> None:
    """For this transaction: no foreign keys, no triggers, so that timelines can be replaced."""
    connection.execute(text("SET LOCAL session_replication_role = replica"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Definition:
    """How to drop a key or an index of the tables that are filled, and how to build it again."""

    drop: str
    create: str


def _definitions(connection: Connection) -> list[_Definition]:
    """All of them, in an order in which they can be dropped: foreign keys first, then other keys."""
    tables = {"names": [*_COPIED, timeline.name]}
    keys = connection.execute(
        text(
            "SELECT conrelid::regclass AS of, conname AS name, pg_get_constraintdef(oid) AS meaning"
            " FROM pg_constraint WHERE contype IN ('f', 'p', 'u')"
            " AND (conrelid = ANY (CAST(:names AS regclass[]))"
            " OR confrelid = ANY (CAST(:names AS regclass[])))"
            " ORDER BY contype <> 'f', conrelid, conname"
        ),
        tables,
    ).all()
    indexes = connection.execute(
        text(
            "SELECT indexrelid::regclass AS name, pg_get_indexdef(indexrelid) AS meaning FROM pg_index"
            " WHERE indrelid = ANY (CAST(:names AS regclass[])) AND NOT EXISTS"
            " (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')"
            " ORDER BY indexrelid"
        ),
        tables,
    ).all()
    return [
        _Definition(
            drop=f"ALTER TABLE {key.of} DROP CONSTRAINT {key.name}",
            create=f"ALTER TABLE {key.of} ADD CONSTRAINT {key.name} {key.meaning}",
        )
        for key in keys
    ] + [_Definition(drop=f"DROP INDEX {index.name}", create=index.meaning) for index in indexes]


def _batches(size: Size) -> Iterator[tuple[int, int]]:
    """First and last number, inclusive; the active ones come last, in a batch of their own."""
    ended = size.incidents - ACTIVE
    for first in range(1, ended + 1, _BATCH):
        yield first, min(first + _BATCH - 1, ended)
    yield ended + 1, size.incidents


def _store_patterns(connection: Connection, played: Mapping[str, Played], size: Size) -> None:
    """The incidents to copy, and what each entry of a copy is like."""
    _unguarded(connection)
    connection.execute(text("CREATE TABLE patterns (id text PRIMARY KEY)"))
    connection.execute(
        text(
            "CREATE TABLE pattern_entries (name text, sequence int, later interval, stage text,"
            " message text, data json)"
        )
    )
    for name, one in played.items():
        connection.execute(text("INSERT INTO patterns VALUES (:id)"), {"id": one.incident.id})
        for table, rows in ((incidents, [one.incident]), (intents, one.intents), (approvals, one.approvals)):
            if rows:
                connection.execute(insert(table), [dict(row._mapping) for row in rows])
        connection.execute(insert(timeline), [dict(row._mapping) for row in one.timeline])
        length = len(one.timeline)
        for sequence in range(size.entries):
            connection.execute(
                text(
                    "INSERT INTO pattern_entries SELECT :name, :sequence, e.at - i.opened_at"
                    " + CAST(:round AS int) * interval '10 minutes', e.stage, e.message, e.data"
                    " FROM timeline e JOIN incidents i ON i.id = e.incident_id"
                    " WHERE e.incident_id = :id AND e.sequence = :like"
                ),
                {
                    "name": name,
                    "sequence": sequence,
                    "round": sequence // length,
                    "id": one.incident.id,
                    "like": sequence % length,
                },
            )


def _copy(connection: Connection, played: Mapping[str, Played], size: Size, first: int, last: int) -> None:
    kinds = [_ASKED] if first > size.incidents - ACTIVE else list(_ENDED)
    for offset, name in enumerate(kinds):
        values = {
            "begin": size.begin,
            "apart": size.apart,
            "first": first + offset,
            "last": last,
            "stride": len(kinds),
            "entries": size.entries,
            "pattern": played[name].incident.id,
            "name": name,
        }
        for table in (incidents, intents, approvals):
            connection.execute(text(_statement(table)), values)
        connection.execute(
            text(
                "INSERT INTO timeline (incident_id, sequence, at, stage, message, data, hash)"  # noqa: S608
                " SELECT m.id, e.sequence, m.at + e.later, e.stage, e.message, e.data,"
                " encode(sha256(convert_to(m.id || e.sequence, 'UTF8')), 'hex')"
                f" FROM ({_MADE}) AS m CROSS JOIN pattern_entries AS e WHERE e.name = :name"
                " ORDER BY m.k, e.sequence"
            ),
            values,
        )


def _statement(table: Any) -> str:
    """INSERT ... SELECT of copies: the columns that differ, times moved along, the rest as in the pattern."""
    name = str(table.name)
    own = {
        **{column: f"m.at + (t.{column} - p.opened_at)" for column in _TIMES[name]},
        **_COPIED[name],
    }
    columns = [column.name for column in table.columns]
    chosen = ", ".join(own.get(column, f"t.{column}") for column in columns)
    key = "id" if name == "incidents" else "incident_id"
    return (
        f"INSERT INTO {name} ({', '.join(columns)}) SELECT {chosen}"  # noqa: S608 - names of our tables
        f" FROM ({_MADE}) AS m CROSS JOIN {name} AS t JOIN incidents AS p ON p.id = :pattern"
        f" WHERE t.{key} = :pattern"
    )


def chain(url: str, ids: Sequence[str]) -> None:
    """Give the timelines of these incidents the hashes of their chains, as the store writes them."""
    engine = engine_of(url)
    with engine.begin() as connection:
        _unguarded(connection)
        for each in map(IncidentId, ids):
            notes = [
                Note(at=one.at, stage=one.stage, message=one.message, data=one.data)
                for one in entries(connection, each)
            ]
            linked = extend_chain(chain_start(each), 0, notes)
            for entry in linked:
                connection.execute(
                    update(timeline)
                    .where(timeline.c.incident_id == each, timeline.c.sequence == entry.sequence)
                    .values(hash=entry.hash)
                )
            connection.execute(
                update(incidents).where(incidents.c.id == each).values(timeline_head=linked[-1].hash)
            )
    engine.dispose()


def played_in(folder: Path) -> Mapping[str, Played]:
    """`play`, for callers without an event loop."""
    return asyncio.run(play(folder))

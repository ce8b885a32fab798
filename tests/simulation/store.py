"""The shared database of a simulation: the real statements over one SQLite in memory, and the wire to it.

SQLite stands for a PostgreSQL that several processes share: each unit of work is
one serial transaction, and the caller is somewhere else, behind a connection
that can be slow, break before the request arrives, or break before the answer
does. Triggers write what is committed to the tape. Concurrency inside PostgreSQL
(locks, isolation) is the contract suite's business, not this one's.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, create_engine, event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import StaticPool

from app.store.database import codec
from app.store.database.migrate import upgrade
from app.store.database.port import Work, translated
from app.store.database.tables import incidents
from tests.simulation.tape import (
    ApprovalMoved,
    BrakeSet,
    ClaimMoved,
    Entry,
    IncidentMoved,
    IntentMoved,
    Nudged,
    SignalMoved,
    Tampered,
    Tape,
)

if TYPE_CHECKING:
    from tests.simulation.host import Host

T = TypeVar("T")

_HOLDER = "(SELECT owner FROM claims WHERE incident_id = {row}.{column})"

_TRIGGERS = {
    "incidents": (
        ("INSERT", "incident", "NEW.id, NEW.service, NULL, NEW.state, NEW.dry_run, NULL", None),
        (
            "UPDATE",
            "incident",
            "NEW.id, NEW.service, OLD.state, NEW.state, NEW.dry_run, "
            + _HOLDER.format(row="NEW", column="id"),
            "OLD.version <> NEW.version OR OLD.state <> NEW.state",
        ),
        ("UPDATE", "nudge", "NEW.id", "OLD.nudges <> NEW.nudges"),
    ),
    "intents": (
        (
            "INSERT",
            "intent",
            "NEW.id, NEW.incident_id, NULL, NEW.state, NEW.undoes, NEW.attempts, "
            + _HOLDER.format(row="NEW", column="incident_id"),
            None,
        ),
        (
            "UPDATE",
            "intent",
            "NEW.id, NEW.incident_id, OLD.state, NEW.state, NEW.undoes, NEW.attempts, "
            + _HOLDER.format(row="NEW", column="incident_id"),
            None,
        ),
    ),
    "claims": (
        ("INSERT", "claim", "NEW.incident_id, NEW.owner, NEW.token", None),
        (
            "UPDATE",
            "claim",
            "NEW.incident_id, NEW.owner, NEW.token",
            "OLD.token <> NEW.token OR OLD.owner IS NOT NEW.owner",
        ),
    ),
    "signals": (
        ("INSERT", "signal", "NEW.id, NULL, NEW.disposition", None),
        ("UPDATE", "signal", "NEW.id, OLD.disposition, NEW.disposition", None),
    ),
    "samples": (
        ("INSERT", "signal", "printf('sig_ffffffffffffffff%016d', NEW.number), NULL, 'ignored'", None),
    ),
    "approvals": (
        ("INSERT", "approval", "NEW.id, NEW.incident_id, NULL, NEW.state", None),
        ("UPDATE", "approval", "NEW.id, NEW.incident_id, OLD.state, NEW.state", None),
    ),
    "brakes": (("UPDATE", "brake", "NEW.engaged", None),),
    "timeline": (
        ("UPDATE", "tamper", "OLD.incident_id", None),
        ("DELETE", "tamper", "OLD.incident_id", None),
    ),
}


class SharedDatabase:
    """One database for every host; emptied for each seed, kept for its compiled statements."""

    def __init__(self) -> None:
        self._raw = sqlite3.connect(":memory:", check_same_thread=False)
        self._raw.isolation_level = None
        self._raw.create_function("sim_note", -1, self._note)
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: self._raw,
            poolclass=StaticPool,
            json_serializer=codec.dumps,
            json_deserializer=codec.loads,
        )
        event.listen(self._engine, "begin", _begin)
        event.listen(self._engine, "connect", _own_transactions)
        self._template = sqlite3.connect(":memory:")
        with self._engine.connect() as connection, connection.begin():
            upgrade(connection)
            for statement in _triggers():
                connection.exec_driver_sql(statement)
        self._raw.backup(self._template)
        self._tape: Tape | None = None
        self._who = "people"
        self._pending: list[Entry] = []

    def empty(self, tape: Tape) -> None:
        """As freshly migrated; what is committed from now on goes to that tape."""
        self._template.backup(self._raw)
        self._tape = tape

    def run(self, work: Work[T], who: str) -> T:
        """One unit of work, committed or without a trace; raises what the product's databases raise."""
        self._who, self._pending = who, []
        try:
            with self._engine.connect() as connection, connection.begin():
                result = work(connection)
        except Exception as error:
            raise translated(error) from error
        if self._tape is not None:
            for entry in self._pending:
                self._tape.write(entry)
        return result

    def _note(self, kind: str, *values: Any) -> None:
        if self._tape is not None:
            self._pending.append(_entry(kind, self._tape.now(), self._who, values))


class HostDatabase:
    """A `Database` as one host has it: the wire between the two is where things go wrong."""

    def __init__(self, shared: SharedDatabase, host: Host) -> None:
        self._shared = shared
        self._host = host

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._ask(work, "write")

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._ask(work, "read")

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        """The database outlives its users."""

    async def _ask(self, work: Work[T], how: str) -> T:
        wire = self._host.wire
        await wire.leave(f"store.{how}")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        begins = getattr(work, "__qualname__", "") == "SqlIntents.begin"
        delay = self._host.ground.beginning() if begins else None
        wire.send(f"store.{how}", lambda: _serve(self._shared, work, self._host.name, answer), delay)
        result = await wire.answered(answer)
        await wire.arrive(f"store.{how}")
        return result


class Nearby:
    """A `Database` without a wire: for those who look on."""

    def __init__(self, shared: SharedDatabase) -> None:
        self._shared = shared

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        return self._shared.run(work, "people")

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return self._shared.run(work, "people")

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        """The database outlives its users."""


def heads(connection: Connection) -> dict[str, tuple[int, str]]:
    """Length and last hash of every timeline, as the incident's own row keeps them."""
    rows = connection.execute(select(incidents.c.id, incidents.c.timeline_length, incidents.c.timeline_head))
    return {row.id: (row.timeline_length, row.timeline_head) for row in rows}


def _serve(shared: SharedDatabase, work: Work[T], who: str, answer: asyncio.Future[T]) -> None:
    try:
        result = shared.run(work, who)
    except Exception as error:  # noqa: BLE001 - the server's side of a wire: the asker gets the error
        if not answer.done():
            answer.set_exception(error)
    else:
        if not answer.done():
            answer.set_result(result)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _own_transactions(connection: DBAPIConnection, _record: object) -> None:
    cast("Any", connection).isolation_level = None


def _triggers() -> list[str]:
    found = []
    for table, rules in _TRIGGERS.items():
        for number, (verb, kind, values, when) in enumerate(rules):
            condition = f"WHEN {when} " if when else ""
            found.append(
                f"CREATE TRIGGER sim_{table}_{number} AFTER {verb} ON {table} {condition}"
                f"BEGIN SELECT sim_note('{kind}', {values}); END"
            )
    return found


def _entry(kind: str, at: float, who: str, values: tuple[Any, ...]) -> Entry:
    made: dict[str, Callable[..., Entry]] = {
        "incident": lambda incident, service, before, after, dry_run, owner: IncidentMoved(
            at=at,
            who=who,
            incident=incident,
            service=service,
            before=before,
            after=after,
            dry_run=bool(dry_run),
            owner=owner,
        ),
        "intent": lambda intent, incident, before, after, undoes, attempts, owner: IntentMoved(
            at=at,
            who=who,
            intent=intent,
            incident=incident,
            before=before,
            after=after,
            undoes=undoes,
            attempts=attempts,
            owner=owner,
        ),
        "claim": lambda incident, owner, token: ClaimMoved(
            at=at, who=who, incident=incident, owner=owner, token=token
        ),
        "signal": lambda signal, before, after: SignalMoved(
            at=at, who=who, signal=signal, before=before, after=after
        ),
        "approval": lambda approval, incident, before, after: ApprovalMoved(
            at=at, who=who, approval=approval, incident=incident, before=before, after=after
        ),
        "brake": lambda engaged: BrakeSet(at=at, who=who, engaged=bool(engaged)),
        "nudge": lambda incident: Nudged(at=at, who=who, incident=incident),
        "tamper": lambda incident: Tampered(at=at, who=who, incident=incident),
    }
    return made[kind](*values)

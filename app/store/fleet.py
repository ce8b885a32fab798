"""Worker liveness, leases and notifications over the database; the `Fleet` port of `app.agent.ports`.

On PostgreSQL each process holds a session advisory lock on a connection of its own. The kernel closes that
connection when the process dies, the server frees the lock, and the first peer that gets it voids the
claims of the dead process: a take-over does not wait for a lease to expire. A process that is cut off loses
its lock once the server notices (TCP keepalives); until then the leases of claims expire. Safety does not
depend on any of this: fencing tokens reject late writers (promises 2 and 3).

On SQLite one process owns the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, delete, insert, select, text, update

from app.agent.freshness.clock_jumps import FAR_AHEAD
from app.errors import ConfigurationError, TransientError
from app.store import claims
from app.store.database import locks
from app.store.database.migrate import newest_schema
from app.store.database.notify import CHANNEL
from app.store.database.port import Database
from app.store.database.postgresql import DRIVER_ERRORS, as_agent_error
from app.store.database.servers import Connect
from app.store.database.tables import leases, workers

ANSWER_SECONDS = 5.0
"""How long the liveness connection may take to answer before it counts as broken."""

GRACE_SECONDS = 3.0
"""Grace period after losing our own connection, in which no peer is declared dead: peers lost theirs too."""


class PostgresFleet:
    """Any number of processes over one PostgreSQL."""

    def __init__(self, database: Database, connect: Connect) -> None:
        self._database = database
        self._connect = connect
        self._owner: str | None = None
        self._presence: Any = None
        self._woken = asyncio.Event()
        self._lenient_until = 0.0

    async def enter(self, owner: str) -> None:
        self._owner = owner
        await self._present(owner)

    async def reap(self) -> tuple[str, ...]:
        owner = self._owner
        if owner is None:
            return ()
        await self._stay(owner)
        if asyncio.get_running_loop().time() < self._lenient_until:
            return ()  # a database that restarted broke everybody's connection: let the living come back
        return await self._database.write(lambda connection: _release_dead(connection, owner))

    async def elect(self, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
        return await self._database.write(lambda connection: _elect(connection, duty, owner, lease, now))

    async def resign(self, duty: str, owner: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                update(leases).where(leases.c.duty == duty, leases.c.owner == owner).values(owner=None)
            )

        await self._database.write(work)

    async def woken(self) -> None:
        await self._woken.wait()
        self._woken.clear()

    async def leave(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            # Out of reach: peers find the lock free, and do the same.
            with contextlib.suppress(TransientError):
                await self._database.write(lambda connection: _forget(connection, owner))
        await self._absent()

    async def _stay(self, owner: str) -> None:
        """Check that the connection is alive; open a new one if it is not."""
        try:
            if self._presence is not None:
                counted = "SELECT true FROM workers WHERE owner = $1"
                if await asyncio.wait_for(self._presence.fetchval(counted, owner), ANSWER_SECONDS):
                    return
                await self._absent()  # a peer found the lock free for a moment and fenced this process
        except DRIVER_ERRORS:
            await self._absent()
        await self._present(owner)
        self._lenient_until = asyncio.get_running_loop().time() + GRACE_SECONDS

    async def _present(self, owner: str) -> None:
        try:
            connection = await self._connect()
        except DRIVER_ERRORS as error:
            raise as_agent_error(error) from error
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM workers WHERE owner = $1", owner)
                number = await connection.fetchval(
                    "INSERT INTO workers (owner, entered_at, schema) VALUES ($1, now(), $2) RETURNING number",
                    owner,
                    newest_schema(),
                )
                # Held before the row shows, so that no peer declares the new worker dead.
                await connection.execute(
                    "SELECT pg_advisory_lock($1::int, $2::int)", int(locks.Space.ALIVE), number
                )
            await connection.add_listener(CHANNEL, self._on_ring)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise as_agent_error(error) from error
        except BaseException:
            connection.terminate()  # cancelled while connecting: no other reference exists
            raise
        self._presence = connection
        self._woken.set()  # notifications missed while disconnected

    async def _absent(self) -> None:
        connection, self._presence = self._presence, None
        if connection is not None:
            connection.terminate()

    def _on_ring(self, *_: object) -> None:
        self._woken.set()


class Alone:
    """A `Fleet` of one, for agents that do not share their store: tests and simulations."""

    async def enter(self, owner: str) -> None:
        """No peer to notify."""

    async def reap(self) -> tuple[str, ...]:
        return ()

    async def elect(
        self,
        duty: str,  # noqa: ARG002 - the port's signature; a single process leads
        owner: str,  # noqa: ARG002 - as above
        lease: timedelta,  # noqa: ARG002 - as above
        now: datetime,  # noqa: ARG002 - as above
    ) -> bool:
        return True

    async def resign(self, duty: str, owner: str) -> None:
        """No peer waits for the lease."""

    async def woken(self) -> None:
        await asyncio.Event().wait()

    async def leave(self) -> None:
        """No peer to notify."""


class EmbeddedFleet(Alone):
    """The one process of an SQLite file."""

    def __init__(self, database: Database, file: Path) -> None:
        self._database = database
        self._file = file
        self._held: IO[bytes] | None = None
        self._owner: str | None = None

    async def enter(self, owner: str) -> None:
        """Own the file, and take over the work of a predecessor; `ConfigurationError` while another runs."""
        self._held = only_process(self._file)
        self._owner = owner
        await self._database.write(lambda connection: claims.release_owner(connection, owner))

    async def leave(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            with contextlib.suppress(TransientError):
                await self._database.write(lambda connection: claims.release_owner(connection, owner))
        if self._held is not None:
            self._held.close()
            self._held = None


def only_process(database: Path) -> IO[bytes]:
    """Hold an SQLite database for this process alone, until the file is closed or the process dies.

    Raises `ConfigurationError` while another one holds it. Earlier versions locked a file with the same
    name, so that two versions also exclude each other.
    """
    name = f"{database.stem}.engine{database.suffix}.lock"
    held = database.with_name(name).open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise ConfigurationError(
            f"another agent runs on {database.name}: SQLite serves one process; stop it, name another "
            "DATABASE_URL, or use PostgreSQL, which serves any number"
        ) from None
    return held


# ---------------------------------------------------------------- statements


def _release_dead(connection: Connection, me: str) -> tuple[str, ...]:
    """Owners whose lock is free have died: release everything they held at once."""
    dead = connection.execute(
        text(
            "SELECT number, owner FROM workers WHERE owner <> :me"
            " AND pg_try_advisory_xact_lock(CAST(:space AS int), CAST(number AS int)) ORDER BY number"
        ),
        {"me": me, "space": int(locks.Space.ALIVE)},
    ).all()
    # By its number: an owner that has registered again has another number, and is alive.
    reaped = [
        str(owner)
        for number, owner in dead
        if connection.execute(delete(workers).where(workers.c.number == number)).rowcount
    ]
    for owner in reaped:
        _forget(connection, owner)
    return tuple(reaped)


def _forget(connection: Connection, owner: str) -> None:
    claims.release_owner(connection, owner)
    connection.execute(update(leases).where(leases.c.owner == owner).values(owner=None))
    connection.execute(delete(workers).where(workers.c.owner == owner))


def _elect(connection: Connection, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
    held = connection.execute(select(leases).where(leases.c.duty == duty).with_for_update()).one_or_none()
    if held is None:
        connection.execute(insert(leases).values(duty=duty, owner=owner, expires_at=now + lease))
        return True
    if held.owner not in {None, owner} and now < held.expires_at <= now + FAR_AHEAD:
        return False
    connection.execute(
        update(leases).where(leases.c.duty == duty).values(owner=owner, expires_at=now + lease)
    )
    return True

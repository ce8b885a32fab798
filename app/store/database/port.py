"""How work reaches a database: what both execution strategies share.

Every query of the store is written once, as a function over a SQLAlchemy
`Connection`. `SqliteDatabase` runs such functions on one writer thread with
group commit, `PostgresDatabase` on a pool of connections. Driver errors leave
this package as the classes of `app.errors`, and `translated` is the one place
that decides which.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import AgentError, Forbidden, Invalid, PermanentError, TransientError

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]
"""One unit of work: all or nothing. It may run twice, and must not keep state."""


@dataclass(frozen=True, slots=True, eq=False)
class Brief(Generic[T]):
    """A unit of work that takes a few milliseconds, and that most others wait for.

    Where a commit is quick, it may run on the thread of its caller: handing work over to
    a thread and back costs more than recording a signal.
    """

    work: Work[T]

    def __call__(self, connection: Connection) -> T:
        return self.work(connection)


class DiskFull(TransientError):
    """The disk of the database has no room: the write was refused, and succeeds once there is room."""


_DISK_FULL = "53100"
_SQLITE_DISK_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})
"""Out of room, and a write that the system refused, as at a quota or a limit on the size of files."""
_BUSY_CLASSES = frozenset({"08", "25", "40", "53", "57", "58"})
"""SQLSTATE classes that pass: connection, read-only peer, rollback, resources, shutdown, I/O."""
_LOCK_NOT_AVAILABLE = "55P03"
_CROWDED = timedelta(seconds=2)
"""When to ask again a database that is out of connections, memory or disk."""
_REJECTED_CLASSES = frozenset({"22", "23", "54"})
"""Bad data, violated constraint, value too large."""


class Database(Protocol):
    """Runs units of work against one database."""

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        """The result of the work, once it is durable; an error in the work undoes only this work.

        A `TransientError` at the very end can mean that the commit happened and
        its answer was lost: each unit is written so that a repetition is harmless.
        `urgent` is the lane of operators: it waits for no other caller.
        """
        ...

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        """The work's result over one consistent snapshot that contains every finished write."""
        ...

    async def same(self) -> None:
        """Raise `TransientError` if the database is no longer the one that was opened, or out of room.

        Out of room: within the last minute a write was refused because the disk is full. The
        small write of a probe may find room where a signal finds none.
        """
        ...

    async def close(self) -> None:
        """Finish running work and close the database; may be called twice."""
        ...


def sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's error code, whether the error came through SQLAlchemy or straight from the driver."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlstate", None)
    return code if isinstance(code, str) else None


def translated(error: Exception) -> Exception:
    """The agent's error for a driver's error; an unknown error stays unchanged."""
    if isinstance(error, AgentError):
        return error
    code = sqlstate(error)
    if code is not None:
        return _by_sqlstate(code, error)
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return TransientError(f"the connection to the database broke: {error.orig}")
        return _by_sqlite_class(type(error).__name__, error.orig)
    if isinstance(error, sqlite3.Error):
        return _by_sqlite_class(type(error).__name__, error)
    if isinstance(error, StatementError):
        return Invalid(f"a value cannot be stored: {error.orig}")
    if isinstance(error, PoolTimeout | OSError | TimeoutError):
        return TransientError(f"the database does not answer: {str(error) or type(error).__name__}")
    return error


def _by_sqlstate(code: str, error: Exception) -> AgentError:
    detail = error.orig if isinstance(error, DBAPIError) else error
    if code == _DISK_FULL:
        return DiskFull(f"the disk of the database is full ({code}): {detail}", retry_after=_CROWDED)
    if code[:2] in _BUSY_CLASSES or code == _LOCK_NOT_AVAILABLE:
        wait = _CROWDED if code[:2] == "53" else None
        return TransientError(f"the database cannot serve this now ({code}): {detail}", retry_after=wait)
    if code[:2] in _REJECTED_CLASSES:
        return Invalid(f"the database rejected a value ({code}): {detail}")
    if code == "42501" or code[:2] == "28":
        return Forbidden(f"the database refused the agent's account ({code}): {detail}")
    return PermanentError(f"the database rejected a statement ({code}): {detail}")


def _by_sqlite_class(name: str, detail: BaseException | None) -> AgentError:
    """Without an SQLSTATE there is the class of SQLite's error, the same with SQLAlchemy and without."""
    if getattr(detail, "sqlite_errorcode", None) in _SQLITE_DISK_FULL:
        return DiskFull(f"the disk of the database is full: {detail}", retry_after=_CROWDED)
    match name:
        case "IntegrityError" | "DataError":
            return Invalid(f"the database rejected a value: {detail}")
        case "OperationalError" | "InterfaceError":
            return TransientError(f"the database cannot serve this now: {detail}")
        case _:
            return PermanentError(f"the database rejected a statement: {detail}")

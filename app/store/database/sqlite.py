"""SQLite: one writer thread with group commit, readers beside it.

The embedded default. WAL lets readers continue while the writer works, and `synchronous=FULL` makes a
commit survive power loss, so an answer given after the commit is durable (promises 2 and 9). Callers wait
on a future that is resolved after the commit; units that queue up in the meantime share the next one. Each
unit runs inside a savepoint, so that a failed unit affects no other. Writes of operators (the kill switch,
approvals, tokens) have a separate lane: they run before all waiting units, and a running batch is committed
at the next unit to make room for them. Short work runs on the thread of its caller while nothing else waits
for the connection and commits are fast. Other processes may use the same file: `BEGIN IMMEDIATE` waits for
them up to `BUSY_SECONDS` on the writer's thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from app.errors import ConfigurationError, TransientError
from app.store.database import codec
from app.store.database.commit_pace import CommitPace
from app.store.database.migrate import upgrade
from app.store.database.port import Brief, Work, translated
from app.store.database.sole_writer import allow_memory, kept_if_committed
from app.store.database.writable import Disk

T = TypeVar("T")

BUSY_SECONDS = 10.0
MAX_BATCH = 512
BATCH_SECONDS = 0.25
"""A commit that took in units for this long takes no further one: those behind it wait no longer."""
READERS = 4
_PATIENCE = "seconds it waits for other processes"


@dataclass(slots=True, eq=False)
class _Item:
    """A unit of work on its way through the writer thread."""

    work: Work[Any]
    urgent: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any] | None
    """The future of the caller; None if the work runs on the caller's thread."""
    result: Any = None
    error: Exception | None = None

    def answer(self) -> Any:
        """The result of the work; raises its error."""
        if self.error is not None:
            raise self.error
        return self.result


class SqliteDatabase:
    """One SQLite file; opened by `open_sqlite`."""

    def __init__(self, path: Path, writer: Engine, reader: Engine) -> None:
        self._path = path
        self._file = _identity(path)
        self._writer_engine = writer
        self._reader_engine = reader
        self._operators: deque[_Item] = deque()
        self._others: deque[_Item] = deque()
        self._arrived = threading.Condition()
        self._closed = False
        self._in_use = False
        """A transaction is under way on the one connection that writes."""
        self._disk = Disk()
        self._pace = CommitPace()
        """While commits are slow, every one runs on the writer's thread."""
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._operators_reader = ThreadPoolExecutor(1, thread_name_prefix="store-operators")
        self._writer = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._writer.start()

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        loop = asyncio.get_running_loop()
        if isinstance(work, Brief) and self._may_run_here():
            item = _Item(work, urgent, loop, None)
            if self._run_here(item):
                return cast("T", item.answer())
        future: asyncio.Future[T] = loop.create_future()
        with self._arrived:  # nothing may queue up after the store is closed: no thread would answer it
            self._require_open()
            (self._operators if urgent else self._others).append(_Item(work, urgent, loop, future))
            self._arrived.notify()
        return await future

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        self._require_open()
        readers = self._operators_reader if urgent else self._readers
        return await asyncio.get_running_loop().run_in_executor(readers, self._read, work)

    async def same(self) -> None:
        """`TransientError` if the file was replaced or removed, which loses writes, or is out of room."""
        self._disk.require_room()
        await asyncio.to_thread(self._require_same)

    def _require_same(self) -> None:
        if _identity(self._path) != self._file:
            raise TransientError(f"{self._path.name} was replaced or removed while open; restart the agent")

    async def close(self) -> None:
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        await asyncio.to_thread(self._dispose)

    def _dispose(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        self._operators_reader.shutdown()
        self._reader_engine.dispose()
        self._writer_engine.dispose()

    def _require_open(self) -> None:
        if self._closed:
            raise TransientError("the store is closed")

    def _read(self, work: Work[T]) -> T:
        try:
            with self._reader_engine.connect() as connection, connection.begin():
                return work(connection)
        except DBAPIError as error:
            raise translated(error) from error

    # ------------------------------------------------------ the caller's thread

    def _may_run_here(self) -> bool:
        """Take the connection that writes, if nothing waits for it and commits are quick."""
        with self._arrived:
            self._require_open()
            if self._in_use or self._operators or self._others or not self._pace.is_quick(time.monotonic()):
                return False
            self._in_use = True
            return True

    def _run_here(self, item: _Item) -> bool:
        """Run it on this thread, without waiting for another process; False if another one blocks it."""
        began = time.monotonic()
        try:
            self._commit([item], patience=0.0)
        finally:
            self._note_time(began)
            self._release()
        return not isinstance(item.error, TransientError)

    def _release(self) -> None:
        with self._arrived:
            self._in_use = False
            self._arrived.notify()

    # ------------------------------------------------------ writer thread

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._commit(batch)
            finally:
                self._release()
            _answer(batch)

    def _next_batch(self) -> list[_Item]:
        """Wait for work, then take the waiting units of one lane, operators first; empty at the end."""
        with self._arrived:
            while self._in_use or not (self._operators or self._others or self._closed):
                self._arrived.wait()
            lane = self._operators or self._others
            self._in_use = bool(lane)
            return [lane.popleft() for _ in range(min(len(lane), MAX_BATCH))]

    def _commit(self, batch: list[_Item], *, patience: float = BUSY_SECONDS) -> None:
        """Run the batch as one transaction; units that exceed its time are queued again.

        All fail if the file is no longer the opened one: no write that would be lost is acknowledged, and
        no action begins on it.
        """
        ends = time.monotonic() + BATCH_SECONDS
        try:
            self._require_same()
            with self._writer_engine.connect() as connection:
                _wait_for_others(connection, patience)
                self._transact(connection, batch, ends)
        except Exception as error:  # noqa: BLE001 - worker boundary: the waiting callers get the error
            failure = translated(error)
            self._disk.refused(failure)
            for item in batch:
                item.error = failure

    def _transact(self, connection: Connection, batch: list[_Item], ends: float) -> None:
        """Run the batch and commit; a commit without changes shows nothing of the disk."""
        driver: Any = connection.connection.driver_connection
        changes: int = driver.total_changes
        commits_at: float | None = None
        try:
            with kept_if_committed(connection), connection.begin():
                self._run_batch(connection, batch, ends)
                if driver.total_changes != changes:
                    commits_at = time.monotonic()
            if commits_at is not None:
                self._disk.wrote()
        finally:
            if commits_at is not None:
                self._note_time(commits_at)

    def _note_time(self, began: float) -> None:
        now = time.monotonic()
        self._pace.note(now - began, now)

    def _run_batch(self, connection: Connection, batch: list[_Item], ends: float) -> None:
        for done, item in enumerate(batch):
            if done and (time.monotonic() >= ends or (self._operators and not item.urgent)):
                self._put_back(batch, done)
                break
            if len(batch) == 1:  # this error undoes the whole transaction
                item.result = item.work(connection)
            else:
                _attempt(connection, item)
                if item.error is not None:
                    self._disk.refused(item.error)

    def _put_back(self, batch: list[_Item], done: int) -> None:
        rest = batch[done:]
        del batch[done:]
        with self._arrived:
            (self._operators if rest[0].urgent else self._others).extendleft(reversed(rest))


def _wait_for_others(connection: Connection, seconds: float) -> None:
    """For how long the connection waits for the lock of another process; a new one waits `BUSY_SECONDS`."""
    if connection.info.get(_PATIENCE, BUSY_SECONDS) != seconds:
        _pragmas(connection.connection.driver_connection, f"busy_timeout={round(seconds * 1000)}")
        connection.info[_PATIENCE] = seconds


def _attempt(connection: Connection, item: _Item) -> None:
    """Run one unit; its failure stays its own unless SQLite gave up the whole transaction."""
    try:
        with connection.begin_nested():
            item.result = item.work(connection)
    except Exception as error:  # worker boundary: the waiting caller gets the error
        if not cast("Any", connection.connection.driver_connection).in_transaction:
            raise
        item.error = translated(error)


def _answer(batch: list[_Item]) -> None:
    """Resolve every future on its own loop, one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for item in batch:
        by_loop.setdefault(item.loop, []).append(item)
    for loop, items in by_loop.items():
        if not loop.is_closed():
            _call_soon(loop, _resolver(items))


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not loop.is_closed():
            raise  # a closed loop has no waiter left


def _resolver(items: list[_Item]) -> Callable[[], None]:
    def resolve() -> None:
        for item in items:
            if item.future is None or item.future.done():
                continue  # the caller was cancelled; the work stays done
            if item.error is not None:
                item.future.set_exception(item.error)
            else:
                item.future.set_result(item.result)

    return resolve


# ---------------------------------------------------------------- opening


async def open_sqlite(url: URL) -> SqliteDatabase:
    """Open or create the file, bring it to the newest schema, start the writer."""
    return await asyncio.to_thread(_open, file_of(url))


def file_of(url: URL) -> Path:
    """The file of the URL; `ConfigurationError` if it cannot be a store."""
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "DATABASE_URL: an in-memory SQLite database is not durable; name a file, as in sqlite:///heal.db"
        )
    if url.query or url.host:
        raise ConfigurationError(
            "DATABASE_URL: write sqlite:///relative/path or sqlite:////absolute/path, without parameters"
        )
    path = Path(url.database)
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"DATABASE_URL: the directory {path.parent} does not exist; create it or mount its volume"
        )
    return path


def _identity(path: Path) -> tuple[int, int] | None:
    """The identity of the file at the path; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def migrate_file(path: Path) -> None:
    """Bring a file that no process has open to the newest schema; `ConfigurationError` if that fails."""
    _migrated(path).dispose()


def _open(path: Path) -> SqliteDatabase:
    writer = _migrated(path)
    return SqliteDatabase(path, writer, _engine(path, "BEGIN", _prepare_reader, pool_size=READERS + 1))


def _migrated(path: Path) -> Engine:
    """The engine of the one writer, over the newest schema."""
    writer = _engine(path, "BEGIN IMMEDIATE", _prepare_writer, pool_size=1)
    allow_memory(writer)
    try:
        with _file_lock(path), writer.connect() as connection, connection.begin():
            upgrade(connection)
    except (DBAPIError, OSError) as error:
        writer.dispose()
        raise ConfigurationError(f"DATABASE_URL: {path} cannot be used: {error}") from error
    except BaseException:  # an interruption too leaves no engine behind; it is raised again
        writer.dispose()
        raise
    return writer


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Processes that start together on a new file take turns: SQLite's own waiting does not cover WAL."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _engine(path: Path, begin: str, prepare: Callable[[DBAPIConnection], None], *, pool_size: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=pool_size,
        max_overflow=0,
        json_serializer=codec.dumps,
        json_deserializer=codec.loads,
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, _record: object) -> None:
        # The driver itself opens transactions too late, and never for a read.
        cast("Any", connection).isolation_level = None
        prepare(connection)

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _prepare_writer(connection: DBAPIConnection) -> None:
    _pragmas(connection, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


def _prepare_reader(connection: DBAPIConnection) -> None:
    _pragmas(connection, "query_only=ON", "foreign_keys=ON")


def _pragmas(connection: Any, *settings: str) -> None:
    cursor = connection.cursor()
    for setting in settings:
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()

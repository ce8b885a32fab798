"""The writer thread of SQLite: what shares a commit, and what a failure takes with it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from app.errors import Invalid, TransientError
from app.store.database import commit_pace, sqlite
from app.store.database.commit_pace import QUICK_COMMITS, SLOW_FOR, CommitPace
from app.store.database.port import Brief
from app.store.database.sqlite import (
    MAX_BATCH,
    READERS,
    SqliteDatabase,
    open_sqlite,
)


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteDatabase]:
    """An open SQLite database with a table of numbers, whose commits are quick on every machine."""
    monkeypatch.setattr(commit_pace, "QUICK_SECONDS", 60.0)
    opened = await open_sqlite(make_url(f"sqlite:///{tmp_path}/heal.db"))
    await opened.write(lambda connection: connection.execute(text("CREATE TABLE numbers (n INTEGER UNIQUE)")))
    yield opened
    await opened.close()


def add(number: int, connection: Connection) -> int:
    connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return number


async def numbers(database: SqliteDatabase) -> list[int]:
    rows = await database.read(
        lambda connection: connection.execute(text("SELECT n FROM numbers ORDER BY n")).scalars().all()
    )
    return list(rows)


class Gate:
    """A unit of work that keeps the writer busy until it is opened, so that what follows shares a commit."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.entered.set()
        assert self.opened.wait(120)


async def in_one_commit(database: SqliteDatabase, *work: Callable[[Connection], object]) -> list[object]:
    """Queue all the work while the writer is busy, then let it go; results or errors in order."""
    gate = Gate()
    holding = asyncio.create_task(database.write(gate))
    assert await asyncio.to_thread(gate.entered.wait, 10)
    tasks = [asyncio.create_task(database.write(each)) for each in work]
    await asyncio.sleep(0)  # every task has put its work into the queue
    gate.opened.set()
    await holding
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_work_that_queued_up_shares_one_commit(database: SqliteDatabase) -> None:
    """A hundred waiting units are one transaction: all of them see each other's rows."""
    seen = await in_one_commit(
        database,
        *(lambda connection, n=n: add(n, connection) for n in range(99)),
        lambda connection: connection.execute(text("SELECT count(*) FROM numbers")).scalar_one(),
    )
    assert seen == [*range(99), 99]
    assert await numbers(database) == list(range(99))


@pytest.mark.parametrize("replaced", [True, False])
async def test_nothing_is_written_to_a_file_that_was_replaced_or_removed(
    tmp_path: Path, database: SqliteDatabase, replaced: bool
) -> None:
    """It would be acknowledged, and lost at the end of the process; with the file back, writes succeed."""
    file, aside = tmp_path / "heal.db", tmp_path / "aside.db"
    file.rename(aside)
    if replaced:
        file.write_bytes(aside.read_bytes())
    with pytest.raises(TransientError, match="replaced or removed"):
        await database.write(partial(add, 1))
    aside.replace(file)
    await database.write(partial(add, 2))
    assert await numbers(database) == [2]


async def test_a_failing_unit_is_undone_alone(database: SqliteDatabase) -> None:
    """Rows it wrote before it failed are gone; its neighbours' rows stay."""

    def breaks(connection: Connection) -> None:
        add(100, connection)
        raise ZeroDivisionError

    answers = await in_one_commit(
        database,
        lambda connection: add(1, connection),
        breaks,
        lambda connection: add(1, connection),
        lambda connection: add(2, connection),
    )
    assert answers[0] == 1
    assert isinstance(answers[1], ZeroDivisionError)
    assert isinstance(answers[2], Invalid)
    assert answers[3] == 2
    assert await numbers(database) == [1, 2]


async def test_a_lost_transaction_fails_every_caller_in_it_and_none_after(database: SqliteDatabase) -> None:
    """When SQLite gives up the whole transaction no caller learns that its work is durable."""
    answers = await in_one_commit(
        database,
        lambda connection: add(1, connection),
        lambda connection: connection.exec_driver_sql("ROLLBACK"),
        lambda connection: add(2, connection),
    )
    assert [type(answer) for answer in answers] == [TransientError] * 3
    assert await numbers(database) == []
    await database.write(lambda connection: add(3, connection))
    assert await numbers(database) == [3]


async def test_a_full_disk_is_transient_and_loses_nothing_acknowledged(database: SqliteDatabase) -> None:
    """What does not fit is refused, what fitted stays, and the store goes on once there is room."""
    await database.write(lambda connection: add(1, connection))
    pages = await database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    )
    await database.write(
        lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar_one()
    )
    with pytest.raises(TransientError, match="full"):
        await database.write(
            lambda connection: connection.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000) AS b"))
        )
    await database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1000000").scalar_one()
    )
    await database.write(lambda connection: add(2, connection))
    assert await numbers(database) == [1, 2]


async def test_more_work_than_a_commit_takes_is_done_in_order(database: SqliteDatabase) -> None:
    """A batch is bounded; what is left over comes with the next one."""
    count = MAX_BATCH + 5
    work = [lambda connection, n=n: add(n, connection) for n in range(count)]
    assert await in_one_commit(database, *work) == list(range(count))
    assert await numbers(database) == list(range(count))


async def test_a_caller_whose_loop_is_gone_does_not_stop_the_writer(database: SqliteDatabase) -> None:
    """Its work is done, its answer is lost, and the next caller is served."""
    gate = Gate()
    holding = asyncio.create_task(database.write(gate))
    assert await asyncio.to_thread(gate.entered.wait, 10)

    async def leave_early() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(database.write(lambda connection: add(1, connection)), timeout=0.01)

    await asyncio.to_thread(asyncio.run, leave_early())
    gate.opened.set()
    await holding
    await database.write(lambda connection: add(2, connection))
    assert await numbers(database) == [1, 2]


async def test_readers_see_only_what_is_committed(database: SqliteDatabase) -> None:
    """A unit under way is invisible, and readers do not wait for it."""
    gate = Gate()

    def work(connection: Connection) -> None:
        add(1, connection)
        gate(connection)

    writing = asyncio.create_task(database.write(work))
    assert await asyncio.to_thread(gate.entered.wait, 10)
    assert await numbers(database) == []
    gate.opened.set()
    await writing
    assert await numbers(database) == [1]


async def test_readers_cannot_write(database: SqliteDatabase) -> None:
    """Reading is read-only by construction."""
    with pytest.raises(TransientError, match="readonly"):
        await database.read(lambda connection: add(1, connection))


async def test_what_an_operator_writes_waits_for_no_other_caller(database: SqliteDatabase) -> None:
    """With a hundred units in line, the operator's is committed right after the one that is under way."""
    gate = Gate()
    holding = asyncio.create_task(database.write(gate))
    assert await asyncio.to_thread(gate.entered.wait, 10)
    line = [asyncio.create_task(database.write(partial(add, n))) for n in range(100)]
    await asyncio.sleep(0)

    def count(connection: Connection) -> int:
        rows = connection.execute(text("SELECT count(*) FROM numbers"))
        found: int = rows.scalar_one()
        return found

    operator = asyncio.create_task(database.write(count, urgent=True))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await operator == 0
    await asyncio.gather(holding, *line)
    assert await numbers(database) == list(range(100))


async def test_an_operator_reads_while_every_reader_is_busy(database: SqliteDatabase) -> None:
    """The operators' reader is a thread and a connection of its own."""
    gates = [Gate() for _ in range(READERS)]
    reading = [asyncio.create_task(database.read(gate)) for gate in gates]
    for gate in gates:
        assert await asyncio.to_thread(gate.entered.wait, 10)
    assert await database.read(lambda c: c.execute(text("SELECT 1")).scalar_one(), urgent=True) == 1
    for gate in gates:
        gate.opened.set()
    await asyncio.gather(*reading)


def _thread(_: Connection) -> int:
    return threading.get_ident()


async def test_brief_work_runs_on_the_thread_of_its_caller_while_nothing_else_waits(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside other work, and after a slow one, it does not."""
    here = threading.get_ident()
    assert await database.write(Brief(_thread)) == here
    assert await database.write(_thread) != here
    seen = await in_one_commit(database, Brief(_thread), Brief(partial(add, 1)))
    assert seen[0] != here
    assert seen[1] == 1
    with pytest.raises(Invalid):
        await database.write(Brief(lambda connection: [add(2, connection), add(1, connection)]))
    assert await numbers(database) == [1]
    monkeypatch.setattr(commit_pace, "QUICK_SECONDS", -1.0)
    assert await database.write(Brief(_thread)) == here
    assert await database.write(Brief(_thread)) != here


@pytest.mark.parametrize("fails", [False, True], ids=["committed", "failed at its commit"])
async def test_commits_on_the_writers_thread_decide_whether_the_callers_commits(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A slow one there is enough to leave the caller's thread, and quick ones that wrote lead back."""
    here = threading.get_ident()

    def slow(connection: Connection) -> None:
        connection.execute(
            text("CREATE TABLE others (n REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)")
        )
        connection.execute(text("INSERT INTO others VALUES (:n)"), {"n": 5 if fails else None})

    monkeypatch.setattr(commit_pace, "SLOW_FOR", 0)
    monkeypatch.setattr(commit_pace, "QUICK_SECONDS", -1.0)
    with pytest.raises(Invalid) if fails else nullcontext():
        await database.write(slow)
    monkeypatch.setattr(commit_pace, "QUICK_SECONDS", 60.0)
    for _ in range(QUICK_COMMITS):  # they write nothing, and show nothing of the disk
        assert await database.write(Brief(_thread)) != here
    for n in range(QUICK_COMMITS):
        assert await database.write(Brief(_thread)) != here
        await database.write(partial(add, n))
    assert await database.write(Brief(_thread)) == here


def test_a_slow_disk_takes_little_of_the_callers_thread() -> None:
    """The pause is in proportion to the slowest commit, and no quick one that comes meanwhile ends it."""
    for slow in (0.06, 3.0):
        pace = CommitPace()
        assert pace.is_quick(100.0)
        pace.note(slow, 100.0)
        pace.note(0.03, 100.1)
        for _ in range(QUICK_COMMITS - 1):
            pace.note(0.001, 100.2)
        assert not pace.is_quick(1e9)
        pace.note(0.001, 100.2)
        assert not pace.is_quick(99.9 + SLOW_FOR * slow)
        assert pace.is_quick(100.1 + SLOW_FOR * max(slow, 0.03))
    pace.note(0.03, 1e6)
    assert not pace.is_quick(1e9)


async def test_a_connection_that_replaces_another_waits_for_no_process_on_the_callers_thread(
    database: SqliteDatabase,
) -> None:
    """A new connection waits as the driver made it: what was set on the one before is set again."""

    def milliseconds(connection: Connection) -> int:
        found: int = connection.execute(text("PRAGMA busy_timeout")).scalar_one()
        return found

    for _ in range(2):
        assert await database.write(milliseconds) == sqlite.BUSY_SECONDS * 1000
        assert await database.write(Brief(milliseconds)) == 0
        with database._writer_engine.connect() as connection:
            connection.invalidate()
        assert await database.write(Brief(milliseconds)) == 0


async def test_brief_work_waits_for_another_process_on_the_writers_thread(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    """The thread of its caller goes on; the work is done when the other process has ended its own."""
    other = sqlite3.connect(tmp_path / "heal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    waiting = asyncio.create_task(database.write(Brief(partial(add, 1))))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert time.monotonic() - began < sqlite.BUSY_SECONDS
    other.execute("ROLLBACK")
    other.close()
    assert await waiting == 1
    assert await numbers(database) == [1]

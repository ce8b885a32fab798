"""Opening, migrating, crashing and losing a database, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from app.agent.ids import SignalId
from app.agent.models import DispositionKind
from app.agent.ports.store import Store
from app.agent.timeline import verify_chain
from app.errors import ConfigurationError, TransientError
from app.store import open_store
from app.store.database.migrate import migration_config
from app.store.database.tables import metadata
from tests.contract.store_values import Deciding, disposition, opened, signal
from tests.repositories import database_of

if TYPE_CHECKING:  # at run time pytest loads the plugin, and rewrites its assertions
    from tests.contract.postgres import PostgresCluster

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


def engine_of(database_url: str) -> Engine:
    return create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))


def _open_together(url: str) -> list[int]:
    """The exit codes of four processes that open one database at the same time."""
    program = "import asyncio, sys; from app.store import open_store; asyncio.run(open_store(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(4)]
    return [each.wait(300) for each in started]


def _killed_while_accepting(url: str) -> list[str]:
    """The ids that a process acknowledged before it was killed in the middle of its work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.store_acknowledger", url], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        lines = [process.stdout.readline() for _ in range(60)]
        process.kill()
        lines += process.stdout.readlines()
    process.wait()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


# ------------------------------------------------------------ opening


@pytest.mark.parametrize(
    "url",
    [
        "",
        "heal.db",
        "mysql://localhost/heal",
        "postgresql+psycopg://localhost/heal",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///heal.db?mode=ro",
        "sqlite:////nowhere/at/all/heal.db",
        "postgresql://user:secret@[broken/heal",
        "postgresql://user:secret@localhost/heal?sslmode=nonsense",
    ],
)
async def test_a_url_that_cannot_work_is_a_configuration_error(url: str) -> None:
    """The message names the setting, and never a password."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        await open_store(url)
    assert "secret" not in str(caught.value)


async def test_a_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    """It is left as it is."""
    path = tmp_path / "heal.db"
    path.write_text("this is not a database, and long enough to be sure of it" * 10)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await open_store(f"sqlite:///{path}")
    assert path.read_text().startswith("this is not")


async def test_a_server_that_does_not_answer_is_transient() -> None:
    """It may come back, so the caller may try again; the password stays out of the message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        port = taken.getsockname()[1]
        with pytest.raises(TransientError) as caught:
            await open_store(f"postgresql://user:secret@127.0.0.1:{port}/heal")
    assert "secret" not in str(caught.value)


async def test_a_missing_postgresql_database_is_a_configuration_error(postgres: PostgresCluster) -> None:
    """Only a person can fix it."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        await open_store(postgres.url("nowhere"))


async def test_the_short_scheme_is_accepted(postgres_url: str) -> None:
    """Many platforms hand out `postgres://`."""
    store = await open_store(postgres_url.replace("postgresql://", "postgres://", 1))
    await store.ping()
    await store.close()


async def test_processes_that_start_together_migrate_once(database_url: str, tmp_path: Path) -> None:
    """Of several that open an empty database at once, all succeed."""
    if database_url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path}/together.db"
        assert await asyncio.to_thread(_open_together, url) == [0] * 4
    else:
        with engine_of(database_url).begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        stores = await asyncio.gather(*(open_store(database_url) for _ in range(4)))
        await asyncio.gather(*(store.close() for store in stores))
        url = database_url
    store = await open_store(url)
    await opened(store)
    await store.close()


async def test_what_was_stored_is_there_after_reopening(database_url: str) -> None:
    """A restart finds everything, and migrating again changes nothing."""
    store = await open_store(database_url)
    incident = await opened(store)
    await store.close()
    store = await open_store(database_url)
    assert await store.incidents.all_open() == (incident,)
    await store.close()


# ------------------------------------------------------------ migrations


async def test_the_migrations_make_the_tables_that_the_statements_use(
    store: Store, database_url: str
) -> None:
    """Columns, types, indexes and constraints are the same in both places."""
    with engine_of(database_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


async def test_the_indexes_that_hold_the_promises_are_there(store: Store, database_url: str) -> None:
    """One open incident per service, one first signal per observation: unique and partial on both."""
    with engine_of(database_url).connect() as connection:
        looked = inspect(connection)
        found = {
            index["name"]: (index["unique"], [str(option) for option in index["dialect_options"].values()])
            for table in ("incidents", "signals")
            for index in looked.get_indexes(table)
        }
    assert found["ix_incidents_one_open"][0]
    assert any("closed_at IS NULL" in option for option in found["ix_incidents_one_open"][1])
    assert found["ix_signals_first"][0]
    assert any("duplicate_of IS NULL" in option for option in found["ix_signals_first"][1])


async def test_migrations_go_down_and_up_again(database_url: str) -> None:
    """Going back to nothing leaves nothing behind that stands in the way."""
    store = await open_store(database_url)
    await opened(store)
    await store.close()
    with engine_of(database_url).begin() as connection:
        command.downgrade(migration_config(connection), "base")
    with engine_of(database_url).connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    store = await open_store(database_url)
    assert await store.incidents.all_open() == ()
    await store.close()


async def test_a_database_of_a_newer_program_is_refused(database_url: str) -> None:
    """An old program must not write into a schema that it does not know."""
    store = await open_store(database_url)
    await store.close()
    with engine_of(database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="another version"):
        await open_store(database_url)


# ------------------------------------------------------------ trouble


async def test_an_acknowledged_signal_survives_kill_9(tmp_path: Path) -> None:
    """Promise 9: three processes are killed in the middle of accepting; nothing they acknowledged is lost."""
    url = f"sqlite:///{tmp_path}/heal.db"
    acknowledged = [name for _ in range(3) for name in await asyncio.to_thread(_killed_while_accepting, url)]
    assert len(acknowledged) >= 180
    store = await open_store(url)
    kinds = set()
    for name in acknowledged:
        record = await store.signals.get(SignalId(name))
        assert record is not None
        kinds.add(record.disposition.kind)
    assert kinds == {DispositionKind.OPENED, DispositionKind.JOINED}
    for incident in await store.incidents.all_open():
        assert verify_chain(incident.id, await store.incidents.timeline(incident.id))
    assert len(await store.incidents.all_open()) == 4
    await store.close()


async def test_sqlite_commits_survive_power_loss_by_setting(tmp_path: Path) -> None:
    """The file is in WAL mode, and the writer syncs every commit."""
    path = tmp_path / "heal.db"
    store = await open_store(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database = database_of(store)
    found = await database.write(
        lambda connection: [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("synchronous", "foreign_keys")
        ]
    )
    assert found == [2, 1]
    await store.close()


async def test_a_locked_sqlite_file_is_transient_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that holds the file makes a write fail with nothing changed; later it works."""
    monkeypatch.setattr("app.store.database.sqlite.BUSY_SECONDS", 0.05)
    path = tmp_path / "heal.db"
    store = await open_store(f"sqlite:///{path}")
    one = signal()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError):
        await store.signals.accept([one], Deciding(), dry_run=True)
    assert await store.signals.get(one.id) is None
    holder.execute("ROLLBACK")
    holder.close()
    await store.signals.accept([one], Deciding(), dry_run=True)
    assert (await disposition(store, one)).kind is DispositionKind.OPENED
    await store.close()


async def test_postgresql_connections_that_died_are_replaced(
    postgres: PostgresCluster, postgres_url: str
) -> None:
    """After the server dropped every connection the next call works."""
    store = await open_store(postgres_url)
    await opened(store)
    database = postgres_url.partition("@/")[2].partition("?")[0]
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608 - a name made here
    )
    await store.ping()
    assert len(await store.incidents.all_open()) == 1
    await store.signals.accept([signal()], Deciding(), dry_run=True)
    await store.close()


async def test_a_cancelled_caller_does_not_disturb_others(store: Store) -> None:
    """Its work may or may not have happened; that of all others has."""
    tasks = [
        asyncio.create_task(store.signals.accept([signal()], Deciding(), dry_run=True)) for _ in range(20)
    ]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, tuple):
            assert await store.signals.get(answer[0].signal_id) is not None
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 7
    [incident] = await store.incidents.all_open()
    assert verify_chain(incident.id, await store.incidents.timeline(incident.id))


async def test_ping_answers_while_open_and_not_after_closing(database_url: str) -> None:
    """Closing twice is harmless; what comes after is `TransientError`, not a hang."""
    store = await open_store(database_url)
    await store.ping()
    await store.close()
    await store.close()
    with pytest.raises(TransientError, match="closed"):
        await store.ping()
    with pytest.raises(TransientError, match="closed"):
        await store.signals.accept([signal()], Deciding(), dry_run=True)


async def test_what_is_under_way_is_finished_before_closing(database_url: str) -> None:
    """A caller that was let in gets its answer, and the answer is durable."""
    store = await open_store(database_url)
    tasks = [
        asyncio.create_task(store.signals.accept([signal()], Deciding(), dry_run=True)) for _ in range(30)
    ]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert done
    await store.close()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    store = await open_store(database_url)
    for answer in answers:
        if isinstance(answer, tuple):
            assert await store.signals.get(answer[0].signal_id) is not None
        else:
            assert isinstance(answer, TransientError), answer
    assert re.match("inc_", (await store.incidents.all_open())[0].id)
    await store.close()

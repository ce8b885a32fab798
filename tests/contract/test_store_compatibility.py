"""Which schemas a program may start on: its own, older ones that it upgrades, newer ones that allow it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from app.agent.audit.accounting import AuditQuestion
from app.agent.models import DispositionKind
from app.errors import ConfigurationError
from app.store import open_store
from app.store.database.migrate import migration_config
from tests.contract.store_values import LEASE, NOW, Deciding, disposition, signal
from tests.contract.test_store_database import engine_of

_ARRIVALS = ("2026-02-28 23:59:59.000000", "2026-03-01 00:00:01.000000", "2026-03-01 12:00:00.000000")

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


async def _from_the_future(database_url: str, since: str) -> None:
    """As after a later program: one more table, a schema that this program does not know."""
    await (await open_store(database_url)).close()
    with engine_of(database_url).begin() as connection:
        connection.execute(text("CREATE TABLE of_the_future (id INTEGER)"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("DELETE FROM schema_compatibility"))
        connection.execute(
            text("INSERT INTO schema_compatibility (revision, since) VALUES ('9999', :since)"),
            {"since": since},
        )


async def test_a_newer_schema_that_allows_this_program_is_used_as_it_is(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """During a rolling deploy, and after going back, a restart must not fail."""
    await _from_the_future(database_url, since="0003")
    caplog.set_level(logging.INFO, logger="app")
    store = await open_store(database_url)
    one = signal()
    await store.signals.accept([one], Deciding(), dry_run=True)
    assert (await disposition(store, one)).kind is DispositionKind.OPENED
    await store.close()
    assert "newer than this program's" in caplog.text
    with engine_of(database_url).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


async def test_a_newer_schema_that_this_program_would_damage_is_refused(database_url: str) -> None:
    """The message says which schema is there, and whom it serves."""
    await _from_the_future(database_url, since="9998")
    with pytest.raises(ConfigurationError, match=r"another version.*9999.*since schema 9998"):
        await open_store(database_url)


async def test_an_upgrade_leaves_word_whom_it_serves(database_url: str) -> None:
    """One row, of the newest schema."""
    await (await open_store(database_url)).close()
    with engine_of(database_url).connect() as connection:
        [row] = connection.execute(text("SELECT revision, since FROM schema_compatibility")).all()
    script = _script()
    assert row.revision == script.get_current_head()
    assert row.since in {one.revision for one in script.walk_revisions()}


def test_every_migration_says_whom_it_serves() -> None:
    """Since the third one; the oldest served never becomes older again, and no future version is promised."""
    oldest_first = [one for one in reversed(list(_script().walk_revisions())) if one.revision >= "0003"]
    promised = [str(one.module.compatible_since) for one in oldest_first]
    assert promised == sorted(promised)
    assert all(since <= one.revision for since, one in zip(promised, oldest_first, strict=True))


async def test_what_was_accepted_before_the_ledger_is_entered_by_the_upgrade(database_url: str) -> None:
    """A database of the version before is upgraded with its signals; the sum adds up from the first day."""
    await (await open_store(database_url)).close()
    with engine_of(database_url).begin() as connection:
        command.downgrade(migration_config(connection), "0002")
        _rows_of_old(connection)
    store = await open_store(database_url)
    found = await store.accounting.audit(AuditQuestion(now=NOW, pending_for=LEASE))
    await store.close()
    assert (found.accepted, found.unledgered, found.adds_up) == (3, 0, True)
    with engine_of(database_url).connect() as connection:
        days = connection.execute(text("SELECT day, accepted FROM intake_ledger ORDER BY day")).all()
    assert [(str(row.day), row.accepted) for row in days] == [("2026-02-28", 1), ("2026-03-01", 2)]


def _rows_of_old(connection: Connection) -> None:
    for number, at in enumerate(_ARRIVALS):
        connection.execute(
            text(
                "INSERT INTO signals (id, kind, environment, service, source, observed_at, received_at,"
                " dedup_key, stale, payload, disposition, reason) VALUES"
                " (:id, 'deploy', 'prod', 'shop', 'http', :at, :at, :id, false, '{}', 'ignored', '')"
            ),
            {"id": f"sig_{number}", "at": at if connection.dialect.name == "sqlite" else _utc(at)},
        )


def _utc(at: str) -> datetime:
    return datetime.fromisoformat(at).replace(tzinfo=UTC)


def _script() -> ScriptDirectory:
    with create_engine("sqlite://").connect() as connection:
        return ScriptDirectory.from_config(migration_config(connection))

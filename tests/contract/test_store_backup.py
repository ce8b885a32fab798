"""Backups on both databases: a restored one verifies by its chains, and a tampered row is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Door, Person
from app.agent.models import DispositionKind
from app.cli.commands.database import Verified, verify
from app.config import Settings
from app.errors import AgentError, ConfigurationError, PermanentError
from app.store import open_shared, open_store
from app.store.maintenance import back_up, restore, schema_of
from tests.contract.store_values import NOW, Deciding, claimed, note, opened, pending, signal
from tests.contract.test_store_database import engine_of

if TYPE_CHECKING:  # at run time pytest loads the plugin, and rewrites its assertions
    from tests.contract.postgres import PostgresCluster

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

TAMPERED = {
    "an entry of a timeline": (
        "UPDATE timeline SET message = 'nothing happened' WHERE sequence = 1",
        "timeline_altered",
    ),
    "the end of a timeline": ("DELETE FROM timeline WHERE sequence = 2", "timeline_cut"),
    "an entry of the audit of people": (
        "UPDATE audit_trail SET actor = 'mallory' WHERE sequence = 0",
        "altered at entry 0",
    ),
    "a signal": ("DELETE FROM signals WHERE disposition = 'ignored'", "3 accepted, 2 accounted for"),
}


async def fill(database_url: str) -> None:
    """An incident with a timeline, two more signals and two decisions of people."""
    store = await open_store(database_url)
    try:
        incident = await opened(store)
        await store.signals.accept(
            [signal()], Deciding(kind=DispositionKind.IGNORED, triggers=()), dry_run=False
        )
        await store.signals.accept([signal()], pending(), dry_run=False)
        claim = await claimed(store, incident)
        await store.incidents.save(claim, incident, [note("one"), note("two")])
        for subject in ("payments-api", "shop"):
            await store.audit_log.append(
                HumanDecision(
                    at=NOW,
                    by=Person(name="ada", door=Door.CLI),
                    kind=HumanDecisionKind.PASS_REQUESTED,
                    subject=subject,
                )
            )
    finally:
        await store.close()


async def verified(database_url: str) -> Verified:
    return await verify(Settings(_env_file=None, database_url=database_url), None)


@contextmanager
def another(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'restored.db'}"
        return
    with emptied(request.getfixturevalue("postgres")) as url:
        yield url


def tamper(database_url: str, statement: str) -> None:
    """As a person with every right to the database can, past its triggers."""
    engine = engine_of(database_url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")):
                connection.execute(text(f'DROP TRIGGER "{name[0]}"'))
        else:
            connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement))
    engine.dispose()


async def test_a_restored_backup_verifies_and_a_tampered_row_is_found(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every record is there with its chain; each change of a row has its own finding."""
    await fill(database_url)
    file = tmp_path / "backup"
    await back_up(database_url, file)
    assert file.stat().st_mode & 0o077 == 0
    with another(database_url, request, tmp_path) as target:
        assert await restore(target, file, replace=False) is None
        found = await verified(target)
        assert found.findings == ()
        assert (found.incidents, found.decisions, found.signals.accepted) == (1, 2, 3)
        assert await schema_of(target) == await schema_of(database_url)
        for number, (what, (statement, finding)) in enumerate(TAMPERED.items(), start=1):
            tamper(target, statement)
            findings = (await verified(target)).findings
            assert len(findings) == number, (what, findings)
            assert any(finding in one for one in findings), what


async def test_a_restore_overwrites_nothing_unless_asked(database_url: str, tmp_path: Path) -> None:
    """A database with records is refused; with `replace` it is replaced, and a SQLite file is kept."""
    await fill(database_url)
    file = tmp_path / "backup"
    await back_up(database_url, file)
    with pytest.raises(PermanentError, match="exists"):
        await back_up(database_url, file)
    await fill_more(database_url)
    with pytest.raises(PermanentError, match="has records"):
        await restore(database_url, file, replace=False)
    assert (await verified(database_url)).decisions == 3
    kept = await restore(database_url, file, replace=True)
    assert (await verified(database_url)).decisions == 2
    if database_url.startswith("sqlite"):
        assert kept is not None
        assert (await verified(f"sqlite:///{kept}")).decisions == 3


async def fill_more(database_url: str) -> None:
    """One more decision, after the backup."""
    store = await open_store(database_url)
    await store.audit_log.append(
        HumanDecision(
            at=NOW, by=Person(name="ada", door=Door.CLI), kind=HumanDecisionKind.NOTED, subject="late"
        )
    )
    await store.close()


async def test_no_restore_under_a_running_agent(database_url: str, tmp_path: Path) -> None:
    """A backup is taken beside one; a restore waits until it has stopped."""
    await fill(database_url)
    file = tmp_path / "backup"
    store, fleet = await open_shared(database_url)
    await fleet.enter("worker-1")
    try:
        await back_up(database_url, file)
        with pytest.raises(ConfigurationError, match="run"):
            await restore(database_url, file, replace=True)
    finally:
        await fleet.leave()
        await store.close()
    await restore(database_url, file, replace=True)


def left_over(folder: Path) -> list[str]:
    """Names of half-written files."""
    return [one.name for one in folder.iterdir() if ".part" in one.name or ".restoring" in one.name]


async def test_what_is_no_backup_changes_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text, a database of another program, a truncated backup, a missing pg_dump: a clear error each."""
    await fill(database_url)
    file = tmp_path / "backup"
    await back_up(database_url, file)
    text_file, foreign, cut = tmp_path / "text", tmp_path / "foreign", tmp_path / "cut"
    text_file.write_text("no backup at all, of no kind")
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE mine (id INTEGER)")
    cut.write_bytes(file.read_bytes()[:20_000])
    for wrong in (text_file, foreign, cut, tmp_path / "missing"):
        with pytest.raises(AgentError):
            await restore(database_url, wrong, replace=True)
        assert (await verified(database_url)).findings == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    if database_url.startswith("postgresql"):
        with pytest.raises(ConfigurationError, match="pg_dump is not installed"):
            await back_up(database_url, tmp_path / "second")
    assert left_over(tmp_path) == []


async def test_an_empty_migrated_database_is_restored_into(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What migrations create is no record: the kill switch that no person has set."""
    await fill(database_url)
    await back_up(database_url, file := tmp_path / "backup")
    with another(database_url, request, tmp_path) as target:
        await (await open_store(target)).close()
        await restore(target, file, replace=False)
        assert (await verified(target)).incidents == 1


async def test_an_archive_of_another_database_is_refused(postgres: PostgresCluster, tmp_path: Path) -> None:
    """Nothing is written to an empty database."""
    with emptied(postgres) as foreign, emptied(postgres) as target:
        engine = engine_of(foreign)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
        engine.dispose()
        await back_up(foreign, file := tmp_path / "backup")
        with pytest.raises(PermanentError, match="not a backup of this agent"):
            await restore(target, file, replace=True)
        assert await schema_of(target) is None


async def test_what_is_newer_than_the_backup_does_not_stay(postgres_url: str, tmp_path: Path) -> None:
    """Tables and functions that the archive lacks are gone afterwards; a broken archive drops none."""
    await fill(postgres_url)
    engine = engine_of(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE brakes RENAME TO brakes_now"))
    await back_up(postgres_url, file := tmp_path / "backup")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE brakes AS SELECT * FROM brakes_now"))
        connection.execute(
            text("CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        connection.execute(
            text("CREATE TRIGGER later AFTER INSERT ON brakes FOR EACH ROW EXECUTE FUNCTION later()")
        )
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-2_000])
    left = text("SELECT to_regclass('brakes') IS NOT NULL, to_regproc('later') IS NOT NULL")
    for archive, stays in ((cut, True), (file, False)):
        if stays:
            with pytest.raises(PermanentError):
                await restore(postgres_url, archive, replace=True)
        else:
            await restore(postgres_url, archive, replace=True)
        with engine.begin() as connection:
            assert tuple(connection.execute(left).one()) == (stays, stays)
    engine.dispose()


@contextmanager
def emptied(cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty database."""
    name = cluster.create()
    try:
        yield cluster.url(name)
    finally:
        cluster.drop(name)

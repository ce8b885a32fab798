"""A database whose disk is full: what callers and readiness are answered, and what the log says of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from app.agent.ports.store import Store
from app.api.routes.health import readiness
from app.errors import TransientError
from app.store.database.port import Brief, Database, DiskFull, Work
from app.store.database.writable import QUIET_SECONDS, Disk
from tests.api.harness import DEPLOY, assert_problem, harness, make_settings
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

_FULL = (
    "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$",
    "CREATE TRIGGER no_room BEFORE INSERT ON lines EXECUTE FUNCTION no_room()",
)


@pytest.fixture
async def database(store: Store) -> Database:
    """The database of each kind, with a table of lines."""
    found = database_of(store)
    await found.write(lambda connection: connection.execute(text("CREATE TABLE lines (line TEXT)")))
    return found


def _fill(connection: Connection) -> None:
    """From here on there is no room for a new row."""
    if connection.dialect.name == "sqlite":
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    else:
        for statement in _FULL:
            connection.exec_driver_sql(statement)


def _free(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    else:
        connection.exec_driver_sql("DROP TRIGGER no_room ON lines")


def _add(connection: Connection) -> None:
    connection.execute(text("INSERT INTO lines VALUES (:line)"), {"line": "x" * 100_000})


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        one.getMessage()
        for one in caplog.records
        if one.levelno >= logging.WARNING and "disk of the database" in one.getMessage()
    ]


@pytest.mark.parametrize("kind", [Brief, lambda work: work], ids=["brief", "on the writer's thread"])
async def test_a_full_disk_is_one_warning_and_a_reason_to_repeat(
    database: Database, kind: type[Brief[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Every caller gets the reason and when to ask again; what was refused is not there, what follows is."""
    work: Work[None] = kind(_add)
    await database.write(_fill)
    for _ in range(5):
        with pytest.raises(DiskFull, match="the disk of the database is full") as refused:
            await database.write(work)
        assert isinstance(refused.value, TransientError)
        assert refused.value.retry_after is not None
    [warning] = _warnings(caplog)
    assert "free space on it" in warning
    await database.write(_free)
    await database.write(work)
    lines = await database.read(lambda one: one.execute(text("SELECT COUNT(*) FROM lines")).scalar_one())
    assert lines == 1
    assert len(_warnings(caplog)) == 1


async def test_a_failure_that_is_no_full_disk_warns_of_none(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that is wrong says nothing about the disk."""
    with pytest.raises(Exception, match="nowhere"):
        await database.write(lambda connection: connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)"))
    assert _warnings(caplog) == []


def test_each_outage_is_one_warning_although_small_writes_find_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage ends when no write was refused for a minute; the next one is reported again."""
    now = [0.0]
    disk = Disk(monotonic=lambda: now[0])
    caplog.set_level(logging.INFO)
    for _ in range(20):
        disk.refused(DiskFull("no space left"))
        disk.wrote()
        now[0] += QUIET_SECONDS / 2
    assert len(_warnings(caplog)) == 1
    assert "room again" not in caplog.text
    now[0] += QUIET_SECONDS
    disk.wrote()
    disk.wrote()
    assert caplog.text.count("room again") == 1
    disk.refused(DiskFull("no space left"))
    assert len(_warnings(caplog)) == 2


def test_senders_and_probes_of_an_agent_with_a_full_disk_learn_the_reason(tmp_path: Path) -> None:
    """503 with Retry-After, which the rule HealRequestsUnavailable counts; nothing was acknowledged."""
    with harness(make_settings(tmp_path)) as api:
        assert api.get("/readyz").status_code == 200
        api.run(database_of(api.container.store).write(_fill))
        answers = [
            api.post("/events/deploy", json={**DEPLOY, "service": f"s-{number}-{'x' * 40}"})
            for number in range(200)
        ]
        refused = [one for one in answers if one.status_code != 202]
        assert refused
        for one in refused:
            assert "the disk of the database is full" in assert_problem(one, 503)["detail"]
            assert int(one.headers["retry-after"]) >= 1
        api.app.state.readiness = readiness()
        document = assert_problem(api.get("/readyz"), 503)
        assert [error["field"] for error in document["errors"]] == ["store"]
        assert "the disk of the database is full" in document["detail"]
        assert api.get("/incidents").status_code == 200

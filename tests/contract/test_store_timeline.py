"""The contract of the timeline: append-only and tamper-evident on SQLite and PostgreSQL (promise 12)."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from app.agent.models import Incident, Note, Stage
from app.agent.ports.store import Store
from app.agent.timeline import first_broken, verify_chain
from tests.contract.store_values import NOW, PAYMENTS, Deciding, claimed, note, opened, signal

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

UNPROTECT = {
    "sqlite": ["DROP TRIGGER timeline_no_update", "DROP TRIGGER timeline_no_delete"],
    "postgresql": [
        "DROP TRIGGER timeline_no_change ON timeline",
        "DROP TRIGGER timeline_no_truncate ON timeline",
    ],
}


def directly(database_url: str, *statements: str) -> None:
    """Run SQL past the store, as a person with access to the database would."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def unprotected(database_url: str, *statements: str) -> None:
    """The same by a person who removed the protection first."""
    directly(database_url, *UNPROTECT[database_url.partition(":")[0]], *statements)


async def with_entries(store: Store) -> Incident:
    """An incident with six entries."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    return await store.incidents.save(claim, incident, [note(f"entry {n}") for n in range(1, 6)])


async def test_the_chain_of_a_timeline_holds(store: Store) -> None:
    """Entries from intake, saving, beginning and joining form one unbroken chain."""
    incident = await with_entries(store)
    await store.signals.accept([signal()], Deciding(), dry_run=True)
    entries = await store.incidents.timeline(incident.id)
    assert len(entries) == 7
    assert verify_chain(incident.id, entries)


async def test_a_timeline_keeps_no_credential(store: Store) -> None:
    """Whatever an upstream said: message and data are redacted, and the chain holds over what is kept."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    said = "cannot reach https://ann:hunter2@db/x?key=hunter2: Bearer abc123def456"
    await store.incidents.save(
        claim, incident, [Note(at=NOW, stage=Stage.OBSERVE, message=said, data={"why": [said]})]
    )
    entries = await store.incidents.timeline(incident.id)
    assert "hunter2" not in str(entries)
    assert "abc123def456" not in str(entries)
    assert "cannot reach https://db/x" in entries[-1].message
    assert verify_chain(incident.id, entries)


async def test_entries_appended_at_once_form_one_chain(store: Store) -> None:
    """The loop and intake write into one timeline without gaps or forks."""
    incident = await opened(store)
    claim = await claimed(store, incident)

    async def passes() -> None:
        current = incident
        for n in range(10):
            current = await store.incidents.save(claim, current, [note(f"pass {n}")])

    await asyncio.gather(
        passes(), *(store.signals.accept([signal()], Deciding(), dry_run=True) for _ in range(20))
    )
    entries = await store.incidents.timeline(incident.id)
    assert [entry.sequence for entry in entries] == list(range(31))
    assert verify_chain(incident.id, entries)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE timeline SET message = 'nothing happened' WHERE sequence = 2",
        "DELETE FROM timeline WHERE sequence = 5",
        "DELETE FROM timeline",
    ],
)
async def test_the_database_refuses_to_change_a_timeline(
    store: Store, database_url: str, statement: str
) -> None:
    """Not even direct SQL changes or removes an entry."""
    incident = await with_entries(store)
    before = await store.incidents.timeline(incident.id)
    with pytest.raises(DBAPIError, match="append-only"):
        directly(database_url, statement)
    assert await store.incidents.timeline(incident.id) == before


async def test_postgresql_refuses_to_truncate_a_timeline(postgres_url: str) -> None:
    """TRUNCATE passes by row triggers, so it has one of its own."""
    with pytest.raises(DBAPIError, match="append-only"):
        directly(postgres_url, "TRUNCATE timeline")


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE timeline SET message = 'nothing happened' WHERE sequence = 2", 2),
        ("UPDATE timeline SET data = '{\"figure\": 0.14}' WHERE sequence = 3", 3),
        ("UPDATE timeline SET stage = 'verify' WHERE sequence = 1", 1),
        ("UPDATE timeline SET at = '2026-03-01 12:00:01+00:00' WHERE sequence = 4", 4),
        ("DELETE FROM timeline WHERE sequence = 0", 0),
        ("DELETE FROM timeline WHERE sequence = 3", 3),
        (
            "UPDATE timeline SET sequence = 105 - sequence WHERE sequence IN (2, 3);"
            "UPDATE timeline SET sequence = sequence - 100 WHERE sequence > 100",
            2,
        ),
    ],
)
async def test_tampering_shows(store: Store, database_url: str, tampering: str, broken: int) -> None:
    """A writer that gets past the protection still breaks the chain, at the entry it changed."""
    incident = await with_entries(store)
    if database_url.startswith("sqlite"):
        tampering = tampering.replace("+00:00", ".000000")
    unprotected(database_url, *tampering.split(";"))
    assert first_broken(incident.id, await store.incidents.timeline(incident.id)) == broken


async def test_a_timeline_moved_to_another_incident_shows(store: Store) -> None:
    """The chain starts from the incident's id."""
    incident = await with_entries(store)
    other = await opened(store, structs.replace(PAYMENTS, environment="dev"))
    assert not verify_chain(other.id, await store.incidents.timeline(incident.id))


async def test_entries_are_read_back_as_they_were_hashed(store: Store) -> None:
    """Numbers keep their kind, text its letters; what cannot be stored is replaced before it is hashed."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    data = {
        "float": 1.0,
        "big": 1e22,
        "tiny": 1e-300,
        "int": 2**60,
        "text": "ä€😀 \\u0000",
        "nested": [{"b": None, "a": True}, []],
        "nul\x00": "\x00",
        "half": "\ud800",
        "inf": float("inf"),
    }
    hostile = Note(at=NOW, stage=Stage.VERIFY, message="half \ud83d, nul \x00", data=data)  # type: ignore[arg-type]  # mypy cannot see that a dict of mixed values is JSON
    await store.incidents.save(claim, incident, [hostile])
    entries = await store.incidents.timeline(incident.id)
    assert verify_chain(incident.id, entries)
    assert entries[1].message == "half �, nul �"
    assert entries[1].data == {
        **{name: data[name] for name in ("float", "big", "tiny", "int", "text", "nested")},
        "nul�": "�",
        "half": "�",
        "inf": None,
    }
    assert isinstance(entries[1].data["float"], float)
    assert isinstance(entries[1].data["int"], int)

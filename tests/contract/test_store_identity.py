"""The contract of credentials and of the audit trail of people, over SQLite and PostgreSQL (promise 12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app.agent.identity import audit_log, tokens
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import (
    CredentialId,
    CredentialKind,
    Door,
    Person,
    Scope,
    issue,
)
from app.agent.models import KillSwitch
from app.agent.ports.store import Store
from app.errors import ConfigurationError, Conflict, NotFound
from app.store import open_store
from tests.contract.store_values import MINUTE, NOW, key, opened
from tests.contract.test_store_database import engine_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

ROOT = Person(name="root", door=Door.CLI)
ANN = Person(name="ann", roles=frozenset({"sre"}), door=Door.PAGE, verified=True)


async def _token(store: Store, name: str = "ci", *, lifetime: timedelta | None = None) -> CredentialId:
    issued = await tokens.create(
        store.credentials, name, scopes=[Scope.INGEST], roles=["sre"], lifetime=lifetime, by=ROOT, at=NOW
    )
    return issued.credential.id


INITIAL = "heal_tok_" + "a1" * 8 + "_" + "0f" * 32


async def test_processes_that_start_together_store_one_initial_token(store: Store) -> None:
    """It proves an administrator, and the audit trail names how it came."""
    stored = await asyncio.gather(*(tokens.store_initial(store.credentials, INITIAL, NOW) for _ in range(5)))
    assert sorted(stored) == [False] * 4 + [True]
    found = await tokens.proved(store.credentials, INITIAL)
    assert found is not None
    assert found.scopes == {Scope.ADMIN}
    (entry,) = await store.audit_log.entries(after=-1, limit=10)
    assert entry.data["initial"] is True


async def test_a_revoked_initial_token_stays_revoked(store: Store) -> None:
    """A restart with the same setting does not let its holder in again."""
    await tokens.store_initial(store.credentials, INITIAL, NOW)
    found = await tokens.proved(store.credentials, INITIAL)
    assert found is not None
    await tokens.revoke(store.credentials, found.id, by=ROOT, at=NOW)
    assert not await tokens.store_initial(store.credentials, INITIAL, NOW + MINUTE)


async def test_an_initial_token_adds_no_second_administrator(store: Store) -> None:
    """The setting has no effect while an administrator token exists; a malformed one is an error."""
    await tokens.create(
        store.credentials, "root", scopes=[Scope.ADMIN], roles=[], lifetime=None, by=ROOT, at=NOW
    )
    assert not await tokens.store_initial(store.credentials, INITIAL, NOW)
    with pytest.raises(ConfigurationError, match="INITIAL_ADMIN_TOKEN"):
        await tokens.store_initial(store.credentials, "secret", NOW)


async def test_a_token_is_kept_without_its_secret(store: Store, database_url: str) -> None:
    """What is read back is what was made; the text that proves it is nowhere in the database."""
    issued = await tokens.create(
        store.credentials,
        "ci",
        scopes=[Scope.INGEST, Scope.READ],
        roles=["sre"],
        lifetime=MINUTE,
        by=ROOT,
        at=NOW,
    )
    assert await store.credentials.get(issued.credential.id) == issued.credential
    assert await tokens.proved(store.credentials, issued.text) == issued.credential
    secret = issued.text.rpartition("_")[2]
    with engine_of(database_url).connect() as connection:
        for table in ("credentials", "audit_trail"):
            rows = connection.execute(text(f"SELECT * FROM {table}")).all()  # noqa: S608 - two constants
            assert rows
            assert secret not in repr(rows)


@pytest.mark.parametrize(
    "wrong", ["", "heal_", "heal_tok_0123456789abcdef_" + "0" * 64, "\ud800", "x" * 9999]
)
async def test_what_was_not_issued_proves_nothing(store: Store, wrong: str) -> None:
    """Neither nonsense nor another secret."""
    await _token(store)
    assert await tokens.proved(store.credentials, wrong) is None


async def test_another_secret_proves_nothing(store: Store) -> None:
    """The id alone is no secret."""
    credential_id = await _token(store)
    assert await tokens.proved(store.credentials, f"heal_{credential_id}_{'0' * 64}") is None


async def test_a_token_ends_when_its_time_is_over_or_when_it_is_revoked(store: Store) -> None:
    """Revoked once, by the first caller; the reason is returned."""
    short = await store.credentials.get(await _token(store, lifetime=MINUTE))
    assert short is not None
    assert short.refusal(NOW) is None
    assert "expired" in (short.refusal(NOW + MINUTE) or "")
    gone = await tokens.revoke(store.credentials, short.id, by=ANN, at=NOW)
    assert "revoked" in (gone.refusal(NOW) or "")
    assert gone.revoked_by == "ann"
    with pytest.raises(Conflict, match="ann"):
        await tokens.revoke(store.credentials, short.id, by=ROOT, at=NOW)
    with pytest.raises(NotFound):
        await tokens.revoke(store.credentials, CredentialId("tok_none"), by=ROOT, at=NOW)
    kinds = [one.kind for one in await store.audit_log.entries(after=-1, limit=10)]
    assert kinds == [HumanDecisionKind.TOKEN_CREATED, HumanDecisionKind.TOKEN_REVOKED]


async def test_sessions_are_not_listed_among_tokens(store: Store) -> None:
    """Newest first, those that ended included."""
    first = await _token(store, "one")
    issued = issue(CredentialKind.SESSION, "ann", roles=["sre"], scopes=(), by="ann", at=NOW, lifetime=MINUTE)
    human_decision = HumanDecision(
        at=NOW, by=ANN, kind=HumanDecisionKind.SIGNED_ON, subject=issued.credential.id
    )
    await store.credentials.add(issued.credential, human_decision)
    assert [one.id for one in await store.credentials.tokens()] == [first]


async def test_the_last_use_is_remembered_to_an_hour(store: Store) -> None:
    """One row is not written for each request."""
    credential_id = await _token(store)

    async def used_at(after: timedelta) -> object:
        credential = await store.credentials.get(credential_id)
        assert credential is not None
        await store.credentials.touch(credential, NOW + after)
        touched = await store.credentials.get(credential_id)
        assert touched is not None
        return touched.last_used_at

    assert await used_at(timedelta()) == NOW
    assert await used_at(timedelta(minutes=59)) == NOW
    assert await used_at(timedelta(minutes=61)) == NOW + timedelta(minutes=61)


async def test_what_ended_long_ago_is_forgotten(store: Store) -> None:
    """Sessions only: an old token that is still sent is no guess. The trail keeps what was done."""
    token = await _token(store, "old", lifetime=MINUTE)
    issued = issue(CredentialKind.SESSION, "ann", roles=(), scopes=(), by="ann", at=NOW, lifetime=MINUTE)
    session = issued.credential
    await store.credentials.add(
        session, HumanDecision(at=NOW, by=ANN, kind=HumanDecisionKind.SIGNED_ON, subject=session.id)
    )
    assert await store.credentials.forget(NOW) == 0
    assert await store.credentials.forget(NOW + timedelta(days=1)) == 1
    assert await store.credentials.get(session.id) is None
    assert await store.credentials.get(token) is not None
    assert len(await store.audit_log.entries(after=-1, limit=10)) == 2


async def test_every_decision_of_a_person_is_in_the_trail(store: Store) -> None:
    """The kill switch, a circuit breaker, a token: who, by which door, proved or not, in one chain."""
    await store.guardrails.set_kill_switch(
        KillSwitch(engaged=True, by="ann", reason="migration", at=NOW), person=ANN
    )
    await store.guardrails.set_kill_switch(KillSwitch(engaged=False, by="ben", reason="", at=NOW))
    await store.guardrails.close_circuit(
        key(1), KillSwitch(engaged=False, by="ann", reason="mended", at=NOW), person=ANN
    )
    await store.audit_log.append(
        HumanDecision(at=NOW, by=ANN, kind=HumanDecisionKind.PASS_REQUESTED, subject="prod/x")
    )
    entries = await store.audit_log.entries(after=-1, limit=10)
    assert [(one.by, one.door, one.verified, one.kind) for one in entries] == [
        ("ann", Door.PAGE, True, HumanDecisionKind.BRAKE_ENGAGED),
        ("ben", Door.API, False, HumanDecisionKind.BRAKE_RELEASED),
        ("ann", Door.PAGE, True, HumanDecisionKind.CIRCUIT_CLOSED),
        ("ann", Door.PAGE, True, HumanDecisionKind.PASS_REQUESTED),
    ]
    assert entries[0].data == {"reason": "migration"}
    assert entries[2].subject == str(key(1))
    assert audit_log.first_broken(entries) is None
    assert await store.audit_log.entries(after=1, limit=1) == entries[2:3]


async def test_decisions_at_one_moment_form_one_chain(store: Store, database_url: str) -> None:
    """Two processes, twenty decisions each: no gap, no fork."""
    other = await open_store(database_url) if database_url.startswith("postgresql") else store
    human_decision = HumanDecision(at=NOW, by=ANN, kind=HumanDecisionKind.PASS_REQUESTED, subject="x")
    await asyncio.gather(*(one.audit_log.append(human_decision) for one in (store, other) for _ in range(20)))
    entries = await store.audit_log.entries(after=-1, limit=100)
    assert [one.sequence for one in entries] == list(range(40))
    assert audit_log.first_broken(entries) is None
    if other is not store:
        await other.close()


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_trail SET actor = 'eve'", "DELETE FROM audit_trail", "TRUNCATE audit_trail"]
)
async def test_the_database_refuses_to_alter_the_trail(
    store: Store, database_url: str, statement: str
) -> None:
    """Write access to the table is not enough for one statement to change it."""
    await store.guardrails.set_kill_switch(KillSwitch(engaged=True, by="ann", reason="x", at=NOW))
    with pytest.raises(DatabaseError), engine_of(database_url).begin() as connection:
        connection.execute(text(statement))
    assert [one.by for one in await store.audit_log.entries(after=-1, limit=10)] == ["ann"]


async def test_nothing_is_put_in_the_place_of_an_entry(store: Store, database_url: str) -> None:
    """SQLite can replace a row without deleting it; not here, and not in a timeline."""
    if not database_url.startswith("sqlite"):
        return
    await store.guardrails.set_kill_switch(KillSwitch(engaged=True, by="ann", reason="x", at=NOW))
    incident = await opened(store, key(1))
    for table, where in (("audit_trail", "1 = 1"), ("timeline", f"incident_id = '{incident.id}'")):
        statement = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE {where}"  # noqa: S608 - constants
        with pytest.raises(DatabaseError), engine_of(database_url).begin() as connection:
            connection.execute(text(statement))


async def test_an_altered_trail_shows(store: Store) -> None:
    """A changed word, a missing entry, another order: the first that does not follow is named."""
    for reason in ("one", "two", "three"):
        await store.guardrails.set_kill_switch(KillSwitch(engaged=True, by="ann", reason=reason, at=NOW))
    entries = await store.audit_log.entries(after=-1, limit=10)
    assert audit_log.first_broken([entries[0], replace(entries[1], by="eve"), entries[2]]) == 1
    assert audit_log.first_broken([entries[0], entries[2]]) == 2
    assert audit_log.first_broken([entries[1], entries[0]]) == 1
    assert audit_log.first_broken(entries[1:], previous=entries[0].hash) is None


async def test_hostile_words_are_kept_as_words(store: Store) -> None:
    """What no database can hold is replaced, and the chain holds over what was stored."""
    eve = Person(name="e\x00v\ud800e")
    await store.guardrails.set_kill_switch(
        KillSwitch(engaged=True, by="x", reason="\x00'; DROP --", at=NOW), person=eve
    )
    entries = await store.audit_log.entries(after=-1, limit=10)
    assert entries[0].by == "e\ufffdv\ufffde"
    assert audit_log.first_broken(entries) is None


async def test_a_command_counts_once(store: Store) -> None:
    """The same nonce again changes nothing, neither the switch nor the trail, also of many at once."""
    off = KillSwitch(engaged=False, by="ann", reason="", at=NOW)
    results = await asyncio.gather(
        *(store.guardrails.set_kill_switch(off, person=ANN, nonce="command-1") for _ in range(20)),
        return_exceptions=True,
    )
    assert sum(one is None for one in results) == 1
    assert all(one is None or isinstance(one, Conflict) for one in results)
    await store.guardrails.set_kill_switch(KillSwitch(engaged=True, by="ben", reason="x", at=NOW))
    with pytest.raises(Conflict):
        await store.guardrails.set_kill_switch(off, person=ANN, nonce="command-1")
    brake = await store.guardrails.kill_switch()
    assert brake is not None
    assert brake.engaged
    assert len(await store.audit_log.entries(after=-1, limit=10)) == 2

"""The contract of the kill switch, over SQLite and PostgreSQL (promise 11)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest

from app.agent.guardrails.limits import Budget
from app.agent.models import IntentState, KillSwitch
from app.agent.ports.store import Store
from app.agent.ports.store.intents import Begun
from app.errors import Invalid
from app.store import open_store
from tests.contract.eventually import eventually
from tests.contract.store_values import (
    MINUTE,
    NOW,
    SNAPSHOT,
    claimed,
    decided,
    intent,
    key,
    opened,
    outcome,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

ON = KillSwitch(engaged=True, by="ann", reason="maintenance", at=NOW)
OFF = KillSwitch(engaged=False, by="ben", reason="done", at=NOW + MINUTE)


async def test_the_switch_says_who_set_it_last(store: Store, database_url: str) -> None:
    """Nothing while it was never touched; then the last setting, for every process."""
    assert await store.guardrails.kill_switch() is None
    await store.guardrails.set_kill_switch(ON)
    assert await store.guardrails.kill_switch() == ON
    other = await open_store(database_url)
    assert await other.guardrails.kill_switch() == ON
    await other.guardrails.set_kill_switch(OFF)
    assert await store.guardrails.kill_switch() == OFF
    await other.close()


@pytest.mark.parametrize("by", ["", "  ", "\n"])
async def test_the_person_who_sets_it_is_named(store: Store, by: str) -> None:
    """Without a name nothing changes."""
    await store.guardrails.set_kill_switch(ON)
    with pytest.raises(Invalid):
        await store.guardrails.set_kill_switch(replace(OFF, by=by))
    assert await store.guardrails.kill_switch() == ON


async def test_hostile_words_are_kept_as_words(store: Store) -> None:
    """Names and reasons come from outside; what no database can hold is replaced."""
    await store.guardrails.set_kill_switch(
        replace(ON, by="a\x00\ud800é", reason="'; DROP TABLE brakes; --\x00")
    )
    found = await store.guardrails.kill_switch()
    assert found is not None
    assert found.engaged
    assert "DROP TABLE brakes" in found.reason


async def test_while_engaged_nothing_begins_and_nothing_is_tried_again(store: Store) -> None:
    """The intent stays as it is, the timeline says nothing; released, both go on."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    first, second = intent(incident, 0), intent(incident, 1)
    await decided(store, claim, [first, second])
    assert (
        await store.intents.begin(claim, first.id, SNAPSHOT, Budget(per_incident=9), NOW)
    ).begun is Begun.YES
    await store.guardrails.set_kill_switch(ON)
    before = await store.incidents.get(incident.id)
    assert (
        await store.intents.begin(claim, second.id, SNAPSHOT, Budget(per_incident=9), NOW)
    ).begun is Begun.BRAKED
    assert await store.intents.retry(claim, first.id, 9, NOW) is Begun.BRAKED
    assert await store.incidents.get(incident.id) == before
    await store.guardrails.set_kill_switch(OFF)
    assert (
        await store.intents.begin(claim, second.id, SNAPSHOT, Budget(per_incident=9), NOW)
    ).begun is Begun.YES
    assert await store.intents.retry(claim, first.id, 9, NOW) is Begun.YES


async def test_an_undo_is_not_braked(store: Store) -> None:
    """What is under way is put back, tried again, and brought to its end."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident, 0)
    undo = intent(incident, 1, undoes=act.id)
    await decided(store, claim, [act, undo])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.YES
    await store.guardrails.set_kill_switch(ON)
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [])
    assert (
        await store.intents.begin(claim, undo.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.YES
    assert await store.intents.retry(claim, undo.id, 2, NOW) is Begun.YES
    await store.intents.finish(claim, undo.id, outcome(), "uid/9", [])


async def test_nothing_begins_once_the_switch_was_set(store: Store) -> None:
    """Set while forty intents begin: when the setter returns, it has seen every intent that ever will."""
    claims = []
    for n in range(40):
        incident = await opened(store, key(n))
        claim = await claimed(store, incident)
        act = intent(incident)
        await decided(store, claim, [act])
        claims.append((claim, act))

    async def executing() -> set[str]:
        found: set[str] = set()
        for claim, act in claims:
            record = await store.incidents.get(claim.incident_id)
            assert record is not None
            if record.intents[0].state is IntentState.EXECUTING:
                found.add(act.id)
        return found

    beginning = [
        asyncio.create_task(store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW))
        for claim, act in claims[:20]
    ]
    await asyncio.wait(beginning, return_when=asyncio.FIRST_COMPLETED)
    guardrail_status = asyncio.create_task(store.guardrails.set_kill_switch(ON))
    beginning += [
        asyncio.create_task(store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW))
        for claim, act in claims[20:]
    ]
    await guardrail_status
    begun_when_set = await executing()
    answers = [each.begun for each in await asyncio.gather(*beginning)]
    assert set(answers) <= {Begun.YES, Begun.BRAKED}
    assert Begun.YES in answers
    assert await executing() == begun_when_set
    assert len(begun_when_set) == answers.count(Begun.YES)
    late = await opened(store, key(99))
    claim = await claimed(store, late)
    act = intent(late)
    await decided(store, claim, [act])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.BRAKED


async def test_setting_the_switch_waits_for_an_intent_that_is_beginning(postgres_url: str) -> None:
    """On PostgreSQL, a begin that has read the switch commits before the setting returns, never after."""
    store = await open_store(postgres_url)
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    async with await psycopg.AsyncConnection.connect(postgres_url) as peer:
        await peer.execute("SELECT 1 FROM intents WHERE id = %s FOR UPDATE", [act.id])
        beginning = asyncio.create_task(
            store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
        )
        await eventually(lambda: _waiting(postgres_url, 1), "the begin has read the switch")
        guardrail_status = asyncio.create_task(store.guardrails.set_kill_switch(ON))

        async def settled() -> bool:
            return guardrail_status.done() or await _waiting(postgres_url, 2)

        await eventually(settled)
        assert not guardrail_status.done()
        await peer.rollback()
    assert (await beginning).begun is Begun.YES
    await guardrail_status
    assert await store.guardrails.kill_switch() == ON
    await store.close()


async def _waiting(database_url: str, count: int) -> bool:
    """Whether that many statements wait for a lock."""
    async with await psycopg.AsyncConnection.connect(database_url) as watching:
        found = await watching.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return await found.fetchone() == (count,)

"""The contract of claims and due work, over SQLite and PostgreSQL (promise 3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest

from app.agent.guardrails.limits import Budget
from app.agent.identity.people import Person
from app.agent.ids import ApprovalId, FencingToken, IncidentId
from app.agent.models import Incident, IncidentState
from app.agent.ports.store import Store
from app.errors import ClaimLost, NotFound
from app.store import open_store
from tests.contract.store_values import (
    LEASE,
    MINUTE,
    NOW,
    SNAPSHOT,
    approval,
    claimed,
    closed,
    decided,
    intent,
    key,
    note,
    opened,
    outcome,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


async def test_a_claim_shuts_others_out_until_its_lease_ends(store: Store) -> None:
    """Another owner gets None while the lease lives, and a higher token once it has ended."""
    incident = await opened(store)
    first = await claimed(store, incident, "a")
    assert first.expires_at == NOW + LEASE
    assert await store.claims.take(incident.id, "b", LEASE, NOW + LEASE - timedelta(seconds=1)) is None
    second = await store.claims.take(incident.id, "b", LEASE, NOW + LEASE)
    assert second is not None
    assert second.token > first.token


async def test_renewal_keeps_the_token_and_moves_the_expiry(store: Store) -> None:
    """The same owner stays the same holder, even after its lease ran out unnoticed."""
    incident = await opened(store)
    first = await claimed(store, incident)
    renewed = await claimed(store, incident, at=NOW + 5 * MINUTE)
    assert renewed.token == first.token
    assert renewed.expires_at == NOW + 5 * MINUTE + LEASE
    await store.incidents.save(first, incident, [])


async def test_holding_on_moves_the_expiry_of_the_very_claim(store: Store) -> None:
    """No other worker gets it before the new lease ends, and the token stays."""
    incident = await opened(store)
    first = await claimed(store, incident)
    await store.claims.renew(first, LEASE, NOW + 5 * MINUTE)
    end = NOW + 5 * MINUTE + LEASE
    assert await store.claims.take(incident.id, "b", LEASE, end - timedelta(seconds=1)) is None
    await store.incidents.save(first, incident, [])
    assert await store.claims.take(incident.id, "b", LEASE, end) is not None


@pytest.mark.parametrize("how", ["released", "taken over", "closed"])
async def test_a_lost_claim_is_not_taken_again_by_holding_on(store: Store, how: str) -> None:
    """`ClaimLost`, and another worker may have it at once."""
    incident = await opened(store)
    lost = await claimed(store, incident, "a")
    match how:
        case "released":
            await store.claims.release(lost, NOW)
        case "taken over":
            other = await claimed(store, incident, "b", NOW + MINUTE)
            await store.claims.release(other, NOW)
        case _:
            await store.incidents.save(lost, closed(incident), [])
    with pytest.raises(ClaimLost):
        await store.claims.renew(lost, LEASE, NOW + MINUTE)
    taken = await store.claims.take_due("c", LEASE, NOW + MINUTE, 5)
    assert [claim.incident_id for claim in taken] == ([] if how == "closed" else [incident.id])


async def test_the_old_holder_is_refused_after_a_take_over(store: Store) -> None:
    """Fencing: every write with the old token is `ClaimLost`, and changes nothing."""
    incident = await opened(store)
    old = await claimed(store, incident, "a")
    act = intent(incident)
    incident = await decided(store, old, [act])
    await claimed(store, incident, "b", NOW + MINUTE)
    with pytest.raises(ClaimLost):
        await store.incidents.save(old, incident, [note()])
    with pytest.raises(ClaimLost):
        await store.intents.add(old, incident, intent(incident, 1), [])
    with pytest.raises(ClaimLost):
        await store.intents.begin(old, act.id, SNAPSHOT, Budget(per_incident=5), NOW)
    with pytest.raises(ClaimLost):
        await store.intents.finish(old, act.id, outcome(), None, [])
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == incident
    assert record.intents == (act,)


async def test_a_forged_token_or_owner_is_refused(store: Store) -> None:
    """Both must be the newest holder's."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    for forged in (
        replace(claim, token=FencingToken(claim.token + 1)),
        replace(claim, owner="someone else"),
    ):
        with pytest.raises(ClaimLost):
            await store.incidents.save(forged, incident, [])


async def test_of_many_claimers_one_wins(store: Store) -> None:
    """Promise 3 under concurrency: twenty workers, one claim."""
    incident = await opened(store)
    claims = await asyncio.gather(*(store.claims.take(incident.id, f"w{n}", LEASE, NOW) for n in range(20)))
    assert len([claim for claim in claims if claim is not None]) == 1


async def test_release_frees_at_once_and_voids_the_claim(store: Store) -> None:
    """The next claim has a higher token, whichever worker takes it, and the released one writes no more."""
    incident = await opened(store)
    first = await claimed(store, incident, "a")
    await store.claims.release(first)
    with pytest.raises(ClaimLost):
        await store.incidents.save(first, incident, [])
    again = await claimed(store, incident, "a")
    assert again.token > first.token
    await store.claims.release(again)
    assert (await claimed(store, incident, "b")).token > again.token


async def test_releasing_a_lost_claim_is_no_error_and_frees_nothing(store: Store) -> None:
    """The new holder keeps what it took over."""
    incident = await opened(store)
    old = await claimed(store, incident, "a")
    new = await claimed(store, incident, "b", NOW + MINUTE)
    await store.claims.release(old)
    await store.incidents.save(new, incident, [])


async def test_every_claim_of_a_dead_owner_is_voided(store: Store) -> None:
    """The number is returned; other owners keep theirs."""
    incidents = [await opened(store, key(n)) for n in range(3)]
    dead = [await claimed(store, incident, "dead") for incident in incidents[:2]]
    alive = await claimed(store, incidents[2], "alive")
    assert await store.claims.release_owner("dead") == 2
    assert await store.claims.release_owner("dead") == 0
    for claim, incident in zip(dead, incidents, strict=False):
        with pytest.raises(ClaimLost):
            await store.incidents.save(claim, incident, [])
        assert (await claimed(store, incident, "peer")).token > claim.token
    await store.incidents.save(alive, incidents[2], [])


async def test_claiming_an_unknown_incident_is_not_found(store: Store) -> None:
    """There is nothing to hold."""
    with pytest.raises(NotFound):
        await store.claims.take(IncidentId("inc_none"), "a", LEASE, NOW)


async def test_a_claim_left_by_a_dead_holder_counts_as_an_interruption(store: Store) -> None:
    """Run out or voided, it counts once; renewing does not, and a clean release forgets them."""
    incident = await opened(store)
    assert (await claimed(store, incident, "a")).interruptions == 0
    assert (await claimed(store, incident, "a", NOW + MINUTE)).interruptions == 0
    assert (await claimed(store, incident, "b", NOW + 3 * MINUTE)).interruptions == 1
    await store.claims.release_owner("b")
    third = await claimed(store, incident, "c", NOW + 3 * MINUTE)
    assert third.interruptions == 2
    await store.claims.release(third, NOW + 4 * MINUTE)
    assert (await claimed(store, incident, "d", NOW + 5 * MINUTE)).interruptions == 0


async def test_a_lost_claim_cannot_forget_its_successors_interruptions(store: Store) -> None:
    """A late release by the old holder changes nothing."""
    incident = await opened(store)
    old = await claimed(store, incident, "a")
    new = await claimed(store, incident, "b", NOW + MINUTE)
    await store.claims.release(old, NOW + 9 * MINUTE)
    assert new.interruptions == 1
    assert (await claimed(store, incident, "b", NOW + MINUTE)).interruptions == 1
    await store.claims.release_owner("b")
    assert await due(store, "c") == [incident.id]  # and not at the time that the old holder named


# ------------------------------------------------------------ due work


async def waiting_for_an_answer(store: Store) -> tuple[Incident, ApprovalId]:
    """An incident at rest until people answer."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    asked = approval(incident)
    after = await store.approvals.request(
        claim, replace(incident, state=IncidentState.AWAITING_APPROVAL), asked, []
    )
    await store.claims.release(claim, asked.expires_at)
    return after, asked.id


async def due(store: Store, owner: str = "worker-1", at: datetime = NOW, limit: int = 99) -> list[IncidentId]:
    """What `take_due` hands out."""
    return [claim.incident_id for claim in await store.claims.take_due(owner, LEASE, at, limit)]


async def resting(store: Store, incident: Incident, until: datetime) -> None:
    """The incident after a pass that asked to be looked at again then."""
    await store.claims.release(await claimed(store, incident), until)


async def test_a_new_incident_is_due_and_handed_out_once(store: Store) -> None:
    """A claim like any other: no other worker gets the incident."""
    incident = await opened(store)
    [claim] = await store.claims.take_due("a", LEASE, NOW, 5)
    assert (claim.incident_id, claim.owner, claim.expires_at) == (incident.id, "a", NOW + LEASE)
    assert await due(store, "b") == []
    assert await due(store, "a") == []
    await store.incidents.save(claim, incident, [])


async def test_due_work_is_handed_out_longest_due_first_within_the_limit(store: Store) -> None:
    """What is not due yet, is held, or has ended stays where it is."""
    incidents = [await opened(store, key(n)) for n in range(6)]
    for n, minutes in ((0, 3), (1, 1), (2, 2), (3, 5)):
        await resting(store, incidents[n], NOW + minutes * MINUTE)
    await store.claims.take(incidents[4].id, "other", 60 * MINUTE, NOW)
    ending = await claimed(store, incidents[5])
    await store.incidents.save(ending, closed(incidents[5]), [])
    await store.claims.release(ending, NOW)
    at = NOW + 4 * MINUTE
    assert await due(store, at=at, limit=0) == []
    assert await due(store, at=at, limit=2) == [incidents[1].id, incidents[2].id]
    assert await due(store, at=at) == [incidents[0].id]
    assert await due(store, "late", at + 61 * MINUTE) == [incidents[n].id for n in (4, 1, 2, 0, 3)]


async def test_a_released_incident_is_due_at_the_time_named(store: Store) -> None:
    """Not before; without a time it is due as before: at once."""
    incident = await opened(store)
    await resting(store, incident, NOW + MINUTE)
    assert await store.claims.next_due() == NOW + MINUTE
    assert await due(store, at=NOW + MINUTE - timedelta(microseconds=1)) == []
    [claim] = await store.claims.take_due("worker-1", LEASE, NOW + MINUTE, 5)
    await store.claims.release(claim)
    assert await due(store, at=NOW + MINUTE) == [incident.id]


async def test_a_new_incident_is_due_by_every_clock(store: Store) -> None:
    """Workers whose clocks are behind the one that opened it see it all the same; so they do an answer."""
    incident, asked = await waiting_for_an_answer(store)
    other = await opened(store, key(1), at=NOW + 60 * MINUTE)
    early = NOW - 60 * MINUTE
    assert await due(store, "behind", early) == [other.id]
    await store.approvals.answer(asked, approve=True, by=Person(name="ann"), comment="", at=NOW)
    assert await due(store, "behind", early) == [incident.id]


async def test_the_next_due_time_is_reported(store: Store) -> None:
    """Of open incidents without a claim; None without any."""
    assert await store.claims.next_due() is None
    incidents = [await opened(store, key(n)) for n in range(3)]
    for n in (1, 2):
        await resting(store, incidents[n], NOW + n * MINUTE)
    told = await store.claims.next_due()
    assert told is not None
    assert told <= NOW
    held = await claimed(store, incidents[0])
    assert await store.claims.next_due() == NOW + MINUTE
    await store.incidents.save(held, closed(incidents[0]), [])
    await store.claims.release(held)
    assert await store.claims.next_due() == NOW + MINUTE
    for incident in incidents[1:]:
        await claimed(store, incident)
    assert await store.claims.next_due() is None


async def test_an_incident_whose_holder_died_is_handed_out_with_a_higher_token(store: Store) -> None:
    """Once the lease is over; the dead one's token is refused from then on."""
    incident = await opened(store)
    [dead] = await store.claims.take_due("dead", LEASE, NOW, 5)
    assert await due(store, "peer", NOW + LEASE - timedelta(microseconds=1)) == []
    [taken] = await store.claims.take_due("peer", LEASE, NOW + LEASE, 5)
    assert taken.token > dead.token
    assert taken.interruptions == dead.interruptions + 1
    with pytest.raises(ClaimLost):
        await store.incidents.save(dead, incident, [])


async def test_what_a_dead_owner_held_is_due_at_once(store: Store) -> None:
    """Its lease need not run out when it is known to be dead."""
    incident = await opened(store)
    await claimed(store, incident, "dead")
    assert await due(store, "peer") == []
    await store.claims.release_owner("dead")
    [taken] = await store.claims.take_due("peer", LEASE, NOW, 5)
    assert (taken.incident_id, taken.interruptions) == (incident.id, 1)


async def test_a_claim_makes_a_resting_incident_due(store: Store) -> None:
    """A process killed in a run-once leaves it to be found long before it would have been due."""
    incident = await opened(store)
    await resting(store, incident, NOW + 600 * MINUTE)
    await claimed(store, incident, "run-once", NOW + MINUTE)
    assert await due(store, at=NOW + MINUTE + LEASE) == [incident.id]


async def test_an_answer_during_a_pass_keeps_the_incident_due(store: Store) -> None:
    """The pass that was under way may have looked too early; the time that it names does not count."""
    incident, asked = await waiting_for_an_answer(store)
    held = await claimed(store, incident)
    await store.approvals.answer(asked, approve=True, by=Person(name="ann"), comment="", at=NOW)
    await store.claims.release(held, NOW + 60 * MINUTE)
    assert await due(store, "worker-2", NOW) == [incident.id]


async def test_an_answer_before_a_pass_does_not(store: Store) -> None:
    """The pass knows of it, and says itself when to look again."""
    incident, asked = await waiting_for_an_answer(store)
    await store.approvals.answer(asked, approve=True, by=Person(name="ann"), comment="", at=NOW)
    [held] = await store.claims.take_due("worker-2", LEASE, NOW, 5)
    await store.claims.release(held, NOW + MINUTE)
    assert await due(store, "worker-3", NOW) == []
    assert await due(store, "worker-3", NOW + MINUTE) == [incident.id]


async def test_two_takers_at_once_share_without_overlap(store: Store) -> None:
    """Promise 3: of sixty due incidents each goes to exactly one of six workers, and none is left."""
    incidents = {(await opened(store, key(n))).id for n in range(60)}
    given: list[IncidentId] = []

    async def worker(owner: str) -> None:
        while len(given) < len(incidents):
            claims = await store.claims.take_due(owner, LEASE, NOW, 4)
            assert {claim.owner for claim in claims} <= {owner}
            given.extend(claim.incident_id for claim in claims)

    await asyncio.wait_for(asyncio.gather(*(worker(f"w{n}") for n in range(6))), 120)
    assert sorted(given) == sorted(incidents)


async def test_taking_does_not_wait_for_a_row_that_another_worker_holds(postgres_url: str) -> None:
    """On PostgreSQL a peer's long transaction over one incident delays none of the others."""
    store = await open_store(postgres_url)
    busy, free = await opened(store, key(1)), await opened(store, key(2))
    async with await psycopg.AsyncConnection.connect(postgres_url) as peer:
        await peer.execute("SELECT 1 FROM incidents WHERE id = %s FOR UPDATE", [busy.id])
        assert await asyncio.wait_for(due(store), 120) == [free.id]
    assert await due(store) == [busy.id]
    await store.close()

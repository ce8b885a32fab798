"""The contract of incidents: claims, saving, intents and listing, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.models import (
    Cause,
    DecisionKind,
    Diagnosis,
    FencingToken,
    Hypothesis,
    Incident,
    IncidentId,
    IncidentState,
    IntentId,
    IntentState,
    Lesson,
    OutcomeKind,
    Plan,
    Rehearsal,
    RejectedRunbook,
    ServiceKey,
    SliSample,
    Stage,
    Trigger,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.ports import IncidentFilter, Store
from app.errors import ClaimLost, Invalid, NotFound
from tests.contract.store_values import (
    LEASE,
    NOW,
    PAYMENTS,
    SNAPSHOT,
    Deciding,
    claimed,
    decided,
    intent,
    loaded,
    note,
    opened,
    outcome,
    signal,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

MINUTE = timedelta(minutes=1)


def key(number: int) -> ServiceKey:
    return ServiceKey(environment="prod", service=f"service-{number}")


def closed(incident: Incident, state: IncidentState = IncidentState.RECOVERED) -> Incident:
    return replace(incident, state=state, closed_at=NOW + MINUTE)


def full(incident: Incident) -> Incident:
    """The incident with every stage's value in it."""
    action = intent(incident).action
    return replace(
        incident,
        state=IncidentState.VERIFYING,
        diagnosis=Diagnosis(
            hypotheses=(
                Hypothesis(cause=Cause.BAD_RELEASE, confidence=0.9, rule="release", evidence_for=("a", "b")),
                Hypothesis(
                    cause=Cause.UNKNOWN,
                    confidence=0.1,
                    rule="none",
                    evidence_for=(),
                    evidence_against=("c",),
                ),
            ),
            at=NOW,
        ),
        plan=Plan(
            runbook="bad-release@1",
            runbook_hash="0f",
            actions=(action, replace(action, target=None)),
            rejected=(RejectedRunbook(runbook="restart@1", reason="no leak"),),
            hash="abc",
            at=NOW,
        ),
        next_action=1,
        verification=Verification(
            intent_id=IntentId("int_1"),
            started_at=NOW,
            healthy_since=NOW + MINUTE,
            baseline=SliSample(at=NOW, error_rate=0.13, p95_latency_ms=1450.0),
        ),
        verdict=Verdict(kind=VerdictKind.CANNOT_TELL, reasons=("no data",), at=NOW),
        lesson=Lesson(
            cause=Cause.BAD_RELEASE,
            runbook="bad-release@1",
            actions=(action.name,),
            worked=None,
            recovered_alone=False,
            seconds_to_recover=61.5,
            at=NOW,
        ),
        wake_at=NOW + MINUTE,
        summary="watching",
    )


# ------------------------------------------------------------ claims


async def test_a_claim_shuts_others_out_until_its_lease_ends(store: Store) -> None:
    """Another owner gets None while the lease lives, and a higher token once it has ended."""
    incident = await opened(store)
    first = await claimed(store, incident, "a")
    assert first.expires_at == NOW + LEASE
    assert await store.claim(incident.id, "b", LEASE, NOW + LEASE - timedelta(seconds=1)) is None
    second = await store.claim(incident.id, "b", LEASE, NOW + LEASE)
    assert second is not None
    assert second.token > first.token


async def test_renewal_keeps_the_token_and_moves_the_expiry(store: Store) -> None:
    """The same owner stays the same holder, even after its lease ran out unnoticed."""
    incident = await opened(store)
    first = await claimed(store, incident)
    renewed = await claimed(store, incident, at=NOW + 5 * MINUTE)
    assert renewed.token == first.token
    assert renewed.expires_at == NOW + 5 * MINUTE + LEASE
    await store.save(first, incident, [])


async def test_the_old_holder_is_refused_after_a_take_over(store: Store) -> None:
    """Fencing: every write with the old token is `ClaimLost`, and changes nothing."""
    incident = await opened(store)
    old = await claimed(store, incident, "a")
    act = intent(incident)
    incident = await decided(store, old, [act])
    await claimed(store, incident, "b", NOW + MINUTE)
    with pytest.raises(ClaimLost):
        await store.save(old, incident, [note()])
    with pytest.raises(ClaimLost):
        await store.decide(old, incident, intent(incident, 1), [])
    with pytest.raises(ClaimLost):
        await store.begin(old, act.id, SNAPSHOT, 5, NOW)
    with pytest.raises(ClaimLost):
        await store.finish(old, act.id, outcome(), None, [])
    record = await store.load(incident.id)
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
            await store.save(forged, incident, [])


async def test_of_many_claimers_one_wins(store: Store) -> None:
    """Promise 3 under concurrency: twenty workers, one claim."""
    incident = await opened(store)
    claims = await asyncio.gather(*(store.claim(incident.id, f"w{n}", LEASE, NOW) for n in range(20)))
    assert len([claim for claim in claims if claim is not None]) == 1


async def test_release_frees_at_once_and_voids_the_claim(store: Store) -> None:
    """The next claim has a higher token, whoever takes it, and the released one writes no more."""
    incident = await opened(store)
    first = await claimed(store, incident, "a")
    await store.release(first)
    with pytest.raises(ClaimLost):
        await store.save(first, incident, [])
    again = await claimed(store, incident, "a")
    assert again.token > first.token
    await store.release(again)
    assert (await claimed(store, incident, "b")).token > again.token


async def test_releasing_a_lost_claim_is_no_error_and_frees_nothing(store: Store) -> None:
    """The new holder keeps what it took over."""
    incident = await opened(store)
    old = await claimed(store, incident, "a")
    new = await claimed(store, incident, "b", NOW + MINUTE)
    await store.release(old)
    await store.save(new, incident, [])


async def test_every_claim_of_a_dead_owner_is_voided(store: Store) -> None:
    """How many is told; other owners keep theirs."""
    incidents = [await opened(store, key(n)) for n in range(3)]
    dead = [await claimed(store, incident, "dead") for incident in incidents[:2]]
    alive = await claimed(store, incidents[2], "alive")
    assert await store.release_owner("dead") == 2
    assert await store.release_owner("dead") == 0
    for claim, incident in zip(dead, incidents, strict=False):
        with pytest.raises(ClaimLost):
            await store.save(claim, incident, [])
        assert (await claimed(store, incident, "peer")).token > claim.token
    await store.save(alive, incidents[2], [])


async def test_claiming_an_unknown_incident_is_not_found(store: Store) -> None:
    """There is nothing to hold."""
    with pytest.raises(NotFound):
        await store.claim(IncidentId("inc_none"), "a", LEASE, NOW)


# ------------------------------------------------------------ save


async def test_saving_stores_everything_and_raises_the_version(store: Store) -> None:
    """Each stage's value is read back as it was; notes follow in the timeline."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    saved = await store.save(claim, full(incident), [note("one"), note("two")])
    assert saved == replace(full(incident), version=incident.version + 1)
    record = await store.load(incident.id)
    assert record is not None
    assert record.incident == saved
    assert [entry.message for entry in record.timeline[1:]] == ["one", "two"]
    assert [entry.sequence for entry in record.timeline] == [0, 1, 2]
    assert record.timeline == await store.timeline(incident.id)
    assert record.timeline[1].data == {"figure": 0.13}
    assert record.timeline[1].at == NOW
    assert record.timeline[1].stage is Stage.DIAGNOSE


async def test_an_old_version_is_refused(store: Store) -> None:
    """Whoever read before the last save must read again; its notes are not kept."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.save(claim, incident, [])
    with pytest.raises(ClaimLost):
        await store.save(claim, replace(incident, summary="late"), [note("late")])
    assert [entry.message for entry in await store.timeline(incident.id) if entry.message == "late"] == []


async def test_of_concurrent_saves_of_one_version_one_wins(store: Store) -> None:
    """The version is compared and set in one step."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    answers = await asyncio.gather(
        *(store.save(claim, incident, [note(str(n))]) for n in range(10)), return_exceptions=True
    )
    assert len([answer for answer in answers if isinstance(answer, Incident)]) == 1
    assert len([answer for answer in answers if isinstance(answer, ClaimLost)]) == 9
    assert len(await store.timeline(incident.id)) == 2


async def test_a_closed_incident_is_never_changed(store: Store) -> None:
    """After the end every write is `ClaimLost`, also with a live claim and the right version."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    incident = await decided(store, claim, [act])
    ended = await store.save(claim, closed(incident), [note("ended")])
    entries = await store.timeline(incident.id)
    with pytest.raises(ClaimLost):
        await store.save(claim, replace(ended, summary="more"), [note()])
    with pytest.raises(ClaimLost):
        await store.decide(claim, ended, intent(incident, 1), [])
    with pytest.raises(ClaimLost):
        await store.begin(claim, act.id, SNAPSHOT, 5, NOW)
    with pytest.raises(ClaimLost):
        await store.finish(claim, act.id, outcome(), None, [])
    assert await loaded(store, incident.id) == ended
    assert await store.timeline(incident.id) == entries


async def test_saving_does_not_undo_what_intake_added(store: Store) -> None:
    """A pass that began before a signal joined keeps its claim, and the trigger stays."""
    before = await opened(store, stale=True)
    claim = await claimed(store, before)
    await store.accept([signal()], Deciding(triggers=(Trigger.CRASH_LOOP,)), dry_run=True)
    saved = await store.save(claim, replace(before, wake_at=NOW), [])
    assert saved.triggers == (Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP)
    assert not saved.stale
    assert saved.summary == "payments-api in prod: deploy failed, crash loop"
    assert saved == await loaded(store, before.id)
    with_own = replace(saved, triggers=(Trigger.HIGH_LATENCY,), summary="own words")
    assert (await store.save(claim, with_own, [])).triggers == (
        Trigger.DEPLOY_FAILED,
        Trigger.CRASH_LOOP,
        Trigger.HIGH_LATENCY,
    )
    assert (await loaded(store, before.id)).summary == "own words"


async def test_a_dry_run_incident_never_becomes_a_real_one(store: Store) -> None:
    """Promise 5: saving can turn an incident into a dry run, and not back."""
    incident = await opened(store, dry_run=False)
    claim = await claimed(store, incident)
    dry = await store.save(claim, replace(incident, dry_run=True), [])
    assert dry.dry_run
    assert (await store.save(claim, replace(dry, dry_run=False), [])).dry_run


async def test_what_identifies_an_incident_cannot_be_saved_over(store: Store) -> None:
    """Service, opening time and the tie between end state and closing time are held."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    for wrong in (
        replace(incident, key=key(1)),
        replace(incident, opened_at=NOW + MINUTE),
        replace(incident, state=IncidentState.ESCALATED),
        replace(incident, closed_at=NOW),
    ):
        with pytest.raises(Invalid):
            await store.save(claim, wrong, [note()])
    other = await opened(store, key(2))
    with pytest.raises(ClaimLost):
        await store.save(claim, other, [])
    assert len(await store.timeline(incident.id)) == 1


async def test_an_unknown_incident_loads_as_none(store: Store) -> None:
    """And has no timeline."""
    assert await store.load(IncidentId("inc_none")) is None
    assert await store.timeline(IncidentId("inc_none")) == ()


# ------------------------------------------------------------ intents


async def test_a_decided_intent_is_stored_with_its_incident_and_notes(store: Store) -> None:
    """One transaction: incident, intent and notes together, and the version grows."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = replace(intent(incident), rehearsal=Rehearsal(accepted=True, message="configured (dry run)"))
    after = await store.decide(
        claim, replace(incident, state=IncidentState.EXECUTING), act, [note("allowed")]
    )
    assert after.version == incident.version + 1
    record = await store.load(incident.id)
    assert record is not None
    assert record.incident == after
    assert record.intents == (act,)
    assert record.timeline[-1].message == "allowed"


async def test_a_refused_or_rehearsed_intent_is_stored_finished(store: Store) -> None:
    """What was not attempted is on record with its outcome."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    refused = replace(
        intent(incident, kind=DecisionKind.DENY),
        state=IntentState.FINISHED,
        outcome=outcome(OutcomeKind.REFUSED),
    )
    rehearsed = replace(
        intent(incident, 1, dry_run=True),
        state=IntentState.FINISHED,
        outcome=outcome(OutcomeKind.REHEARSED),
        snapshot=SNAPSHOT,
    )
    await decided(store, claim, [refused, rehearsed])
    record = await store.load(incident.id)
    assert record is not None
    assert record.intents == (refused, rehearsed)


async def test_an_intent_that_cannot_be_is_refused_whole(store: Store) -> None:
    """Wrong incident, state without outcome, taken id or sequence: `Invalid`, and nothing is stored."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    incident = await decided(store, claim, [act])
    other = await opened(store, key(1))
    for wrong in (
        intent(other, 1),
        replace(intent(incident, 1), state=IntentState.EXECUTING),
        replace(intent(incident, 1), state=IntentState.FINISHED),
        replace(intent(incident, 1), outcome=outcome()),
        intent(incident, 0),
        replace(intent(incident, 1), id=act.id),
    ):
        with pytest.raises(Invalid):
            await store.decide(claim, incident, wrong, [note()])
    record = await store.load(incident.id)
    assert record is not None
    assert record.incident == incident
    assert record.intents == (act,)


async def test_beginning_is_durable_and_told_in_the_timeline(store: Store) -> None:
    """DECIDED becomes EXECUTING with snapshot and time, and the version stays."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    incident = await decided(store, claim, [act])
    assert await store.begin(claim, act.id, SNAPSHOT, 1, NOW + MINUTE)
    record = await store.load(incident.id)
    assert record is not None
    assert record.incident == incident
    assert record.intents == (
        replace(act, state=IntentState.EXECUTING, snapshot=SNAPSHOT, started_at=NOW + MINUTE),
    )
    assert record.timeline[-1].stage is Stage.EXECUTE
    assert record.timeline[-1].message == "Starting: rollback on Deployment payments/payments-api."
    assert record.timeline[-1].data["intent_id"] == act.id


async def test_an_intent_begins_once(store: Store) -> None:
    """Promise 2: the second begin is False and leaves no trace, also after the end."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    answers = await asyncio.gather(*(store.begin(claim, act.id, SNAPSHOT, 9, NOW) for _ in range(8)))
    assert sorted(answers) == [False] * 7 + [True]
    await store.finish(claim, act.id, outcome(), "uid/8", [])
    length = len(await store.timeline(incident.id))
    assert not await store.begin(claim, act.id, SNAPSHOT, 9, NOW)
    assert len(await store.timeline(incident.id)) == length


async def test_the_budget_holds_under_concurrency(store: Store) -> None:
    """Promise 4: of ten decided intents at once, as many begin as the budget allows."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    acts = [intent(incident, n) for n in range(10)]
    await decided(store, claim, acts)
    answers = await asyncio.gather(*(store.begin(claim, act.id, SNAPSHOT, 3, NOW) for act in acts))
    assert sum(answers) == 3
    record = await store.load(incident.id)
    assert record is not None
    assert [each.state for each in record.intents].count(IntentState.EXECUTING) == 3


async def test_the_budget_counts_what_finished_and_not_what_was_refused(store: Store) -> None:
    """A finished action still counts; one that never began does not."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    refused = replace(
        intent(incident, 0, kind=DecisionKind.DENY),
        state=IntentState.FINISHED,
        outcome=outcome(OutcomeKind.REFUSED),
    )
    acts = [intent(incident, n) for n in (1, 2, 3)]
    await decided(store, claim, [refused, *acts])
    assert await store.begin(claim, acts[0].id, SNAPSHOT, 2, NOW)
    await store.finish(claim, acts[0].id, outcome(OutcomeKind.FAILED), None, [])
    assert await store.begin(claim, acts[1].id, SNAPSHOT, 2, NOW)
    assert not await store.begin(claim, acts[2].id, SNAPSHOT, 2, NOW)


async def test_an_undo_needs_no_budget_and_uses_none(store: Store) -> None:
    """With the budget spent an undo still begins, and it does not count."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    acts = [intent(incident, 0), intent(incident, 2)]
    undo = intent(incident, 1, undoes=acts[0].id)
    await decided(store, claim, [acts[0], undo, acts[1]])
    assert await store.begin(claim, acts[0].id, SNAPSHOT, 1, NOW)
    assert await store.begin(claim, undo.id, SNAPSHOT, 1, NOW)
    assert (await store.timeline(incident.id))[-1].stage is Stage.UNDO
    assert not await store.begin(claim, acts[1].id, SNAPSHOT, 1, NOW)
    assert await store.begin(claim, acts[1].id, SNAPSHOT, 2, NOW)


async def test_without_budget_nothing_begins(store: Store) -> None:
    """A budget of zero is a valid setting."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    assert not await store.begin(claim, act.id, SNAPSHOT, 0, NOW)


async def test_an_action_without_object_begins_without_snapshot(store: Store) -> None:
    """A notification changes nothing in a cluster."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    act = replace(act, action=replace(act.action, target=None))
    await decided(store, claim, [act])
    assert await store.begin(claim, act.id, None, 1, NOW)
    assert (await store.timeline(incident.id))[-1].message == "Starting: rollback."


@pytest.mark.parametrize("kind", [DecisionKind.DENY, DecisionKind.NEEDS_APPROVAL])
async def test_what_was_not_allowed_never_begins(store: Store, kind: DecisionKind) -> None:
    """Promise 1 at the last door: without a recorded allow there is no effect."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident, kind=kind)
    await decided(store, claim, [act])
    with pytest.raises(Invalid):
        await store.begin(claim, act.id, SNAPSHOT, 9, NOW)


async def test_a_dry_run_intent_never_begins(store: Store) -> None:
    """Promise 5 at the last door."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident, dry_run=True)
    await decided(store, claim, [act])
    with pytest.raises(Invalid):
        await store.begin(claim, act.id, SNAPSHOT, 9, NOW)


async def test_finishing_stores_the_outcome_once(store: Store) -> None:
    """The second finish is `ClaimLost`, and the first outcome stays."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    await store.begin(claim, act.id, SNAPSHOT, 1, NOW)
    await store.finish(claim, act.id, outcome(), "uid/8", [note("done")])
    with pytest.raises(ClaimLost):
        await store.finish(claim, act.id, outcome(OutcomeKind.FAILED), None, [note("failed")])
    record = await store.load(incident.id)
    assert record is not None
    assert record.intents == (
        replace(
            act,
            state=IntentState.FINISHED,
            snapshot=SNAPSHOT,
            started_at=NOW,
            outcome=outcome(),
            applied_token="uid/8",
        ),
    )
    assert record.timeline[-1].message == "done"


async def test_a_decided_intent_can_be_finished_unattempted(store: Store) -> None:
    """A brake between decision and effect: DECIDED -> FINISHED, and it never begins."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    await store.finish(claim, act.id, outcome(OutcomeKind.REFUSED), None, [])
    assert not await store.begin(claim, act.id, SNAPSHOT, 1, NOW)


async def test_an_unknown_intent_is_not_found(store: Store) -> None:
    """So is another incident's."""
    incident, other = await opened(store), await opened(store, key(1))
    claim, others_claim = await claimed(store, incident), await claimed(store, other)
    act = intent(other)
    await decided(store, others_claim, [act])
    with pytest.raises(NotFound):
        await store.begin(claim, act.id, SNAPSHOT, 1, NOW)
    with pytest.raises(NotFound):
        await store.finish(claim, IntentId("int_none"), outcome(), None, [])


# ------------------------------------------------------------ listing


async def test_open_incidents_are_given_oldest_first(store: Store) -> None:
    """Closed ones are left out."""
    newer = await opened(store, key(1), at=NOW + MINUTE)
    older = await opened(store, key(2))
    ended = await opened(store, key(3))
    await store.save(await claimed(store, ended), closed(ended), [])
    assert await store.open_incidents() == (older, newer)


async def test_pages_stay_stable_while_incidents_open(store: Store) -> None:
    """Turning pages shows each incident that was there at the start once, newest first."""
    there = [await opened(store, key(n), at=NOW + (n // 3) * MINUTE) for n in range(10)]
    seen: list[Incident] = []
    cursor = None
    turned = 0
    while True:
        page = await store.find(IncidentFilter(), limit=3, cursor=cursor)
        seen.extend(record.incident for record in page.items)
        turned += 1
        await opened(store, key(100 + turned), at=NOW + (100 + turned) * MINUTE)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert turned == 4
    assert seen == sorted(there, key=lambda incident: (incident.opened_at, incident.id), reverse=True)


async def test_a_last_page_that_is_just_full_has_no_cursor(store: Store) -> None:
    """No empty page follows it."""
    for n in range(4):
        await opened(store, key(n))
    page = await store.find(IncidentFilter(), limit=2, cursor=None)
    page = await store.find(IncidentFilter(), limit=2, cursor=page.next_cursor)
    assert len(page.items) == 2
    assert page.next_cursor is None


async def test_filters_narrow_the_list(store: Store) -> None:
    """Service, environment, state, and since <= opened_at < until; together they all hold."""
    first = await opened(store, ServiceKey(environment="prod", service="a"), at=NOW)
    second = await opened(store, ServiceKey(environment="dev", service="a"), at=NOW + MINUTE)
    third = await opened(store, ServiceKey(environment="prod", service="b"), at=NOW + 2 * MINUTE)
    third = await store.save(await claimed(store, third), closed(third, IncidentState.PROPOSED), [])

    async def found(where: IncidentFilter) -> list[Incident]:
        return [record.incident for record in (await store.find(where, limit=9, cursor=None)).items]

    assert await found(IncidentFilter()) == [third, second, first]
    assert await found(IncidentFilter(service="a")) == [second, first]
    assert await found(IncidentFilter(environment="prod")) == [third, first]
    assert await found(IncidentFilter(state=IncidentState.PROPOSED)) == [third]
    assert await found(IncidentFilter(since=NOW + MINUTE)) == [third, second]
    assert await found(IncidentFilter(until=NOW + MINUTE)) == [first]
    assert await found(IncidentFilter(since=NOW, until=NOW + 2 * MINUTE, environment="dev")) == [second]
    assert await found(IncidentFilter(service="a' OR 1=1 --")) == []


async def test_a_page_has_the_intents_of_its_incidents(store: Store) -> None:
    """Each record carries its own intents in order; timelines are for the single view."""
    incidents = [await opened(store, key(n), at=NOW + n * MINUTE) for n in range(2)]
    acts = [[intent(incident, 0), intent(incident, 1)] for incident in incidents]
    for incident, its_acts in zip(incidents, acts, strict=True):
        await decided(store, await claimed(store, incident), its_acts)
    page = await store.find(IncidentFilter(), limit=9, cursor=None)
    assert [record.intents for record in page.items] == [tuple(acts[1]), tuple(acts[0])]
    assert [record.timeline for record in page.items] == [(), ()]


@pytest.mark.parametrize("cursor", ["", "inc_none", "nonsense", "é\x00", "' OR 1=1 --"])
async def test_a_cursor_of_nobodys_is_invalid(store: Store, cursor: str) -> None:
    """Only what a page gave out turns to the next one."""
    await opened(store, PAYMENTS)
    with pytest.raises(Invalid):
        await store.find(IncidentFilter(), limit=3, cursor=cursor)


async def test_a_limit_below_one_is_invalid(store: Store) -> None:
    """An endless list of empty pages helps nobody."""
    with pytest.raises(Invalid, match="limit"):
        await store.find(IncidentFilter(), limit=0, cursor=None)

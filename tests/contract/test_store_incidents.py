"""The contract of incidents: saving and listing, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.agent.guardrails.limits import Budget
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import (
    Cause,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentState,
    Lesson,
    Plan,
    RejectedRunbook,
    SliSample,
    Stage,
    Trigger,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.errors import ClaimLost, Invalid
from tests.contract.store_values import (
    MINUTE,
    NOW,
    PAYMENTS,
    SNAPSHOT,
    Deciding,
    approval,
    claimed,
    closed,
    decided,
    intent,
    key,
    loaded,
    note,
    opened,
    outcome,
    recovered_after,
    signal,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


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


# ------------------------------------------------------------ save


async def test_saving_stores_everything_and_raises_the_version(store: Store) -> None:
    """Each stage's value is read back as it was; notes follow in the timeline."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    saved = await store.incidents.save(claim, full(incident), [note("one"), note("two")])
    assert saved == replace(full(incident), version=incident.version + 1)
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == saved
    assert [entry.message for entry in record.timeline[1:]] == ["one", "two"]
    assert [entry.sequence for entry in record.timeline] == [0, 1, 2]
    assert record.timeline == await store.incidents.timeline(incident.id)
    assert record.timeline[1].data == {"figure": 0.13}
    assert record.timeline[1].at == NOW
    assert record.timeline[1].stage is Stage.DIAGNOSE


async def test_an_old_version_is_refused(store: Store) -> None:
    """A writer that read before the last save must read again; its notes are not kept."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.incidents.save(claim, incident, [])
    with pytest.raises(ClaimLost):
        await store.incidents.save(claim, replace(incident, summary="late"), [note("late")])
    assert [
        entry.message for entry in await store.incidents.timeline(incident.id) if entry.message == "late"
    ] == []


async def test_of_concurrent_saves_of_one_version_one_wins(store: Store) -> None:
    """The version is compared and set in one step."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    answers = await asyncio.gather(
        *(store.incidents.save(claim, incident, [note(str(n))]) for n in range(10)), return_exceptions=True
    )
    assert len([answer for answer in answers if isinstance(answer, Incident)]) == 1
    assert len([answer for answer in answers if isinstance(answer, ClaimLost)]) == 9
    assert len(await store.incidents.timeline(incident.id)) == 2


async def test_a_closed_incident_is_never_changed(store: Store) -> None:
    """After the end every write is `ClaimLost`, also with a live claim and the right version."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    incident = await decided(store, claim, [act])
    ended = await store.incidents.save(claim, closed(incident), [note("ended")])
    entries = await store.incidents.timeline(incident.id)
    with pytest.raises(ClaimLost):
        await store.incidents.save(claim, replace(ended, summary="more"), [note()])
    with pytest.raises(ClaimLost):
        await store.intents.add(claim, ended, intent(incident, 1), [])
    with pytest.raises(ClaimLost):
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=5), NOW)
    with pytest.raises(ClaimLost):
        await store.intents.finish(claim, act.id, outcome(), None, [])
    assert await loaded(store, incident.id) == ended
    assert await store.incidents.timeline(incident.id) == entries


async def test_saving_does_not_undo_what_intake_added(store: Store) -> None:
    """A pass that began before a signal joined keeps its claim, and the trigger stays."""
    before = await opened(store, stale=True)
    claim = await claimed(store, before)
    await store.signals.accept([signal()], Deciding(triggers=(Trigger.CRASH_LOOP,)), dry_run=True)
    saved = await store.incidents.save(claim, replace(before, wake_at=NOW), [])
    assert saved.triggers == (Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP)
    assert not saved.stale
    assert saved.summary == "payments-api in prod: deploy failed, crash loop"
    assert saved == await loaded(store, before.id)
    with_own = replace(saved, triggers=(Trigger.HIGH_LATENCY,), summary="own words")
    assert (await store.incidents.save(claim, with_own, [])).triggers == (
        Trigger.DEPLOY_FAILED,
        Trigger.CRASH_LOOP,
        Trigger.HIGH_LATENCY,
    )
    assert (await loaded(store, before.id)).summary == "own words"


@pytest.mark.parametrize(
    "end", [IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION, IncidentState.ESCALATED]
)
async def test_a_recovery_is_not_declared_over_a_signal_that_joined_meanwhile(
    store: Store, end: IncidentState
) -> None:
    """What was judged healthy was judged without it: `ClaimLost`, and after another look it is accepted.

    A recovery that leaves a change behind ends as escalated: its verdict counts.
    """
    seen = await opened(store)
    claim = await claimed(store, seen)
    seen = await store.incidents.save(claim, replace(seen, verdict=recovered_after(None)), [])
    await store.signals.accept([signal()], Deciding(), dry_run=True)  # the same trigger once more
    with pytest.raises(ClaimLost, match="joined"):
        await store.incidents.save(claim, closed(seen, end), [note("recovered")])
    assert (await loaded(store, seen.id)).state is IncidentState.OPEN
    # Opened and joined, and nothing of the refused end.
    assert len(await store.incidents.timeline(seen.id)) == 2
    looked_again = await loaded(store, seen.id)
    assert (await store.incidents.save(claim, closed(looked_again, end), [])).state is end


@pytest.mark.parametrize("end", [IncidentState.ESCALATED, IncidentState.PROPOSED])
async def test_a_person_is_asked_whatever_joined_meanwhile(store: Store, end: IncidentState) -> None:
    """Escalating needs no new look: the newest signal makes no case for waiting."""
    seen = await opened(store)
    claim = await claimed(store, seen)
    await store.signals.accept([signal()], Deciding(triggers=(Trigger.CRASH_LOOP,)), dry_run=True)
    ended = await store.incidents.save(claim, closed(seen, end), [])
    assert ended.state is end
    assert ended.joined == 1
    assert ended.triggers == (Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP)


async def test_a_signal_without_a_trigger_stands_in_no_recoverys_way(store: Store) -> None:
    """A healthy sample that joins is no symptom."""
    seen = await opened(store)
    claim = await claimed(store, seen)
    await store.signals.accept([signal()], Deciding(triggers=()), dry_run=True)
    assert (await store.incidents.save(claim, closed(seen), [])).state is IncidentState.RECOVERED


async def test_a_dry_run_incident_never_becomes_a_real_one(store: Store) -> None:
    """Promise 5: saving can turn an incident into a dry run, and not back."""
    incident = await opened(store, dry_run=False)
    claim = await claimed(store, incident)
    dry = await store.incidents.save(claim, replace(incident, dry_run=True), [])
    assert dry.dry_run
    assert (await store.incidents.save(claim, replace(dry, dry_run=False), [])).dry_run


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
            await store.incidents.save(claim, wrong, [note()])
    other = await opened(store, key(2))
    with pytest.raises(ClaimLost):
        await store.incidents.save(claim, other, [])
    assert len(await store.incidents.timeline(incident.id)) == 1


async def test_an_unknown_incident_loads_as_none(store: Store) -> None:
    """And has no timeline."""
    assert await store.incidents.get(IncidentId("inc_none")) is None
    assert await store.incidents.timeline(IncidentId("inc_none")) == ()


# ------------------------------------------------------------ listing


async def test_open_incidents_are_given_oldest_first(store: Store) -> None:
    """Closed ones are left out."""
    newer = await opened(store, key(1), at=NOW + MINUTE)
    older = await opened(store, key(2))
    ended = await opened(store, key(3))
    await store.incidents.save(await claimed(store, ended), closed(ended), [])
    assert await store.incidents.all_open() == (older, newer)


async def test_pages_stay_stable_while_incidents_open(store: Store) -> None:
    """Turning pages shows each incident that was there at the start once, newest first."""
    there = [await opened(store, key(n), at=NOW + (n // 3) * MINUTE) for n in range(10)]
    seen: list[Incident] = []
    cursor = None
    turned = 0
    while True:
        page = await store.incidents.find(IncidentFilter(), limit=3, cursor=cursor)
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
    page = await store.incidents.find(IncidentFilter(), limit=2, cursor=None)
    page = await store.incidents.find(IncidentFilter(), limit=2, cursor=page.next_cursor)
    assert len(page.items) == 2
    assert page.next_cursor is None


async def test_filters_narrow_the_list(store: Store) -> None:
    """Service, environment, state, and since <= opened_at < until; together they all hold."""
    first = await opened(store, ServiceKey(environment="prod", service="a"), at=NOW)
    second = await opened(store, ServiceKey(environment="dev", service="a"), at=NOW + MINUTE)
    third = await opened(store, ServiceKey(environment="prod", service="b"), at=NOW + 2 * MINUTE)
    third = await store.incidents.save(await claimed(store, third), closed(third, IncidentState.PROPOSED), [])

    async def found(where: IncidentFilter) -> list[Incident]:
        return [record.incident for record in (await store.incidents.find(where, limit=9, cursor=None)).items]

    assert await found(IncidentFilter()) == [third, second, first]
    assert await found(IncidentFilter(service="a")) == [second, first]
    assert await found(IncidentFilter(environment="prod")) == [third, first]
    assert await found(IncidentFilter(states=(IncidentState.PROPOSED,))) == [third]
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
    page = await store.incidents.find(IncidentFilter(), limit=9, cursor=None)
    assert [record.intents for record in page.items] == [tuple(acts[1]), tuple(acts[0])]
    assert [record.timeline for record in page.items] == [(), ()]


async def test_a_page_without_intents_has_the_same_incidents(store: Store) -> None:
    """What a list does not show is not read."""
    incident = await opened(store, PAYMENTS)
    await decided(store, await claimed(store, incident), [intent(incident, 0)])
    bare = await store.incidents.find(IncidentFilter(), limit=9, cursor=None, intents=False)
    page = await store.incidents.find(IncidentFilter(), limit=9, cursor=None)
    assert [record.intents for record in bare.items] == [()]
    assert [record.incident for record in bare.items] == [record.incident for record in page.items]


async def test_newest_parts_are_those_of_each_incident_alone(store: Store) -> None:
    """Intents, approvals and the newest entries of each; an unknown id is left out."""
    incidents = [await opened(store, key(n), at=NOW + n * MINUTE) for n in range(3)]
    for number, incident in enumerate(incidents[:2]):
        claim = await claimed(store, incident)
        held = await decided(store, claim, [intent(incident, 0), intent(incident, 1)])
        waiting = replace(held, state=IncidentState.AWAITING_APPROVAL)
        notes = [note(f"{number} {each}") for each in range(3)]
        await store.approvals.request(claim, waiting, approval(incident), notes)
    ids = [incident.id for incident in incidents]
    parts = await store.incidents.get_newest_parts([*ids, IncidentId("inc_none")], limit=2)
    assert set(parts) == set(ids)
    for incident_id in ids:
        assert parts[incident_id] == await store.incidents.get_part(incident_id, limit=2)
    assert [entry.message for entry in parts[ids[1]].record.timeline] == ["1 1", "1 2"]
    assert [len(parts[each].record.approvals) for each in ids] == [1, 1, 0]
    assert [len(parts[each].record.intents) for each in ids] == [2, 2, 0]
    assert await store.incidents.get_newest_parts([], limit=2) == {}


@pytest.mark.parametrize("cursor", ["", "inc_none", "nonsense", "é\x00", "' OR 1=1 --"])
async def test_a_cursor_of_no_list_is_invalid(store: Store, cursor: str) -> None:
    """Only what a page gave out turns to the next one."""
    await opened(store, PAYMENTS)
    with pytest.raises(Invalid):
        await store.incidents.find(IncidentFilter(), limit=3, cursor=cursor)


async def test_a_limit_below_one_is_invalid(store: Store) -> None:
    """An endless list of empty pages is of no use."""
    with pytest.raises(Invalid, match="limit"):
        await store.incidents.find(IncidentFilter(), limit=0, cursor=None)


async def test_the_open_incidents_of_one_service_are_read_by_name(store: Store) -> None:
    """Every environment, or one; what has ended is left out."""
    here = await opened(store, ServiceKey(environment="prod", service="shop"))
    there = await opened(store, ServiceKey(environment="staging", service="shop"))
    await opened(store, ServiceKey(environment="prod", service="other"))
    both = await store.incidents.open_of_service("shop", None)
    assert {incident.id for incident in both} == {here.id, there.id}
    assert [incident.id for incident in await store.incidents.open_of_service("shop", "prod")] == [here.id]
    assert await store.incidents.open_of_service("nothing", None) == ()


async def test_what_is_open_beside_a_service_is_bounded(store: Store) -> None:
    """Services named are found for certain; of the others there are at most as many as asked for."""
    keys = [ServiceKey(environment="prod", service=f"s-{number}") for number in range(8)]
    for each in keys:
        await opened(store, each)
    silent = ServiceKey(environment="prod", service="healthy")
    beside = await store.incidents.open_beside(keys[0], [keys[1], silent, keys[0]], 4)
    assert beside.named == (keys[1],)
    assert len(beside.others) == 4
    assert not {keys[0], keys[1]} & set(beside.others)

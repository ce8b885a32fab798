"""The contract of what people do about incidents, over SQLite and PostgreSQL (promises 3 and 12)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from app.agent.guardrails.limits import Budget
from app.agent.identity.audit_log import HumanDecisionKind, first_broken
from app.agent.identity.people import Person
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import ApprovalState, IncidentState, OutcomeKind
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.timeline import verify_chain
from app.errors import ClaimLost, Conflict, NotFound
from app.store.incidents import repository
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
    loaded,
    note,
    opened,
    outcome,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

ANN, BEN = Person(name="ann"), Person(name="ben")


def said(
    act: ResponderAct, by: Person = ANN, text: str = "seen", owner: str | None = None, at: datetime = NOW
) -> ResponderRequest:
    return ResponderRequest(act=act, by=by, at=at, text=text, owner=owner)


async def test_an_acknowledgement_disturbs_no_pass_and_survives_it(store: Store) -> None:
    """The agent saves what it loaded before: acknowledgement and owner stay, once each in the timeline."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.responders.respond(incident.id, said(ResponderAct.ACKNOWLEDGE))
    await store.responders.respond(incident.id, said(ResponderAct.ACKNOWLEDGE, BEN))
    await store.responders.respond(incident.id, said(ResponderAct.ASSIGN, owner="ben"))
    await store.responders.respond(incident.id, said(ResponderAct.NOTE, text="the provider is down"))
    saved = await store.incidents.save(claim, replace(incident, summary="bad release"), [note()])
    assert saved.acknowledged is not None
    assert (saved.acknowledged.by, saved.owner, saved.summary) == ("ann", "ben", "bad release")
    messages = [entry.message for entry in await store.incidents.timeline(incident.id)]
    assert messages[1:4] == [
        "Acknowledged by ann: seen.",
        "ann assigned the incident to ben: seen.",
        "Note by ann: the provider is down",
    ]
    assert verify_chain(incident.id, await store.incidents.timeline(incident.id))
    entries = await store.audit_log.entries(after=-1, limit=10)
    assert [entry.kind for entry in entries] == [
        HumanDecisionKind.ACKNOWLEDGED,
        HumanDecisionKind.ASSIGNED,
        HumanDecisionKind.NOTED,
    ]
    assert {entry.subject for entry in entries} == {incident.id}
    assert first_broken(entries) is None


async def test_a_take_over_stops_the_agent_until_it_is_handed_back(store: Store) -> None:
    """The worker's claim is void at once, no worker gets another, and a hand-back makes it due."""
    incident = await opened(store)
    claim = await claimed(store, incident, "a")
    act = intent(incident)
    incident = await decided(store, claim, [act])
    taken = await store.responders.respond(incident.id, said(ResponderAct.TAKE_OVER))
    assert (taken.owner, taken.taken_over and taken.taken_over.by) == ("ann", "ann")
    with pytest.raises(ClaimLost):
        await store.incidents.save(claim, incident, [note()])
    with pytest.raises(ClaimLost):
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=5), NOW)
    assert await store.claims.take(incident.id, "b", LEASE, NOW + MINUTE) is None
    assert await store.claims.take_due("b", LEASE, NOW + 60 * MINUTE, 5) == ()
    assert await store.claims.next_due() is None
    record = await store.incidents.get(incident.id)
    assert record is not None
    [refused] = record.intents
    assert refused.outcome is not None
    assert (refused.outcome.kind, refused.outcome.look_anew) == (OutcomeKind.REFUSED, True)
    with pytest.raises(Conflict, match="already taken over by ann"):
        await store.responders.respond(incident.id, said(ResponderAct.TAKE_OVER, BEN))
    back = await store.responders.respond(incident.id, said(ResponderAct.HAND_BACK, BEN))
    assert back.taken_over is None
    [due] = await store.claims.take_due("b", LEASE, NOW, 5)
    assert due.token > claim.token
    assert (await store.incidents.save(due, back, [note()])).taken_over is None


async def test_what_was_never_taken_over_cannot_be_handed_back(store: Store) -> None:
    """A hand-back sent again after a lost answer is accepted, and records nothing."""
    incident = await opened(store)
    with pytest.raises(Conflict, match="was never taken over: there is nothing to hand back"):
        await store.responders.respond(incident.id, said(ResponderAct.HAND_BACK))
    await store.responders.respond(incident.id, said(ResponderAct.TAKE_OVER))
    await store.responders.respond(incident.id, said(ResponderAct.HAND_BACK))
    length = len(await store.incidents.timeline(incident.id))
    again = await store.responders.respond(incident.id, said(ResponderAct.HAND_BACK))
    assert again.taken_over is None
    assert len(await store.incidents.timeline(incident.id)) == length


async def test_a_take_over_voids_the_approval_that_is_awaited(store: Store) -> None:
    """A later answer is refused, and the incident is open."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    asked = approval(incident)
    waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
    await store.approvals.request(claim, waiting, asked, [note()])
    taken = await store.responders.respond(incident.id, said(ResponderAct.TAKE_OVER))
    assert taken.state is IncidentState.OPEN
    found = await store.approvals.get(asked.id)
    assert found is not None
    assert found.state is ApprovalState.VOID
    with pytest.raises(Conflict):
        await store.approvals.answer(asked.id, approve=True, by=BEN, comment="", at=NOW)


@pytest.mark.parametrize("begun", [False, True])
async def test_resolving_by_hand_ends_an_open_incident(store: Store, begun: bool) -> None:
    """Its intents end with their true outcome, and a new incident of the service may open."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    if begun:
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=5), NOW)
    at = NOW + MINUTE
    resolved = await store.responders.respond(
        incident.id, said(ResponderAct.RESOLVE, text="cleared the queue", at=at)
    )
    assert (resolved.state, resolved.closed_at) == (IncidentState.RESOLVED_BY_HAND, at)
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == resolved
    assert resolved.lesson is not None
    assert record.timeline[-1].message.startswith("Resolved by hand by ann: cleared the queue.")
    [ended] = record.intents
    assert ended.outcome is not None
    assert ended.outcome.kind is (OutcomeKind.UNKNOWN if begun else OutcomeKind.REFUSED)
    with pytest.raises(ClaimLost):
        await store.intents.finish(claim, act.id, outcome(), None, [])
    again = await store.responders.respond(incident.id, said(ResponderAct.RESOLVE, BEN))
    assert again == resolved
    assert (await opened(store)).id != incident.id


async def test_an_escalated_incident_is_resolved_when_a_person_says_so(store: Store) -> None:
    """It can be acknowledged and assigned before; when it ended does not change."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.incidents.save(claim, closed(incident, IncidentState.ESCALATED), [])
    await store.responders.respond(incident.id, said(ResponderAct.ACKNOWLEDGE))
    at = NOW + 9 * MINUTE
    resolved = await store.responders.respond(incident.id, said(ResponderAct.RESOLVE, at=at))
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == resolved
    assert (resolved.state, resolved.resolved and resolved.resolved.at) == (
        IncidentState.RESOLVED_BY_HAND,
        at,
    )
    assert resolved.closed_at == closed(incident).closed_at
    for act in (ResponderAct.ACKNOWLEDGE, ResponderAct.ASSIGN, ResponderAct.TAKE_OVER):
        with pytest.raises(Conflict, match="has ended"):
            await store.responders.respond(incident.id, said(act))
    await store.responders.respond(incident.id, said(ResponderAct.NOTE, text="for the review"))
    with pytest.raises(NotFound):
        await store.responders.respond(IncidentId("inc_0"), said(ResponderAct.NOTE))


async def test_incidents_are_searched_and_sorted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All words must occur somewhere; a wildcard is a plain character; both orders page without a gap."""
    ids: list[IncidentId] = []
    for number, name in enumerate(("payments-api", "payments-worker", "shop")):
        one = await opened(store, ServiceKey(environment="prod", service=name), at=NOW + number * MINUTE)
        ids.append(one.id)
    claim = await claimed(store, await loaded(store, ids[0]))
    stored = await loaded(store, ids[0])
    await store.incidents.save(claim, replace(stored, summary="Bad RELEASE of 100%_x"), [])

    async def found(text: str, *, oldest_first: bool = False) -> list[IncidentId]:
        got: list[IncidentId] = []
        cursor = None
        while True:
            where = IncidentFilter(text=text, oldest_first=oldest_first)
            page = await store.incidents.find(where, limit=1, cursor=cursor)
            got.extend(record.incident.id for record in page.items)
            cursor = page.next_cursor
            if cursor is None:
                return got

    for looked_at in (25_000, 2, 1):
        monkeypatch.setattr(repository, "SEARCHED_AT_ONCE", looked_at)
        assert await found("payments") == [ids[1], ids[0]]
        assert await found("payments", oldest_first=True) == [ids[0], ids[1]]
        assert await found("release PAYMENTS") == [ids[0]]
        assert await found("100%_X") == [ids[0]]
        assert await found("p_yments") == []
        assert await found(ids[2][:12]) == [ids[2]]
        assert await found("") == ids[::-1]
    first = await store.incidents.find(IncidentFilter(text="payments-api"), limit=9, cursor=None)
    assert (first.items, first.next_cursor) == ((), ids[2]), "no more than one incident was looked at"

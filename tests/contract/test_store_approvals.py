"""The contract of approvals: asked for, answered once, used once, over SQLite and PostgreSQL (promise 1)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.identity.people import Answer, ApprovalTerms, Person
from app.agent.ids import ApprovalId
from app.agent.models import (
    Approval,
    ApprovalState,
    Incident,
    IncidentState,
    Intent,
    Stage,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.timeline import verify_chain
from app.errors import ClaimLost, Conflict, Invalid, NotEntitled, NotFound
from tests.contract.store_values import (
    LEASE,
    MINUTE,
    NOW,
    approval,
    claimed,
    closed,
    intent,
    key,
    loaded,
    note,
    opened,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


async def asked(store: Store, incident: Incident | None = None) -> tuple[Claim, Incident, Approval]:
    """An incident that waits for an answer, its claim still held."""
    incident = incident or await opened(store)
    claim = await claimed(store, incident)
    request = approval(incident)
    waiting = await store.approvals.request(
        claim, replace(incident, state=IncidentState.AWAITING_APPROVAL), request, [note("asked")]
    )
    return claim, waiting, request


async def answered(store: Store, request: Approval, *, approve: bool = True, by: str = "ann") -> Approval:
    return await store.approvals.answer(
        request.id, approve=approve, by=Person(name=by), comment="go on", at=NOW
    )


async def state_of(store: Store, request: Approval) -> ApprovalState:
    found = await store.approvals.get(request.id)
    assert found is not None
    return found.state


def following(incident: Incident, request: Approval, sequence: int = 0) -> Intent:
    """An intent that uses the approval up."""
    return replace(intent(incident, sequence), approval=request.id)


# ------------------------------------------------------------ asking


async def test_a_request_is_stored_with_its_incident_in_one_step(store: Store) -> None:
    """State, request and notes together; the record shows the request."""
    _, waiting, request = await asked(store)
    record = await store.incidents.get(waiting.id)
    assert record is not None
    assert record.incident == waiting
    assert waiting.state is IncidentState.AWAITING_APPROVAL
    assert record.approvals == (request,)
    assert record.timeline[-1].message == "asked"
    assert await store.approvals.get(request.id) == request


async def test_a_request_that_cannot_be_is_refused_whole(store: Store) -> None:
    """Another incident's, one that comes answered, a taken id: nothing is stored with it."""
    claim, waiting, request = await asked(store)
    other = await opened(store, key(1))
    for wrong in (
        approval(other),
        replace(approval(waiting), state=ApprovalState.APPROVED),
        replace(approval(waiting), id=request.id),
    ):
        with pytest.raises(Invalid):
            await store.approvals.request(claim, waiting, wrong, [note("wrong")])
    record = await store.incidents.get(waiting.id)
    assert record is not None
    assert (record.incident, record.approvals) == (waiting, (request,))


async def test_only_the_holder_asks(store: Store) -> None:
    """A worker that was taken over cannot bother people."""
    incident = await opened(store)
    old = await claimed(store, incident, "old")
    await claimed(store, incident, "new", NOW + LEASE)
    request = approval(incident)
    with pytest.raises(ClaimLost):
        await store.approvals.request(old, incident, request, [])
    assert await store.approvals.get(request.id) is None


# ------------------------------------------------------------ answering


@pytest.mark.parametrize(
    ("approve", "state"), [(True, ApprovalState.APPROVED), (False, ApprovalState.DENIED)]
)
async def test_an_answer_is_stored_and_recorded(store: Store, approve: bool, state: ApprovalState) -> None:
    """With who, when and why; the timeline says so, and its chain holds."""
    _, waiting, request = await asked(store)
    given = await store.approvals.answer(
        request.id, approve=approve, by=Person(name="ann"), comment="as agreed", at=NOW
    )
    said = Answer(by="ann", approve=approve, comment="as agreed", at=NOW)
    ended = replace(request, state=state, answered_by="ann", answered_at=NOW, comment="as agreed")
    assert given == replace(ended, answers=(said,))
    assert await store.approvals.get(request.id) == given
    entries = await store.incidents.timeline(waiting.id)
    assert verify_chain(waiting.id, entries)
    assert entries[-1].stage is Stage.POLICY
    assert entries[-1].message == f"rollback {state} by ann: as agreed."
    assert entries[-1].data["approval"] == request.id
    assert entries[-1].data["plan_hash"] == "abc"


async def test_an_answer_does_not_disturb_a_pass_under_way(store: Store) -> None:
    """The holder's version stands, and what it saves next is accepted."""
    claim, waiting, request = await asked(store)
    await answered(store, request)
    assert await loaded(store, waiting.id) == waiting
    await store.incidents.save(claim, waiting, [note("after")])


async def test_of_fifty_answers_at_once_one_counts(store: Store) -> None:
    """Forty-nine get the name of the person whose answer stands, and the timeline has one answer."""
    _, waiting, request = await asked(store)
    answers = await asyncio.gather(
        *(
            store.approvals.answer(
                request.id, approve=n % 2 == 0, by=Person(name=f"person {n}"), comment="", at=NOW
            )
            for n in range(50)
        ),
        return_exceptions=True,
    )
    [winner] = [answer for answer in answers if isinstance(answer, Approval)]
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refused) == 49
    assert all(str(refusal).endswith(f"by {winner.answered_by}") for refusal in refused)
    assert await store.approvals.get(request.id) == winner
    told = [entry for entry in await store.incidents.timeline(waiting.id) if entry.stage is Stage.POLICY]
    assert [entry.data["by"] for entry in told] == [winner.answered_by]


@pytest.mark.parametrize("again", [True, False])
async def test_a_late_answer_gets_the_answer_that_stands(store: Store, again: bool) -> None:
    """Also when it says the same, also from the same person: a double click has one effect."""
    _, _, request = await asked(store)
    first = await answered(store, request, approve=False, by="ann")
    with pytest.raises(Conflict, match="already denied by ann"):
        await answered(store, request, approve=again, by="ann")
    assert await store.approvals.get(request.id) == first


async def test_an_expired_request_cannot_be_answered(store: Store) -> None:
    """From the very moment that it named; the instant before still counts."""
    _, _, request = await asked(store)
    with pytest.raises(Conflict, match="expired"):
        await store.approvals.answer(
            request.id, approve=True, by=Person(name="ann"), comment="", at=request.expires_at
        )
    assert await state_of(store, request) is ApprovalState.PENDING
    just_before = request.expires_at - timedelta(microseconds=1)
    given = await store.approvals.answer(
        request.id, approve=True, by=Person(name="ann"), comment="", at=just_before
    )
    assert given.state is ApprovalState.APPROVED


async def test_an_unknown_request_is_not_found(store: Store) -> None:
    """Whatever stands in its place."""
    for name in ("apr_none", "", "é", "' OR 1=1 --"):
        assert await store.approvals.get(ApprovalId(name)) is None
        with pytest.raises(NotFound):
            await store.approvals.answer(
                ApprovalId(name), approve=True, by=Person(name="ann"), comment="", at=NOW
            )


async def test_hostile_words_are_kept_as_words(store: Store) -> None:
    """Names and comments come from outside: what no database can hold is replaced, the rest stays."""
    _, waiting, request = await asked(store)
    said = "'; DROP TABLE approvals; -- \x00 \ud800 é"
    given = await store.approvals.answer(request.id, approve=True, by=Person(name=said), comment=said, at=NOW)
    assert given.answered_by is not None
    assert given.answered_by.startswith("'; DROP TABLE approvals; -- ")
    assert given == await store.approvals.get(request.id)
    assert verify_chain(waiting.id, await store.incidents.timeline(waiting.id))


# ------------------------------------------------------------ the end of a request


async def test_an_approval_is_used_with_the_intent_that_follows_from_it(store: Store) -> None:
    """One step: the intent is on record exactly when the approval is used up."""
    claim, waiting, request = await asked(store)
    await answered(store, request)
    act = following(waiting, request)
    await store.intents.add(claim, replace(waiting, state=IncidentState.EXECUTING), act, [])
    assert await state_of(store, request) is ApprovalState.USED
    record = await store.incidents.get(waiting.id)
    assert record is not None
    assert record.intents == (act,)
    with pytest.raises(Conflict, match="already approved by ann"):
        await answered(store, request)


async def test_an_approval_is_used_once(store: Store) -> None:
    """The second intent is refused whole: one yes, one action."""
    claim, waiting, request = await asked(store)
    await answered(store, request)
    first = await store.intents.add(claim, waiting, following(waiting, request), [])
    with pytest.raises(ClaimLost):
        await store.intents.add(claim, first, following(waiting, request, 1), [note("twice")])
    record = await store.incidents.get(waiting.id)
    assert record is not None
    assert (record.incident, len(record.intents)) == (first, 1)
    assert record.timeline[-1].message != "twice"


async def test_of_uses_at_once_one_counts(store: Store) -> None:
    """Ten decisions on one approval: one intent."""
    claim, waiting, request = await asked(store)
    await answered(store, request)
    answers = await asyncio.gather(
        *(store.intents.add(claim, waiting, following(waiting, request, n), []) for n in range(10)),
        return_exceptions=True,
    )
    assert len([answer for answer in answers if isinstance(answer, Incident)]) == 1
    assert len([answer for answer in answers if isinstance(answer, ClaimLost)]) == 9


@pytest.mark.parametrize("answer", [None, False])
async def test_what_was_not_approved_is_not_used(store: Store, answer: bool | None) -> None:
    """Unanswered or denied, no intent follows from it."""
    claim, waiting, request = await asked(store)
    if answer is not None:
        await answered(store, request, approve=answer)
    before = await state_of(store, request)
    with pytest.raises(ClaimLost):
        await store.intents.add(claim, waiting, following(waiting, request), [])
    assert await state_of(store, request) is before
    assert (await loaded(store, waiting.id)) == waiting


async def test_an_approval_serves_its_own_incident_alone(store: Store) -> None:
    """A yes to one service's rollback is none to another's."""
    _, _, request = await asked(store)
    await answered(store, request)
    other = await opened(store, key(1))
    claim = await claimed(store, other)
    with pytest.raises(ClaimLost):
        await store.intents.add(claim, other, following(other, request), [])
    assert await state_of(store, request) is ApprovalState.APPROVED


async def test_a_lost_claim_uses_nothing_up(store: Store) -> None:
    """The yes is there for the worker that took over."""
    claim, waiting, request = await asked(store)
    await answered(store, request)
    successor = await store.claims.take(waiting.id, "peer", LEASE, NOW + LEASE)
    assert successor is not None
    with pytest.raises(ClaimLost):
        await store.intents.add(claim, waiting, following(waiting, request), [])
    assert await state_of(store, request) is ApprovalState.APPROVED
    await store.intents.add(successor, waiting, following(waiting, request), [])


@pytest.mark.parametrize("approve", [None, True])
async def test_leaving_the_wait_voids_what_is_open(store: Store, approve: bool | None) -> None:
    """What people said, or may still say, is about a plan that is gone."""
    claim, waiting, request = await asked(store)
    if approve is not None:
        await answered(store, request, approve=approve)
    await store.incidents.save(claim, replace(waiting, state=IncidentState.OPEN), [note()])
    assert await state_of(store, request) is ApprovalState.VOID
    with pytest.raises(Conflict, match="void"):
        await answered(store, request)


async def test_leaving_the_wait_after_its_time_expires_unanswered_requests(store: Store) -> None:
    """It says expired, which is why nothing was done."""
    claim, waiting, request = await asked(store)
    await store.incidents.save(claim, closed(waiting, IncidentState.ESCALATED), [note(at=request.expires_at)])
    assert await state_of(store, request) is ApprovalState.EXPIRED
    with pytest.raises(Conflict, match="expired"):
        await store.approvals.answer(request.id, approve=True, by=Person(name="ann"), comment="", at=NOW)


async def test_leaving_the_wait_keeps_what_was_denied_or_used(store: Store) -> None:
    """The record of what people decided does not change."""
    claim, waiting, denied = await asked(store)
    await answered(store, denied, approve=False)
    await store.incidents.save(claim, replace(waiting, state=IncidentState.OPEN), [note()])
    assert await state_of(store, denied) is ApprovalState.DENIED


async def test_staying_in_the_wait_changes_nothing(store: Store) -> None:
    """A pass that only looks leaves the request open."""
    claim, waiting, request = await asked(store)
    await store.incidents.save(claim, replace(waiting, wake_at=NOW + MINUTE), [note()])
    assert await state_of(store, request) is ApprovalState.PENDING


async def test_an_answer_and_the_end_of_the_wait_at_once_agree(store: Store) -> None:
    """Whichever comes first: an approval is never both given and void without the answerer knowing."""
    for n in range(10):
        claim, waiting, request = await asked(store, await opened(store, key(n)))
        answer, _ = await asyncio.gather(
            answered(store, request),
            store.incidents.save(claim, replace(waiting, state=IncidentState.OPEN), [note()]),
            return_exceptions=True,
        )
        assert await state_of(store, request) is ApprovalState.VOID
        told = [entry for entry in await store.incidents.timeline(waiting.id) if entry.stage is Stage.POLICY]
        assert len(told) == isinstance(answer, Approval)
        assert isinstance(answer, Approval | Conflict)


async def test_requests_of_an_incident_come_oldest_first(store: Store) -> None:
    """A second one after the first was void."""
    claim, waiting, first = await asked(store)
    back = await store.incidents.save(claim, replace(waiting, state=IncidentState.OPEN), [note()])
    second = replace(approval(back), requested_at=NOW + MINUTE, expires_at=NOW + 2 * MINUTE)
    await store.approvals.request(claim, replace(back, state=IncidentState.AWAITING_APPROVAL), second, [])
    record = await store.incidents.get(waiting.id)
    assert record is not None
    assert record.approvals == (replace(first, state=ApprovalState.VOID), second)


async def test_of_fifty_answers_at_once_two_people_approve_where_two_must(store: Store) -> None:
    """Ten people click five times each: two of the answers count, the others learn that it is over."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    request = replace(approval(incident), terms=ApprovalTerms(people=2))
    await store.approvals.request(
        claim, replace(incident, state=IncidentState.AWAITING_APPROVAL), request, [note("asked")]
    )
    said = await asyncio.gather(
        *(answered(store, request, by=f"person {n % 10}") for n in range(50)), return_exceptions=True
    )
    given = [each for each in said if not isinstance(each, BaseException)]
    # As they were stored: the first caller may come second.
    given.sort(key=lambda each: len(each.answers))
    assert [each.state for each in given] == [ApprovalState.PENDING, ApprovalState.APPROVED]
    assert all(isinstance(each, Conflict) for each in said if isinstance(each, BaseException))
    found = await store.approvals.get(request.id)
    assert found is not None
    assert found == given[-1]
    assert len({answer.by for answer in found.answers}) == 2


async def test_no_one_without_a_role_changes_anything(store: Store) -> None:
    """Turned away, with nothing stored and no line in the timeline."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    request = replace(approval(incident), terms=ApprovalTerms(roles=("sre",), not_by=("bob",)))
    await store.approvals.request(
        claim, replace(incident, state=IncidentState.AWAITING_APPROVAL), request, [note("asked")]
    )
    before = await store.incidents.timeline(incident.id)
    for person in (Person(name="ann"), Person(name="bob", roles=frozenset({"sre"}))):
        with pytest.raises(NotEntitled):
            await store.approvals.answer(request.id, approve=True, by=person, comment="", at=NOW)
    assert await store.approvals.get(request.id) == request
    assert await store.incidents.timeline(incident.id) == before


async def test_an_escalation_is_recorded_by_its_holder_alone(store: Store) -> None:
    """With its note; what was answered meanwhile stays as it is."""
    claim, waiting, request = await asked(store)
    told = await store.approvals.record_escalation(claim, waiting, request.id, 1, [note("the lead is asked")])
    assert await store.approvals.get(request.id) == replace(request, escalated=1)
    given = await answered(store, request)
    await store.approvals.record_escalation(claim, told, request.id, 2, [])
    assert await store.approvals.get(request.id) == given
    await claimed(store, told, "another", NOW + LEASE)
    with pytest.raises(ClaimLost):
        await store.approvals.record_escalation(claim, told, request.id, 3, [])

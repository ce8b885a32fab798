"""The contract of intents: decided, begun, tried again, finished, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.agent.freshness.memory import REASONS_KEPT
from app.agent.freshness.reasons import Reason, ReasonKind, Reasons, Withdrawal
from app.agent.freshness.reports import remember_signal
from app.agent.guardrails.limits import Budget
from app.agent.ids import IntentId
from app.agent.models import (
    Alert,
    DecisionKind,
    Disposition,
    DispositionKind,
    Incident,
    IncidentState,
    IntentState,
    KillSwitch,
    OutcomeKind,
    Rehearsal,
    Signal,
    Stage,
    Trigger,
)
from app.agent.ports.store import Store
from app.agent.ports.store.intents import Begun
from app.agent.ports.store.signals import IntakeVerdict, ServiceLevels
from app.errors import ClaimLost, Invalid, NotFound
from tests.contract.store_values import (
    MINUTE,
    NOW,
    SNAPSHOT,
    claimed,
    decided,
    intent,
    key,
    note,
    opened,
    outcome,
    signal,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


async def attempts(store: Store, incident: Incident) -> list[int]:
    """How often each intent was tried."""
    record = await store.incidents.get(incident.id)
    assert record is not None
    return [each.attempts for each in record.intents]


async def test_a_decided_intent_is_stored_with_its_incident_and_notes(store: Store) -> None:
    """One transaction: incident, intent and notes together, and the version grows."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = replace(intent(incident), rehearsal=Rehearsal(accepted=True, message="configured (dry run)"))
    after = await store.intents.add(
        claim, replace(incident, state=IncidentState.EXECUTING), act, [note("allowed")]
    )
    assert after.version == incident.version + 1
    record = await store.incidents.get(incident.id)
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
    record = await store.incidents.get(incident.id)
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
            await store.intents.add(claim, incident, wrong, [note()])
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == incident
    assert record.intents == (act,)


async def test_beginning_is_durable_and_recorded_in_the_timeline(store: Store) -> None:
    """DECIDED becomes EXECUTING with snapshot and time, and the version stays."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    incident = await decided(store, claim, [act])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW + MINUTE)
    ).begun is Begun.YES
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.incident == incident
    assert record.intents == (
        replace(act, state=IntentState.EXECUTING, snapshot=SNAPSHOT, started_at=NOW + MINUTE, attempts=1),
    )
    assert record.timeline[-1].stage is Stage.EXECUTE
    assert record.timeline[-1].message == "Starting: rollback on Deployment payments/payments-api."
    assert record.timeline[-1].data["intent_id"] == act.id


async def test_an_intent_begins_once(store: Store) -> None:
    """Promise 2: the second begin changes nothing and leaves no trace, also after the end."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    answers = await asyncio.gather(
        *(store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=9), NOW) for _ in range(8))
    )
    assert sorted(a.begun for a in answers) == [Begun.NOT_DECIDED] * 7 + [Begun.YES]
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [])
    length = len(await store.incidents.timeline(incident.id))
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=9), NOW)
    ).begun is Begun.NOT_DECIDED
    assert len(await store.incidents.timeline(incident.id)) == length


async def test_the_budget_holds_under_concurrency(store: Store) -> None:
    """Promise 4: of ten decided intents at once, as many begin as the budget allows."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    acts = [intent(incident, n) for n in range(10)]
    await decided(store, claim, acts)
    answers = await asyncio.gather(
        *(store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=3), NOW) for act in acts)
    )
    assert sorted(a.begun for a in answers) == [Begun.BUDGET_SPENT] * 7 + [Begun.YES] * 3
    record = await store.incidents.get(incident.id)
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
    assert (
        await store.intents.begin(claim, acts[0].id, SNAPSHOT, Budget(per_incident=2), NOW)
    ).begun is Begun.YES
    await store.intents.finish(claim, acts[0].id, outcome(OutcomeKind.FAILED), None, [])
    assert (
        await store.intents.begin(claim, acts[1].id, SNAPSHOT, Budget(per_incident=2), NOW)
    ).begun is Begun.YES
    assert (
        await store.intents.begin(claim, acts[2].id, SNAPSHOT, Budget(per_incident=2), NOW)
    ).begun is Begun.BUDGET_SPENT


async def test_an_undo_needs_no_budget_and_uses_none(store: Store) -> None:
    """With the budget spent an undo still begins, and it does not count."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    acts = [intent(incident, 0), intent(incident, 2)]
    undo = intent(incident, 1, undoes=acts[0].id)
    await decided(store, claim, [acts[0], undo, acts[1]])
    assert (
        await store.intents.begin(claim, acts[0].id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.YES
    assert (
        await store.intents.begin(claim, undo.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.YES
    assert (await store.incidents.timeline(incident.id))[-1].stage is Stage.UNDO
    assert (
        await store.intents.begin(claim, acts[1].id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.BUDGET_SPENT
    assert (
        await store.intents.begin(claim, acts[1].id, SNAPSHOT, Budget(per_incident=2), NOW)
    ).begun is Begun.YES


async def test_without_budget_nothing_begins(store: Store) -> None:
    """A budget of zero is a valid setting."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=0), NOW)
    ).begun is Begun.BUDGET_SPENT


async def test_an_action_without_object_begins_without_snapshot(store: Store) -> None:
    """A notification changes nothing in a cluster."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    act = replace(act, action=replace(act.action, target=None))
    await decided(store, claim, [act])
    assert (await store.intents.begin(claim, act.id, None, Budget(per_incident=1), NOW)).begun is Begun.YES
    assert (await store.incidents.timeline(incident.id))[-1].message == "Starting: rollback."


@pytest.mark.parametrize("kind", [DecisionKind.DENY, DecisionKind.NEEDS_APPROVAL])
async def test_what_was_not_allowed_never_begins(store: Store, kind: DecisionKind) -> None:
    """Promise 1 at the last door: without a recorded allow there is no effect."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident, kind=kind)
    await decided(store, claim, [act])
    with pytest.raises(Invalid):
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=9), NOW)


async def test_a_dry_run_intent_never_begins(store: Store) -> None:
    """Promise 5 at the last door."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident, dry_run=True)
    await decided(store, claim, [act])
    with pytest.raises(Invalid):
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=9), NOW)


async def test_finishing_stores_the_outcome_once(store: Store) -> None:
    """The second finish is `ClaimLost`, and the first outcome stays."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    await store.intents.finish(claim, act.id, outcome(), "uid/8", [note("done")])
    with pytest.raises(ClaimLost):
        await store.intents.finish(claim, act.id, outcome(OutcomeKind.FAILED), None, [note("failed")])
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert record.intents == (
        replace(
            act,
            state=IntentState.FINISHED,
            snapshot=SNAPSHOT,
            started_at=NOW,
            attempts=1,
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
    await store.intents.finish(claim, act.id, outcome(OutcomeKind.REFUSED), None, [])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.NOT_DECIDED


async def test_an_unknown_intent_is_not_found(store: Store) -> None:
    """So is another incident's."""
    incident, other = await opened(store), await opened(store, key(1))
    claim, others_claim = await claimed(store, incident), await claimed(store, other)
    act = intent(other)
    await decided(store, others_claim, [act])
    with pytest.raises(NotFound):
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    with pytest.raises(NotFound):
        await store.intents.finish(claim, IntentId("int_none"), outcome(), None, [])


# ------------------------------------------------------------ another attempt


async def test_an_attempt_counts_and_is_recorded(store: Store) -> None:
    """Beginning is the first attempt; each retry counts one more before it is made, up to the limit."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    assert (
        await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    ).begun is Begun.YES
    assert await store.intents.retry(claim, act.id, 3, NOW) is Begun.YES
    assert await store.intents.retry(claim, act.id, 3, NOW) is Begun.YES
    told = await store.incidents.timeline(incident.id)
    assert await store.intents.retry(claim, act.id, 3, NOW) is Begun.BUDGET_SPENT
    assert await store.incidents.timeline(incident.id) == told
    assert await attempts(store, incident) == [3]
    assert [entry.stage for entry in told[-3:]] == [Stage.EXECUTE] * 3
    assert len({entry.message for entry in told[-2:]}) == 2


async def test_concurrent_retries_stay_within_the_limit(store: Store) -> None:
    """Counting and comparing are one step."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    answers = await asyncio.gather(*(store.intents.retry(claim, act.id, 4, NOW) for _ in range(10)))
    assert sorted(answers) == [Begun.BUDGET_SPENT] * 7 + [Begun.YES] * 3


async def test_only_what_is_under_way_is_tried_again(store: Store) -> None:
    """Neither what never began, nor what has ended, nor under a lost claim."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    await decided(store, claim, [act])
    assert await store.intents.retry(claim, act.id, 3, NOW) is Begun.NOT_DECIDED
    await store.intents.begin(claim, act.id, SNAPSHOT, Budget(per_incident=1), NOW)
    with pytest.raises(NotFound):
        await store.intents.retry(claim, IntentId("int_none"), 3, NOW)
    await store.intents.finish(claim, act.id, outcome(), None, [])
    assert await store.intents.retry(claim, act.id, 3, NOW) is Begun.NOT_DECIDED
    await claimed(store, incident, "peer", NOW + MINUTE)
    with pytest.raises(ClaimLost):
        await store.intents.retry(claim, act.id, 3, NOW)
    assert await attempts(store, incident) == [1]


class Guard:
    """Reasons that stand until something was reported of the service."""

    def refusal(self, reported: tuple[Reason, ...] | None = None) -> str | None:
        """Says so whenever the service has a withdrawn reason on record."""
        over = [one.withdrawn.said for one in reported or () if one.withdrawn is not None]
        return "; ".join(over) or None


async def _reported_over(store: Store, incident: Incident) -> None:
    """A signal of the incident's service takes a reason back."""
    over = Withdrawal(at=NOW, by="http", said="the alert HighErrorRate was reported as resolved")
    reason = Reason(
        trigger=Trigger.HIGH_ERROR_RATE,
        kind=ReasonKind.ALERT,
        subject="alert f1",
        source="http",
        said="the alert HighErrorRate",
        last_true_at=NOW,
        withdrawn=over,
    )
    await _recorded(store, incident, (reason,))


async def _recorded(store: Store, incident: Incident, reasons: tuple[Reason, ...]) -> None:
    """A signal of the incident's service leaves these reasons on record."""

    def decide(
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        return IntakeVerdict(
            disposition=Disposition(kind=DispositionKind.IGNORED, reason="resolved"),
            levels=ServiceLevels(key=signal.key, reasons=reasons),
        )

    await store.signals.accept([replace(signal(), key=incident.key)], decide, dry_run=False)


async def test_nothing_begins_on_reasons_that_were_withdrawn_meanwhile(store: Store) -> None:
    """Promise 13: the transaction asks with what is on record by then; nothing changes, no entry is added."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    first, second = intent(incident, 0), intent(incident, 1)
    await decided(store, claim, [first, second])
    budget = Budget(per_incident=9)
    assert (await store.intents.begin(claim, first.id, SNAPSHOT, budget, NOW, Guard())).begun is Begun.YES
    await _reported_over(store, incident)
    length = len(await store.incidents.timeline(incident.id))
    refused = await store.intents.begin(claim, second.id, SNAPSHOT, budget, NOW, Guard())
    assert refused.begun is Begun.NO_REASON
    assert refused.reasons == ("the alert HighErrorRate was reported as resolved",)
    assert await store.intents.retry(claim, first.id, 9, NOW, Guard()) is Begun.NO_REASON
    assert await attempts(store, incident) == [1, 0]
    assert len(await store.incidents.timeline(incident.id)) == length


async def test_nothing_begins_on_reasons_that_left_the_record_meanwhile(store: Store) -> None:
    """Promise 13: of so many alerts that resolved only traces are kept, and none of them stands."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    first, second = intent(incident, 0), intent(incident, 1)
    await decided(store, claim, [first, second])
    known: tuple[Reason, ...] = ()
    firing = [
        replace(
            signal(),
            key=incident.key,
            source="http",
            received_at=NOW,
            payload=Alert(
                name="HighErrorRate",
                firing=True,
                fingerprint=f"f{number}",
                starts_at=NOW,
                trigger=Trigger.HIGH_ERROR_RATE,
            ),
        )
        for number in range(REASONS_KEPT + 8)
    ]
    for one in firing:
        known = remember_signal(known, one)
    await _recorded(store, incident, known)
    looked = Reasons(found=known, max_age=MINUTE, clock=lambda: NOW)
    budget = Budget(per_incident=9)
    assert (await store.intents.begin(claim, first.id, SNAPSHOT, budget, NOW, looked)).begun is Begun.YES
    for one in firing:
        assert isinstance(one.payload, Alert)
        known = remember_signal(known, replace(one, payload=replace(one.payload, firing=False)))
    await _recorded(store, incident, known)
    refused = await store.intents.begin(claim, second.id, SNAPSHOT, budget, NOW, looked)
    assert refused.begun is Begun.NO_REASON
    assert await store.intents.retry(claim, first.id, 9, NOW, looked) is Begun.NO_REASON


async def test_an_undo_needs_no_reason(store: Store) -> None:
    """An undo of the agent's own change is never refused for want of a reason."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    act = intent(incident)
    undo = replace(intent(incident, 1), undoes=act.id)
    await decided(store, claim, [act, undo])
    await _reported_over(store, incident)
    begun = await store.intents.begin(claim, undo.id, SNAPSHOT, Budget(per_incident=1), NOW, Guard())
    assert begun.begun is Begun.YES
    assert await store.intents.retry(claim, undo.id, 9, NOW, Guard()) is Begun.YES


async def test_the_kill_switch_stops_an_undo_that_a_person_asked_for(store: Store) -> None:
    """Not one that the agent decided itself (promise 11)."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    done = intent(incident)
    own = intent(incident, 1, undoes=done.id)
    asked = replace(intent(incident, 2, undoes=done.id), requested_by="ann")
    await decided(store, claim, [done, own, asked])
    engaged = KillSwitch(engaged=True, by="ann", reason="migration", at=NOW)
    await store.guardrails.set_kill_switch(engaged)
    budget = Budget(per_incident=0)
    assert (await store.intents.begin(claim, asked.id, SNAPSHOT, budget, NOW)).begun is Begun.BRAKED
    assert (await store.intents.begin(claim, own.id, SNAPSHOT, budget, NOW)).begun is Begun.YES
    await store.guardrails.set_kill_switch(replace(engaged, engaged=False))
    assert (await store.intents.begin(claim, asked.id, SNAPSHOT, budget, NOW)).begun is Begun.YES
    record = await store.incidents.get(incident.id)
    assert record is not None
    assert [one.requested_by for one in record.intents] == [None, None, "ann"]

"""A person asks the agent to undo its last change: decided and executed like every other write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.agent.identity.audit_log import HumanDecisionKind
from app.agent.identity.people import Person
from app.agent.models import (
    ActionName,
    DecisionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
    Stage,
)
from app.agent.ports.store.claims import Claim
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.stages.order import NextStage, next_stage
from app.agent.timeline import verify_chain
from app.errors import Conflict, NotEntitled
from tests.stories import (
    ACTING,
    NAMESPACE,
    SERVICE,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)


async def ask(
    stage: Story, record: IncidentRecord, act: ResponderAct = ResponderAct.UNDO, *, by: str = "ann"
) -> Incident:
    request = ResponderRequest(act=act, by=Person(name=by), at=stage.clock.now(), text="needed after all")
    return await stage.agent.store.responders.respond(record.incident.id, request)


async def rolled_back(stage: Story) -> IncidentRecord:
    """A bad release was rolled back, and the service recovered."""
    stage.deploy(replicas=4)
    await stage.live(180)
    stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
    record = await stage.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED
    assert stage.image() == "shop:1"
    return record


async def answered(stage: Story, record: IncidentRecord, limit: float = 900) -> IncidentRecord:
    """Live until the request has its end."""

    def over(one: IncidentRecord) -> bool:
        return one.incident.undo is not None and not one.incident.undo.pending

    found = await stage.live_until(over, limit)
    assert found.incident.id == record.incident.id
    assert verify_chain(found.incident.id, found.timeline)
    return found


async def test_a_person_has_the_last_change_undone(tmp_path: Path) -> None:
    """Once: decided by policy, rehearsed, verified, on record; then the incident is a person's."""
    async with story(tmp_path, **ACTING) as stage:
        before = await rolled_back(stage)
        reopened = await ask(stage, before)
        assert (reopened.state, reopened.over_at) == (IncidentState.OPEN, None)
        after = await answered(stage, before)
        assert stage.image() == "shop:2-errors", messages(after.timeline[-6:])
        assert after.incident.state is IncidentState.ESCALATED
        assert after.incident.plan == before.incident.plan
        undo = after.intents[-1]
        assert (undo.undoes, undo.requested_by) == (before.intents[-1].id, "ann")
        assert undo.decision.kind is DecisionKind.ALLOW
        assert undo.decision.rules[0] == "guardrails"
        assert undo.rehearsal is not None
        assert undo.outcome is not None
        assert undo.outcome.kind is OutcomeKind.DONE
        told = messages(after.timeline)
        assert "undo: ann requested to undo rollback of Deployment prod/shop: needed after all." in told
        assert "Undo verified" in told
        assert "Undone at the request of ann: rollback of Deployment prod/shop." in after.incident.summary
        (decision,) = await stage.agent.store.audit_log.entries(after=-1, limit=10)
        assert decision.kind is HumanDecisionKind.UNDO_REQUESTED
        again = await ask(stage, before)
        assert again == after.incident, "the same request again changes nothing"
        with pytest.raises(Conflict, match="was undone already"):
            await ask(stage, before, by="ben")


ALWAYS = [
    {"name": "peak season", "starts_at": "2020-01-01T00:00:00Z", "ends_at": "2120-01-01T00:00:00Z"},
]
REFUSALS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"allow_high_risk_actions": False}, "blocked unless ALLOW_HIGH_RISK_ACTIONS=true"),
    ({"enabled_actions": "notify,restart"}, "rollback is not among ENABLED_ACTIONS"),
    ({"max_actions_per_service": 1}, "MAX_ACTIONS_PER_SERVICE=1"),
    ({"dry_run": True}, "the agent has no write access now"),
)


async def test_policy_and_guardrails_apply_to_a_requested_undo(tmp_path: Path) -> None:
    """Nothing is written, and the incident is as it was, with each refusal on record; then it is done."""
    async with story(tmp_path, **ACTING) as stage:
        before = await rolled_back(stage)

        async def refused(why: str) -> None:
            await ask(stage, before)
            after = await answered(stage, before)
            assert stage.image() == "shop:1"
            kept, known = after.incident, before.incident
            assert (kept.state, kept.closed_at, kept.plan) == (known.state, known.closed_at, known.plan)
            assert (kept.verdict, kept.lesson, kept.summary) == (known.verdict, known.lesson, known.summary)
            assert kept.undo is not None
            assert kept.undo.outcome is OutcomeKind.REFUSED
            assert why in kept.undo.message
            assert after.timeline[-1].message == kept.undo.message

        for settings, why in REFUSALS:
            await stage.restart(**settings)
            await refused(why)
        await stage.restart()
        await stage.brake(engaged=True)
        await refused("the kill switch was engaged by ann")
        await stage.brake(engaged=False)
        await ask(stage, before)
        await stage.clock.advance(3600)  # no agent ran
        after = await answered(stage, before)
        assert after.incident.undo is not None
        assert "the request is 1 h old: request it again" in after.incident.undo.message
        stage.world.release(NAMESPACE, SERVICE, "shop:3")
        await ask(stage, before)
        after = await answered(stage, before)
        assert after.incident.undo is not None
        assert "was changed since by" in after.incident.undo.message
        assert stage.image() == "shop:3"
        assert not [i for i in after.intents if i.undoes is not None and i.started_at is not None]


async def test_another_person_approves_a_requested_undo(tmp_path: Path) -> None:
    """Where policy requires an approval, the undo waits for one, and the requester cannot give it."""
    async with story(tmp_path, **ACTING) as stage:
        before = await rolled_back(stage)
        await stage.restart(approval_for_risks="high")
        await ask(stage, before)
        approval = await stage.live_until_asked()
        assert approval.action is ActionName.RESTORE
        with pytest.raises(NotEntitled):
            await stage.say(approval, yes=True, by="Ann")
        await stage.say(approval, yes=True, by="ben")
        after = await answered(stage, before)
        assert stage.image() == "shop:2-errors"
        assert after.intents[-1].approval == approval.id
        assert after.incident.state is IncidentState.ESCALATED


async def test_who_has_taken_over_keeps_the_incident(tmp_path: Path) -> None:
    """The agent undoes its change and nothing else; a crash in between leads to one write."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(replicas=4)
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until(lambda one: one.incident.state is IncidentState.VERIFYING)
        with pytest.raises(Conflict, match="take it over first"):
            await ask(stage, record)
        await ask(stage, record, ResponderAct.TAKE_OVER)
        await ask(stage, record, by="ben")
        with pytest.raises(Conflict, match="ben requested the undo already"):
            await ask(stage, record, by="cem")
        loop, reached = stage.agent.loop, set[NextStage]()
        claim = await stage.agent.store.claims.take(
            record.incident.id, loop.owner, loop.lease, stage.clock.now()
        )
        assert claim is not None, "the person who took over does not hold it while the agent undoes"
        while NextStage.RECONCILE not in reached:
            found = await stage.load(record.incident.id)
            reached.add(next_stage(found))
            if NextStage.EXECUTE in reached and NextStage.RECONCILE not in reached:
                await begin_and_crash(stage, found, claim)
            else:
                await loop._step(next_stage(found), found, claim, stage.clock.now())
        await stage.restart()
        after = await answered(stage, record)
        assert stage.image() == "shop:2-errors"
        assert (after.incident.state, after.incident.taken_over is not None) == (IncidentState.OPEN, True)
        assert len([i for i in after.intents if i.undoes is not None]) == 1
        assert after.timeline[-1].stage is Stage.UNDO, messages(after.timeline[-3:])
        await stage.live(300)
        assert (await stage.load(record.incident.id)).intents == after.intents, "the agent has stopped"
        assert (
            await stage.agent.store.claims.take(record.incident.id, "w", loop.lease, stage.clock.now())
            is None
        )
        await ask(stage, record, ResponderAct.HAND_BACK)
        healed = await stage.live_until_ended()
        assert healed.incident.id == record.incident.id


async def test_a_refused_undo_leaves_the_incident_to_its_person(tmp_path: Path) -> None:
    """The pass that refuses it ends there: a verification that a person interrupted does not go on."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(replicas=4)
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until(lambda one: one.incident.state is IncidentState.VERIFYING)
        await ask(stage, record, ResponderAct.TAKE_OVER)
        await stage.brake(engaged=True)
        before = await stage.load(record.incident.id)
        await ask(stage, record)
        after = await answered(stage, record)
        assert after.timeline[-1].stage is Stage.UNDO, messages(after.timeline[-3:])
        assert after.incident.state is IncidentState.VERIFYING
        assert after.incident.verification == before.incident.verification


@pytest.mark.parametrize("begun", [False, True])
async def test_a_request_that_a_take_over_ends_leaves_no_plan(tmp_path: Path, begun: bool) -> None:
    """After the hand-back the agent verifies what is in place, and does not repeat an action of before."""
    async with story(tmp_path, **ACTING) as stage:
        before = await rolled_back(stage)
        await ask(stage, before)
        loop, now = stage.agent.loop, stage.clock.now()
        claim = await stage.agent.store.claims.take(before.incident.id, loop.owner, loop.lease, now)
        assert claim is not None
        if begun:
            await loop._step(NextStage.DECIDE_UNDO, await stage.load(before.incident.id), claim, now)
            await begin_and_crash(stage, await stage.load(before.incident.id), claim)
        await ask(stage, before, ResponderAct.TAKE_OVER, by="ben")
        await ask(stage, before, ResponderAct.HAND_BACK, by="ben")
        record = await stage.load(before.incident.id)
        assert (record.incident.plan, record.incident.verdict) == (None, None)
        assert next_stage(record) is (NextStage.RECONCILE if begun else NextStage.BEGIN_VERIFICATION)
        after = await stage.live_until(lambda one: one.incident.state.closed or one.incident.plan is not None)
        undone = [i for i in after.intents if i.undoes is not None and i.started_at is not None]
        assert len(undone) == begun, messages(after.timeline[-9:])
        assert after.incident.next_action >= 0
        assert (after.incident.state is IncidentState.RECOVERED) is not begun


async def test_who_handled_an_ended_incident_does_not_hold_it_again(tmp_path: Path) -> None:
    """Ann took it over and resolved it; after the undo that Ben requests it is escalated, not left to her."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(replicas=4)
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until(lambda one: one.incident.state is IncidentState.VERIFYING)
        await ask(stage, record, ResponderAct.TAKE_OVER)
        await ask(stage, record, ResponderAct.RESOLVE)
        await ask(stage, record, by="ben")
        after = await answered(stage, record)
        assert (after.incident.state, after.incident.held_by) == (IncidentState.ESCALATED, None)


async def test_an_undo_that_the_agent_decided_is_not_requested_beside_it(tmp_path: Path) -> None:
    """A person who takes over right then hands back instead: the agent's own undo is kept."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until(lambda one: one.incident.state is IncidentState.VERIFYING)
        loop = stage.agent.loop
        claim = await stage.agent.store.claims.take(record.incident.id, "w", loop.lease, stage.clock.now())
        assert claim is not None
        incident = record.incident
        assert await loop.stages.executor.decide_undo(record, record.intents[-1], claim, incident, [])
        await ask(stage, record, ResponderAct.TAKE_OVER)
        with pytest.raises(
            Conflict, match="the agent has decided on undo of rollback of Deployment prod/shop"
        ):
            await ask(stage, record)


async def test_what_was_undone_in_part_is_left_to_a_person(tmp_path: Path) -> None:
    """A later part is refused: the incident does not end as recovered by what is undone."""
    async with story(tmp_path, **ACTING) as stage:
        before = await rolled_back(stage)
        await ask(stage, before)
        loop, store, now = stage.agent.loop, stage.agent.store, stage.clock.now()
        claim = await store.claims.take(before.incident.id, loop.owner, loop.lease, now)
        assert claim is not None
        for step in (NextStage.DECIDE_UNDO, NextStage.EXECUTE):
            await loop._step(step, await stage.load(before.incident.id), claim, now)
        record = await stage.load(before.incident.id)
        await loop.stages.undo._refuse(record, claim, OutcomeKind.REFUSED, "the kill switch is engaged", now)
        after = (await stage.load(before.incident.id)).incident
        assert (after.state, after.verdict) == (IncidentState.ESCALATED, None)
        assert after.summary.startswith("Undone in part: the kill switch is engaged.")


async def begin_and_crash(stage: Story, record: IncidentRecord, claim: Claim) -> None:
    """The write is sent, and its answer is lost with the process."""
    intent, executor = record.intents[-1], stage.agent.loop.stages.executor
    assert executor.reader is not None
    assert executor.writer is not None
    snapshot = await executor.reader.snapshot(intent.action)
    target = await executor.reader.target(intent.action)
    assert await executor._begun(claim, intent, snapshot)
    undone = next(i for i in record.intents if i.id == intent.undoes)
    await executor.writer.apply(intent.action, intent.id, target, undone.snapshot)


async def test_what_cannot_be_undone_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing was changed; and while another incident of the service is open."""
    async with story(tmp_path, **{**ACTING, "max_actions_per_incident": 1}) as stage:
        before = await rolled_back(stage)
        stage.world.release(NAMESPACE, SERVICE, "shop:3-errors")
        other = await stage.live_until(lambda one: one.incident.id != before.incident.id)
        with pytest.raises(Conflict, match=f"incident {other.incident.id} of shop is open"):
            await ask(stage, before)
        await ask(stage, other, ResponderAct.TAKE_OVER)
        with pytest.raises(Conflict, match="the agent changed nothing in this incident"):
            await ask(stage, other)

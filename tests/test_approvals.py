"""Approvals requested, answered and unanswered: scenarios of the real agent on the simulated cluster.

An approval covers one action of one plan on one state of its object (promise 1);
it never covers anything else, whatever happens while it is pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.identity.people import ApprovalTerms, CredentialId, Sender, SenderKind
from app.agent.ids import IntentId, JsonObject
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    ActionName,
    ApprovalState,
    DecisionKind,
    Deploy,
    DeployStatus,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
    Snapshot,
)
from app.agent.notifications.channel import Bulletin
from app.agent.ports.cluster import ClusterWriter
from app.agent.ports.policy import PolicyAnswer
from app.agent.timeline import verify_chain
from app.agent.workload import TargetState
from app.bootstrap import Adapters
from app.connectors.chatops import question
from app.errors import Conflict, NotEntitled
from app.web.story import rehearsed as story_rehearsed
from tests.stories import (
    ACTING,
    KEY,
    NAMESPACE,
    SERVICE,
    Listener,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)

ASKING = {**ACTING, "approval_for_risks": frozenset({"high"})}
HOURS = 3600.0
DAYS = 24 * HOURS


@dataclass
class Counting:
    """A writer that counts what it is asked to write."""

    inner: ClusterWriter
    applied: list[ActionName] = field(default_factory=list)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        self.applied.append(action.name)
        return await self.inner.apply(action, intent_id, target, snapshot)


@dataclass
class Moody:
    """A policy engine whose answer changes with the times."""

    kind: DecisionKind = DecisionKind.NEEDS_APPROVAL
    terms: ApprovalTerms | None = None

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        terms = self.terms if self.kind is DecisionKind.NEEDS_APPROVAL else None
        return PolicyAnswer(kind=self.kind, reasons=(f"the engine says {self.kind}",), terms=terms)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Story]:
    """An agent that may act once a person says so, beside a service that has served well for a while."""
    async with story(tmp_path, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        yield stage


async def crash(stage: Story) -> None:
    """A release that crashes; the agent wants to roll it back."""
    stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")


def states(record: IncidentRecord) -> list[ApprovalState]:
    return [approval.state for approval in record.approvals]


# ------------------------------------------------------------ the answers


async def test_nothing_is_done_before_a_person_says_yes_and_then_it_is(asking: Story) -> None:
    """Asked, waited, approved, rolled back, verified; the yes is used up by exactly one intent."""
    await crash(asking)
    approval = await asking.live_until_asked()
    before = asking.versions()
    await asking.live(600)
    assert asking.versions() == before
    await asking.say(approval, yes=True, comment="go ahead")
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert asking.image() == "shop:1"
    (intent,) = record.intents
    assert intent.approval == approval.id
    assert intent.decision.kind is DecisionKind.ALLOW
    assert intent.decision.reasons[-1] == "approved by ann: go ahead"
    assert states(record) == [ApprovalState.USED]
    assert verify_chain(record.incident.id, record.timeline)


async def test_a_no_ends_with_a_person_and_says_whose_it_was(asking: Story) -> None:
    """Denied: nothing is written, the summary names who said no and why."""
    await crash(asking)
    approval = await asking.live_until_asked()
    await asking.say(approval, yes=False, by="bob", comment="the fix is on its way")
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    summary = record.incident.summary
    assert "not executed (denied): denied by bob: the fix is on its way; " in summary, summary
    assert "Not executed: denied by bob: the fix is on its way." in messages(record.timeline)
    assert states(record) == [ApprovalState.DENIED]
    assert [i.outcome.kind for i in record.intents if i.outcome] == [OutcomeKind.REFUSED]
    assert asking.image() == "shop:2-crash"
    assert asking.marker() is None


async def test_no_one_answers(tmp_path: Path) -> None:
    """It waits to the last second, then expires and notifies a person; a late answer is refused."""
    async with story(tmp_path, approval_timeout_seconds=900, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.live((approval.expires_at - stage.clock.now()).total_seconds() - 5)
        waiting = await stage.newest()
        assert waiting is not None
        assert waiting.incident.state is IncidentState.AWAITING_APPROVAL
        record = await stage.live_until_ended(limit_seconds=10)
        assert record.incident.state is IncidentState.ESCALATED
        assert "no answer before" in record.incident.summary
        assert states(record) == [ApprovalState.EXPIRED]
        assert stage.marker() is None
        with pytest.raises(Conflict, match="expired"):
            await stage.say(approval, yes=True)
        await stage.live(60)
        assert stage.image() == "shop:2-crash"


async def test_people_learn_what_is_asked_of_them(tmp_path: Path) -> None:
    """One message for each request, with the id to answer and the reasons."""
    people = Listener()
    async with story(tmp_path, connected=lambda world: replace(world, notifier=people), **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.live(120)
        assert len(people.told) == 1
        assert approval.id in people.told[0]
        assert "APPROVAL_FOR_RISKS" in people.told[0]
        record = await stage.load(approval.incident_id)
        action, until, because, rehearsal = question(Bulletin(record=record))
        assert action.startswith("Awaiting approval: rollback Deployment prod/shop")
        assert f"{approval.expires_at:%Y-%m-%d %H:%M:%S} UTC" in until
        assert "APPROVAL_FOR_RISKS" in because
        assert rehearsal.startswith("Dry run (dryRun=All): API server accepted it")
        changes = "spec.template.image shop:2-crash -> shop:1"
        assert changes in rehearsal
        assert changes in messages(record.timeline)
        said = story_rehearsed(record, approval)
        assert said is not None
        assert changes in said.message


async def test_a_dry_run_asks_no_one(tmp_path: Path) -> None:
    """It proposes, and says that a person would be asked."""
    async with story(tmp_path, **{**ASKING, "dry_run": True}) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.PROPOSED
        assert [i.decision.kind for i in record.intents] == [DecisionKind.NEEDS_APPROVAL]
        assert record.approvals == ()


async def test_what_is_forbidden_is_not_asked_for(tmp_path: Path) -> None:
    """Promise 6: no approval stands in for ALLOW_HIGH_RISK_ACTIONS."""
    async with story(tmp_path, **{**ASKING, "allow_high_risk_actions": False}) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        record = await stage.live_until_ended()
        assert record.approvals == ()
        assert [i.decision.kind for i in record.intents] == [DecisionKind.DENY]


# ------------------------------------------------------------ once


async def test_a_yes_clicked_many_times_has_one_effect(tmp_path: Path) -> None:
    """Ten people at the same moment, and the first once more after it was used: one intent, one write."""
    writers: list[Counting] = []

    def counted(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(Counting(world.writer))
        return replace(world, writer=writers[0])

    async with story(tmp_path, connected=counted, on_file=True, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        answers = await asyncio.gather(
            *(stage.say(approval, yes=True, by=f"person {n}") for n in range(10)), return_exceptions=True
        )
        first = [a.answered_by for a in answers if not isinstance(a, BaseException)]
        assert len(first) == 1
        assert all(str(first[0]) in str(a) for a in answers if isinstance(a, BaseException))
        record = await stage.live_until_ended()
        again = await stage.say(approval, yes=True, by=str(first[0]))
        assert again.state is ApprovalState.USED
        await stage.live(120)
        assert writers[0].applied == [ActionName.ROLLBACK]
        assert len(record.intents) == 1
        assert record.incident.state is IncidentState.RECOVERED


# ------------------------------------------------------------ while it is waited for


async def test_a_yes_for_what_was_there_does_not_cover_what_came_since(asking: Story) -> None:
    """Promise 1: release 3 arrives while 2 awaits approval; the yes is void, 3 gets a request of its own."""
    await crash(asking)
    first = await asking.live_until_asked()
    asking.world.release(NAMESPACE, SERVICE, "shop:3-crash")
    await asking.live(30)
    await asking.say(first, yes=True)
    second = await asking.live_until_asked()
    assert second.id != first.id
    assert second.target_token != first.target_token
    assert asking.image() == "shop:3-crash"
    assert asking.marker() is None
    await asking.say(second, yes=True, by="bob")
    record = await asking.live_until_ended()
    assert states(record) == [ApprovalState.VOID, ApprovalState.USED]
    assert [i.approval for i in record.intents] == [second.id]
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert asking.image() == "shop:1"


async def test_what_healed_by_itself_is_left_alone(asking: Story) -> None:
    """The dependency comes back while people are asked: the yes comes too late to be needed."""
    await innocent_release_beside_a_dying_dependency(asking)
    approval = await asking.live_until_asked()
    asking.world.set_replicas(NAMESPACE, "db", 3)
    await asking.live(120)
    before = asking.versions()
    await asking.say(approval, yes=True)
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)
    assert asking.versions() == before
    assert states(record) == [ApprovalState.VOID]
    assert record.intents == ()


async def test_a_restart_while_people_are_asked_asks_no_one_twice(asking: Story) -> None:
    """The request is a row: the next agent waits for the same answer, and acts on it."""
    await crash(asking)
    approval = await asking.live_until_asked()
    for _ in range(3):
        await asking.restart()
        await asking.live(60)
    waiting = await asking.newest()
    assert waiting is not None
    assert waiting.incident.state is IncidentState.AWAITING_APPROVAL
    assert [a.id for a in waiting.approvals] == [approval.id]
    await asking.say(approval, yes=True)
    await asking.restart()
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED
    assert states(record) == [ApprovalState.USED]
    assert asking.image() == "shop:1"


async def test_people_may_take_days(tmp_path: Path) -> None:
    """Three days later the yes still covers the same action on the same state."""
    async with story(tmp_path, approval_timeout_seconds=7 * DAYS, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        assert approval.expires_at - stage.clock.now() > timedelta(days=6)
        for _ in range(3):
            await stage.clock.advance(DAYS)
            await stage.live(10)
        waiting = await stage.newest()
        assert waiting is not None
        assert waiting.incident.state is IncidentState.AWAITING_APPROVAL
        await stage.say(approval, yes=True)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert [i.approval for i in record.intents] == [approval.id]


async def test_a_yes_does_not_reach_into_a_dry_run(asking: Story) -> None:
    """Promise 5: restarted with DRY_RUN=true the agent writes nothing, whatever was approved before."""
    await crash(asking)
    approval = await asking.live_until_asked()
    await asking.say(approval, yes=True)
    await asking.restart(dry_run=True)
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.PROPOSED, messages(record.timeline)
    assert asking.image() == "shop:2-crash"
    assert asking.marker() is None


# ------------------------------------------------------------ policy has the last word, and so has a no


async def test_policy_that_has_become_stricter_since_wins_over_a_yes(tmp_path: Path) -> None:
    """Approved on Friday afternoon, looked at in the freeze: denied, and the yes is not used."""
    engine = Moody()
    async with story(
        tmp_path, connected=lambda world: replace(world, policy_engine=engine), **ACTING
    ) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.say(approval, yes=True)
        engine.kind = DecisionKind.DENY
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert [i.decision.kind for i in record.intents] == [DecisionKind.DENY]
        assert "the engine says deny" in record.incident.summary
        assert states(record) == [ApprovalState.VOID]
        assert stage.marker() is None


async def test_a_no_stands_although_policy_would_not_ask_any_more(tmp_path: Path) -> None:
    """A person said no: a policy that allows it now changes nothing."""
    engine = Moody()
    async with story(
        tmp_path, connected=lambda world: replace(world, policy_engine=engine), **ACTING
    ) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.say(approval, yes=False, by="bob")
        engine.kind = DecisionKind.ALLOW
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "denied by bob" in record.incident.summary
        assert stage.image() == "shop:2-crash"
        assert stage.marker() is None


async def test_a_yes_does_not_release_the_kill_switch(asking: Story) -> None:
    """Promise 11: engaged while people are asked, it stops what they approve."""
    await crash(asking)
    approval = await asking.live_until_asked()
    await asking.brake(engaged=True, by="carol")
    await asking.say(approval, yes=True)
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert "the kill switch was engaged by carol: database migration" in record.incident.summary
    assert states(record) == [ApprovalState.VOID]
    assert asking.marker() is None


# ------------------------------------------------------------ who must agree


async def test_two_different_people_must_agree(tmp_path: Path) -> None:
    """One yes is recorded and does nothing; the same person's second one neither; another's does."""
    async with story(tmp_path, approval_people=2, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        first = await stage.say(approval, yes=True, by="ann")
        assert (first.state, first.answered_by) == (ApprovalState.PENDING, None)
        again = await stage.say(approval, yes=True, by="ANN")
        assert again == first
        await stage.live(120)
        assert stage.image() == "shop:2-crash"
        await stage.say(approval, yes=True, by="bob")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        told = messages(record.timeline)
        assert "by 2 different people" in told
        assert "rollback approved by ann (1 of 2 people)." in told
        assert record.intents[0].decision.reasons[-1] == "approved by ann and bob"


async def test_one_no_beside_a_yes_is_a_no(tmp_path: Path) -> None:
    """Of two whose agreement is needed one refuses."""
    async with story(tmp_path, approval_people=2, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.say(approval, yes=True, by="ann")
        await stage.say(approval, yes=False, by="bob")
        record = await stage.live_until_ended()
        assert states(record) == [ApprovalState.DENIED]
        assert stage.marker() is None


async def test_without_the_role_no_one_answers_until_it_is_escalated(tmp_path: Path) -> None:
    """After the configured time the next role is notified, once, and may answer; the first one still may."""
    steps = [{"after_seconds": 600, "roles": ["lead"]}, {"after_seconds": 1200, "roles": ["boss"]}]
    async with story(tmp_path, approval_roles="sre", approval_escalation=steps, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        with pytest.raises(NotEntitled, match="needs one of the roles sre; lea has lead"):
            await stage.say(approval, yes=True, by="lea", roles=["lead"])
        with pytest.raises(NotEntitled, match="ann has no role"):
            await stage.say(approval, yes=False, by="ann")
        await stage.live(900)
        record = await stage.load(approval.incident_id)
        assert record.incident.state is IncidentState.AWAITING_APPROVAL
        assert record.approvals[-1].escalated == 1
        told = messages(record.timeline)
        assert told.count("lead may answer too") == 1
        assert "boss" not in told
        await stage.say(approval, yes=True, by="lea", roles=["lead"])
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


async def test_escalation_survives_a_restart_and_ends_with_the_request(tmp_path: Path) -> None:
    """Each step is notified once, by any worker; after the last only the expiry is left."""
    steps = [{"after_seconds": 300, "roles": ["lead"]}, {"after_seconds": 400, "roles": ["boss"]}]
    async with story(tmp_path, approval_escalation=steps, approval_timeout_seconds=900, **ASKING) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        approval = await stage.live_until_asked()
        await stage.live(320)
        await stage.restart()
        await stage.live(200)
        record = await stage.load(approval.incident_id)
        assert record.approvals[-1].escalated == 2
        told = messages(record.timeline)
        assert (told.count("lead are asked"), told.count("boss are asked")) == (1, 1)
        ended = await stage.live_until_ended()
        assert states(ended) == [ApprovalState.EXPIRED]


async def test_who_had_the_agent_act_does_not_approve_it(asking: Story) -> None:
    """The person who ran it by hand may deny what follows; the yes must come from another."""
    await crash(asking)
    await asking.live_until(lambda record: record.incident.state is IncidentState.OPEN)
    await asking.agent.loop.run_once(SERVICE, None, requested_by="ann")
    approval = await asking.live_until_asked()
    assert approval.terms.not_by == ("ann",)
    with pytest.raises(NotEntitled, match="another person must approve it") as refused:
        await asking.say(approval, yes=True, by="Ann")
    assert f"`heal approve {approval.id} --by NAME`" in str(refused.value)
    await asking.say(approval, yes=True, by="bob")
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert "ann requested an immediate pass" in messages(record.timeline)


async def test_others_who_had_it_act_do_not_approve_it_either(asking: Story) -> None:
    """Another person's earlier run does not approve it: a new request excludes both."""
    await crash(asking)
    await asking.live_until(lambda record: record.incident.state is IncidentState.OPEN)
    await asking.agent.loop.run_once(SERVICE, None, requested_by="pipeline")
    first = await asking.live_until_asked()
    await asking.agent.loop.run_once(SERVICE, None, requested_by="ann")
    await asking.say(first, yes=True, by="ann")
    await asking.live_until(lambda record: len(record.approvals) > 1)
    record = await asking.load(first.incident_id)
    assert states(record) == [ApprovalState.VOID, ApprovalState.PENDING]
    assert set(record.approvals[-1].terms.not_by) == {"ann", "pipeline"}
    assert "ann requested an immediate pass" in messages(record.timeline)


async def report(stage: Story, by: str, version: str) -> None:
    """A person with a token reports a failed deploy."""
    now = stage.clock.now()
    signal = new_signal(
        key=KEY,
        source="http",
        observed_at=now,
        received_at=now,
        payload=Deploy(version=version, status=DeployStatus.FAILED),
        stale_after=timedelta(minutes=15),
        sender=Sender(kind=SenderKind.TOKEN, name=by, token_id=CredentialId("tok_" + "a" * 16)),
    )
    await stage.agent.intake.accept([signal])


async def test_who_sent_a_signal_does_not_approve_what_rests_on_it(asking: Story) -> None:
    """A stolen pipeline token is not enough to have something done: another person must say yes."""
    await report(asking, "pipeline", "shop:2-crash")
    await crash(asking)
    approval = await asking.live_until_asked()
    assert approval.terms.not_by == ("pipeline",)
    with pytest.raises(NotEntitled, match="sent a signal of the incident"):
        await asking.say(approval, yes=True, by="Pipeline")
    await asking.say(approval, yes=True, by="bob")
    record = await asking.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)


async def test_a_signal_after_the_question_bars_its_sender_and_voids_no_other_yes(asking: Story) -> None:
    """A person who has reported meanwhile may say no and not yes; another person's yes stands."""
    await crash(asking)
    approval = await asking.live_until_asked()
    await report(asking, "ann", "shop:2-crash")
    with pytest.raises(NotEntitled, match="sent a signal of the incident"):
        await asking.say(approval, yes=True, by="ann")
    await asking.say(approval, yes=True, by="bob")
    record = await asking.live_until_ended()
    assert states(record) == [ApprovalState.USED]


async def test_a_yes_does_not_outlive_a_later_signal_of_the_person_who_gave_it(asking: Story) -> None:
    """Approve first and report then is the same two roles in one hand: people are asked again."""
    await crash(asking)
    first = await asking.live_until_asked()
    await asking.say(first, yes=True, by="ann")
    await report(asking, "ann", "shop:2-crash")
    await asking.live_until(lambda record: len(record.approvals) > 1)
    record = await asking.load(first.incident_id)
    assert states(record) == [ApprovalState.VOID, ApprovalState.PENDING]
    assert record.approvals[-1].terms.not_by == ("ann",)


async def test_a_policy_says_who_must_agree_and_may_ask_for_more_meanwhile(tmp_path: Path) -> None:
    """A yes given on weaker terms than those of now does not do: people are asked again.

    The roles of the policy replace those of the settings up to the write.
    """
    engine = Moody(terms=ApprovalTerms(roles=("sre",)))
    async with story(
        tmp_path,
        connected=lambda world: replace(world, policy_engine=engine),
        approval_roles="lead",
        **ACTING,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        await crash(stage)
        first = await stage.live_until_asked()
        assert first.terms.roles == ("sre",)
        engine.terms = ApprovalTerms(roles=("sre",), people=2)
        await stage.say(first, yes=True, by="ann", roles=["sre"])
        second = await stage.live_until(
            lambda record: len(record.approvals) == 2 and record.approvals[-1].state is ApprovalState.PENDING
        )
        assert states(second) == [ApprovalState.VOID, ApprovalState.PENDING]
        assert "policy now requires approval by other people" in messages(second.timeline)
        assert stage.marker() is None
        for name in ("ann", "bob"):
            await stage.say(second.approvals[-1], yes=True, by=name, roles=["sre"])
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        for name in ("ann", "bob"):
            await stage.say(second.approvals[-1], yes=True, by=name, roles=["sre"])
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)

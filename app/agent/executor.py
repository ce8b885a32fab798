"""Execute: decide, store the intent, act at most once, determine the outcome.

Called by the loop for the stages that touch a target. Keeps promises 1, 2 and 5:
the decision is bound to plan and live state and checked again right before the
write; the intent is durable before its effect; after a crash the target is read to
determine whether the effect occurred.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from app import spans
from app.agent.actions import ACTIONS
from app.agent.actions.restore import restore_of
from app.agent.actions.target_parts import same_ground
from app.agent.approvals.request import ApprovalRequester
from app.agent.draining.execution import DrainExecution
from app.agent.draining.steps import drain_progress
from app.agent.execution.decision import ApprovalMismatch, ApprovalNeeded, DecidedIntent, settle
from app.agent.execution.recheck import target_changed
from app.agent.execution.unanswered import WriteFate, fate_of
from app.agent.execution.undo import ends_outage, not_to_undo, not_undone_note, undo_intent
from app.agent.freshness.reasons import Reason, Reasons
from app.agent.gitops.execution import GitOpsExecution
from app.agent.gitops.steps import application_of
from app.agent.guardrails.cordons import cordons_node
from app.agent.guardrails.drains import drains_node
from app.agent.guardrails.gather import ChangedTarget, Gatherer
from app.agent.ids import IntentId
from app.agent.intents import intent_by_id
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    OutcomeKind,
    Snapshot,
)
from app.agent.policy import Policy
from app.agent.ports.cluster import ClusterReader, ClusterRehearsal, ClusterWriter
from app.agent.ports.gitops import GitOps
from app.agent.ports.people import Notifier
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Begun
from app.agent.reason_check import ReasonCheck
from app.agent.writes.direct import DirectWrite, look_again
from app.agent.writes.endings import Endings
from app.agent.writes.permission import Permission
from app.clock import Clock
from app.errors import ClaimLost, PermanentError, TransientError, UnknownOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Executes the actions of a plan. Without a writer it can only do dry runs."""

    store: Store
    policy: Policy
    clock: Clock
    reader: ClusterReader | None
    rehearsal: ClusterRehearsal | None
    writer: ClusterWriter | None
    notifier: Notifier | None
    asking: ApprovalRequester
    check: ReasonCheck
    gitops: GitOps | None = None
    """The GitOps controller through which workloads that it owns are rolled back."""
    lease: timedelta = timedelta(seconds=30)
    """The lease that is renewed between two attempts of a write."""

    @property
    def gatherer(self) -> Gatherer:
        """Reads the inputs of a decision, through the same ports."""
        limits, reader = self.policy.limits, self.reader
        applications = self.gitops.rehearsal if self.gitops is not None else None
        return Gatherer(
            store=self.store,
            clock=self.clock,
            limits=limits,
            reader=reader,
            rehearsal=self.rehearsal,
            applications=applications,
        )

    @property
    def through_controller(self) -> GitOpsExecution | None:
        """Carries out what goes through an application; None without a controller."""
        if self.gitops is None or self.reader is None:
            return None
        return GitOpsExecution(store=self.store, clock=self.clock, reader=self.reader, gitops=self.gitops)

    @property
    def permission(self) -> Permission:
        """Whether a decided write may still be made."""
        return Permission(
            store=self.store,
            policy=self.policy,
            clock=self.clock,
            check=self.check,
            gathering=lambda: self.gatherer,
            can_write=self.writer is not None,
        )

    @property
    def endings(self) -> Endings:
        """Records the outcomes of intents."""
        return Endings(store=self.store, clock=self.clock)

    @property
    def direct(self) -> DirectWrite:
        """Sends changes to the cluster itself; `PermanentError` without write access."""
        if self.reader is None or self.writer is None:
            raise PermanentError("the cluster is not connected for writing now")
        return DirectWrite(
            store=self.store,
            clock=self.clock,
            reader=self.reader,
            writer=self.writer,
            gathering=lambda: self.gatherer,
            permission=self.permission,
            endings=self.endings,
            lease=self.lease,
        )

    async def decide(
        self, record: IncidentRecord, claim: Claim, stands_on: Sequence[Reason] = ()
    ) -> str | None:
        """Rehearse and decide the next action of the plan; durable when this returns None.

        If policy requires an approval, the executor requests it, or uses the answer. A string means that
        nothing was decided, and gives the reason: the target is not in the planned or approved state.
        `stands_on` holds the current reasons for the action, for the record.
        """
        question = await self.gatherer.question(record)
        if isinstance(question, ChangedTarget):
            return question.reason
        decision = await self.policy.decide(question)
        spans.note(action=question.action.name, decision=decision.kind)
        new_id, now = _new_intent_id(), self.clock.now()
        result = settle(record, question, decision, stands_on=stands_on, intent_id=new_id, now=now)
        match result:
            case ApprovalNeeded():
                await self.asking.ask(question.incident, claim, question.action, decision, question.rehearsal)
            case ApprovalMismatch():
                return result.reason
            case DecidedIntent():
                await self.store.intents.add(claim, result.incident, result.intent, result.notes)
        return None

    async def decide_requested_undo(self, record: IncidentRecord, claim: Claim) -> str | None:
        """Rehearse and decide the next undo that a person requested, like every other write.

        A string means that nothing was decided, and gives the reason. A denial is recorded as a refused
        intent, and ends the request.
        """
        incident = record.incident
        asked, plan = incident.undoing, incident.plan
        if asked is None or plan is None:
            raise PermanentError("no undo was requested")
        action = plan.actions[incident.next_action]
        undone = intent_by_id(record, asked.undoes[incident.next_action])
        look = await self.gatherer.look(action)
        why = not_to_undo(undone, look) or await self.gatherer.needed_by(incident.id, action)
        if why is not None:
            return why
        question = await self.gatherer.undo_question(record, undone, look)
        decision = await self.policy.decide(question)
        spans.note(action=question.action.name, decision=decision.kind)
        new_id, now = _new_intent_id(), self.clock.now()
        result = settle(record, question, decision, stands_on=(), intent_id=new_id, now=now)
        match result:
            case ApprovalNeeded():
                await self.asking.ask(incident, claim, action, decision, question.rehearsal)
            case ApprovalMismatch():
                return result.reason
            case DecidedIntent() if result.intent.state is IntentState.DECIDED:
                undo = replace(result.intent, undoes=undone.id, requested_by=asked.by)
                await self.store.intents.add(claim, result.incident, undo, result.notes)
            case DecidedIntent():
                over = replace(result.incident, next_action=len(plan.actions))
                await self.store.intents.add(claim, over, result.intent, result.notes)
        return None

    async def decide_undo(
        self, record: IncidentRecord, undone: Intent, claim: Claim, incident: Incident, notes: Sequence[Note]
    ) -> bool:
        """Decide to restore what `undone` changed; False if another manager changed it since."""
        now = self.clock.now()
        action = restore_of(undone.action)
        if action is None:
            await self.store.incidents.save(claim, incident, notes)
            return False
        look = await self.gatherer.look(action)
        why, rehearsal = not_to_undo(undone, look) or await self.gatherer.needed_by(incident.id, action), None
        why = why or ends_outage(undone, await self.gatherer.available(incident.key))
        on_cluster = application_of(action) is None
        if why is None and look.target is not None and self.rehearsal is not None and on_cluster:
            rehearsal = await self.rehearsal.rehearse(action, look.target, undone.snapshot)
            if not rehearsal.accepted:
                why = f"the API server would reject it: {rehearsal.message}"
        if why is not None or look.target is None:
            refused = not_undone_note(undone, why, look, await self.gatherer.serving(incident.key), now)
            await self.store.incidents.save(claim, incident, [*notes, refused])
            return False
        intent, note = undo_intent(
            record, undone, action, look.target, rehearsal, intent_id=_new_intent_id(), at=now
        )
        executing = replace(incident, state=IncidentState.EXECUTING)
        await self.store.intents.add(claim, executing, intent, [*notes, note])
        return True

    async def execute(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """Execute a decided intent: check again, store it as begun, act, record the outcome."""
        if not ACTIONS[intent.action.name].kinds:
            await self._notify(record, intent, claim)
            return
        if self.writer is None or self.reader is None:
            await self.endings.finish(
                claim, intent, OutcomeKind.REFUSED, "the agent has no write access now", look_anew=True
            )
            return
        available = await self.gatherer.available(record.incident.key)
        snapshot_of_now = replace(await self.reader.snapshot(intent.action), available=available)
        target = await self.reader.target(intent.action)
        snapshot_of_now = replace(snapshot_of_now, sent_at=target.resource_version)
        moved = target_changed(intent, target, snapshot_of_now) or self.permission.lapsed(record, intent)
        if moved is not None:
            await self.endings.finish(claim, intent, OutcomeKind.REFUSED, moved, look_anew=True)
            return
        reasons = await self.permission.reasons(record, intent)
        if reasons is not None and (refusal := reasons.refusal()) is not None:
            await self.endings.finish(
                claim, intent, OutcomeKind.REFUSED, f"no current reason: {refusal}", look_anew=True
            )
            return
        # After the look at the service, which takes longer; reasons are asked for again as it begins.
        objection = await self.gatherer.objection(record.incident.key, intent)
        objection = objection or self.permission.lapsed(record, intent)
        if objection is not None:
            await self.endings.finish(claim, intent, OutcomeKind.REFUSED, objection)
            return
        if not await self._begun(claim, intent, snapshot_of_now, reasons):
            return
        begun = replace(intent, state=IntentState.EXECUTING, snapshot=snapshot_of_now)
        if cordons_node(intent.action):
            # Counted once more now that no other cordon can begin: two workers may have counted at once.
            full = await self.gatherer.full_now(intent)
            if full is not None:
                await self.endings.stop(claim, begun, full, unheard=False)
                return
        if application_of(intent.action) is not None or drains_node(intent.action):
            return  # taken up at once as an intent that is executing, step by step
        await self.direct.send(record, begun, target, claim, reasons)

    async def reconcile(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """An intent was begun and has no recorded outcome: read the target, then adopt or retry."""
        if not ACTIONS[intent.action.name].kinds:
            await self.endings.finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                "interrupted while the notification was queued: whether it was sent is unknown",
            )
            return
        if self.reader is None:
            await self.endings.finish(
                claim, intent, OutcomeKind.UNKNOWN, "interrupted, and no cluster connected"
            )
            return
        if application_of(intent.action) is not None:
            await self._advance(record, intent, claim)
            return
        if drains_node(intent.action):
            await self._drain(record, intent, claim)
            return
        target = await look_again(self.reader, intent)
        found = fate_of(intent, target, intent.snapshot.sent_at if intent.snapshot is not None else None)
        if found.fate is WriteFate.EXECUTED:
            message = f"interrupted, then found executed: {found.why}"
            await self.endings.finish(claim, intent, OutcomeKind.DONE, message, target)
        elif found.fate is WriteFate.CHANGED:
            await self.endings.finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                f"interrupted, and {found.why} since: whether this action was executed is unknown",
            )
        elif found.fate is WriteFate.UNPROVEN:
            await self.endings.leave_open(claim, intent, found.why)
        elif (forbidden := self.permission.lapsed(record, intent)) is not None:
            await self.endings.leave_open(claim, intent, forbidden)
        elif target is not None:
            await self.direct.try_again(record, intent, target, claim)

    async def _advance(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """The next step of an intent that goes through an application."""
        execution = self.through_controller
        if execution is None or execution.gitops.writer is None or self.writer is None:
            raise PermanentError("the GitOps controller of this action is not connected for writing now")

        async def guard() -> str | None:
            reasons = await self.permission.reasons(record, intent)
            if reasons is not None and (refusal := reasons.refusal()) is not None:
                return f"no current reason: {refusal}"
            stopped = await self.permission.stopped(record, intent)
            if stopped is not None or self.reader is None:
                return stopped
            target = await self.reader.target(intent.action)
            if not same_ground(intent.action, intent.decision.target_token, target.token):
                return f"{target.ref} was changed by {target.changed_by or 'someone else'} after the decision"
            return None

        await execution.advance(record, intent, claim, guard)

    async def _drain(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """The next step of a drain."""
        if self.reader is None or self.writer is None:
            raise PermanentError("the cluster is not connected for writing now")
        under_way = drain_progress(record, intent.id).token is not None

        async def guard() -> str | None:
            reasons = await self.permission.reasons(record, intent)
            if reasons is not None and (refusal := reasons.refusal()) is not None:
                return f"no current reason: {refusal}"
            # Another worker may have finished, undone and closed while this process was paused.
            await self.store.claims.renew(claim, self.lease, self.clock.now())
            return await self.permission.stopped(record, intent, under_way=under_way)

        drains = DrainExecution(store=self.store, clock=self.clock, reader=self.reader, writer=self.writer)
        await drains.advance(record, intent, claim, guard)

    async def _begun(
        self, claim: Claim, intent: Intent, snapshot: Snapshot | None, reasons: Reasons | None = None
    ) -> bool:
        """Store the intent as begun; False if it was finished instead, with the reason."""
        budget = await self.gatherer.budget(intent.action)
        beginning = await self.store.intents.begin(
            claim, intent.id, snapshot, budget, self.clock.now(), reasons
        )
        match beginning.begun:
            case Begun.YES:
                return True
            case Begun.BUDGET_SPENT:
                why = "; ".join(beginning.reasons)
            case Begun.BRAKED:
                why = "the kill switch is engaged"
            case Begun.NO_REASON:
                why = f"no current reason: {'; '.join(beginning.reasons)}"
            case Begun.NOT_DECIDED:
                raise ClaimLost(f"intent {intent.id} was begun or ended meanwhile")
        gone = beginning.begun is Begun.NO_REASON
        await self.endings.finish(claim, intent, OutcomeKind.REFUSED, why, look_anew=gone)
        return False

    async def _notify(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """Done means: queued for delivery to every channel."""
        if self.notifier is None:
            await self.endings.finish(
                claim,
                intent,
                OutcomeKind.REFUSED,
                "no notification channel configured (for example NOTIFY_WEBHOOK_URL)",
            )
            return
        if not await self._begun(claim, intent, None):
            return
        try:
            await self.notifier.send(str(intent.action.parameters.get("message", "")), record.incident)
        except (TransientError, PermanentError) as error:
            await self.endings.finish(claim, intent, OutcomeKind.FAILED, f"notification failed: {error}")
        except UnknownOutcome as error:
            await self.endings.finish(claim, intent, OutcomeKind.UNKNOWN, str(error))
        else:
            await self.endings.finish(claim, intent, OutcomeKind.DONE, "queued for every channel")


def _new_intent_id() -> IntentId:
    return IntentId(f"int_{uuid.uuid4().hex}")

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

from app.agent.actions import restore_of
from app.agent.approvals.request import ApprovalRequester
from app.agent.approvals.state import (
    as_answered,
    asked_for,
    refused_by_people,
    uses_up,
)
from app.agent.evidence.restoration import serving_now
from app.agent.freshness.reasons import Reason, Reasons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.freeze import frozen
from app.agent.guardrails.limits import Budget, proposed_by, standing
from app.agent.guardrails.opt_out import OptOut, withheld
from app.agent.guardrails.question import Question
from app.agent.guardrails.target_token import as_left, moved_parts, same_ground
from app.agent.ids import (
    IntentId,
    Json,
    JsonObject,
    ServiceKey,
)
from app.agent.intents import begun_intents, intent_by_id
from app.agent.models import (
    Action,
    ActionName,
    Decision,
    DecisionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    Outcome,
    OutcomeKind,
    Rehearsal,
    Snapshot,
    Stage,
)
from app.agent.policy import Policy, forbidden_now, undo_decision
from app.agent.ports.cluster import ClusterReader, ClusterRehearsal, ClusterWriter
from app.agent.ports.people import Notifier
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Begun
from app.agent.reason_check import ReasonCheck
from app.agent.workload import TargetState, WorkloadView
from app.clock import Clock
from app.errors import ClaimLost, Conflict, NotFound, PermanentError, TransientError, UnknownOutcome

MAX_WRITE_ATTEMPTS = 5
"""Attempts to write one intent to a target that keeps changing; each is guarded by its version."""


MAX_ATTEMPTS = 2
"""An interrupted intent is attempted once more; after a second interruption it is escalated."""

MAX_DECISION_AGE = timedelta(minutes=1)
"""A decision older than this that was not executed is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A target as read, or why it could not be read."""

    target: TargetState | None = None
    problem: str | None = None


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
    lease: timedelta = timedelta(seconds=30)
    """The lease that is renewed between two attempts of a write."""

    async def decide(
        self, record: IncidentRecord, claim: Claim, stands_on: Sequence[Reason] = ()
    ) -> str | None:
        """Rehearse and decide the next action of the plan; durable when this returns None.

        Where policy requires an approval, it is requested, or the answer is used.
        A string means that nothing was decided, and why: the target is not in the
        state that was planned for or approved. `stands_on` are the current reasons
        for the action, for the record.
        """
        incident, plan = record.incident, record.incident.plan
        assert plan is not None  # noqa: S101 - the loop decides only where a plan stands
        action = plan.actions[incident.next_action]
        look = await self._look(action)
        if look.target is not None and not _as_diagnosed(record, action, look.target):
            by = look.target.changed_by or "someone"
            return f"{action.target} was changed by {by} since the diagnosis"
        rehearsal = await self._rehearse_whole(record, look)
        budget = await self._budget(action)
        now = self.clock.now()
        history = await self.store.budgets.recent_actions(incident.key, budget.limits, now)
        proposed = proposed_by(incident, plan.hash, action)
        decision = await self.policy.decide(
            Question(
                incident=incident,
                plan=plan,
                action=action,
                target=look.target,
                target_problem=look.problem,
                rehearsal=rehearsal,
                taken=len(begun_intents(record)),
                brake=await self.store.guardrails.kill_switch(),
                disruption=await self._disruption(action, look),
                consent=await self._consent(action, look),
                standing=standing(proposed, history, budget.limits, budget.known_services, now),
                at=now,
            )
        )
        answered = asked_for(record)
        needed = decision.kind is DecisionKind.NEEDS_APPROVAL and not incident.dry_run
        if needed and answered is None:
            await self.asking.ask(incident, claim, action, decision, rehearsal)
            return None
        if answered is not None and (needed or refused_by_people(decision, answered)):
            if answered.plan_hash != decision.plan_hash or not same_ground(
                action, answered.target_token, decision.target_token
            ):
                return f"the approval is for another state of {action.target}"
            said_yes = [one.by for one in answered.answers if one.approve]
            if needed and decision.terms and not decision.terms.met_by(answered.terms, said_yes):
                return "policy now requires approval by other people"
            decision = as_answered(decision, answered)
        intent = Intent(
            id=_new_intent_id(),
            incident_id=incident.id,
            sequence=len(record.intents),
            action=action,
            dry_run=incident.dry_run,
            decision=decision,
            rehearsal=rehearsal,
            state=IntentState.DECIDED,
            approval=answered.id if answered is not None and uses_up(decision, answered) else None,
        )
        notes = [*_rehearsal_notes(intent, look.problem), _decision_note(intent, stands_on)]
        await self._record_decision(claim, incident, intent, notes)
        return None

    async def decide_undo(
        self, record: IncidentRecord, undone: Intent, claim: Claim, incident: Incident, notes: Sequence[Note]
    ) -> bool:
        """Decide to restore what `undone` changed; False if it was changed since by someone else."""
        now = self.clock.now()
        action = restore_of(undone.action)
        if action is None:
            await self.store.incidents.save(claim, incident, notes)
            return False
        look = await self._look(action)
        why, rehearsal = _not_to_undo(undone, look), None
        if why is None and look.target is not None and self.rehearsal is not None:
            rehearsal = await self.rehearsal.rehearse(action, look.target, undone.snapshot)
            if not rehearsal.accepted:
                why = f"the API server would reject it: {rehearsal.message}"
        if why is not None or look.target is None:
            refused = Note(
                at=now,
                stage=Stage.UNDO,
                message=f"Not undone: {why}. {await self._serving(incident.key)}Escalated.",
                data={"undoes": undone.id},
            )
            await self.store.incidents.save(claim, incident, [*notes, refused])
            return False
        intent = Intent(
            id=_new_intent_id(),
            incident_id=incident.id,
            sequence=len(record.intents),
            action=action,
            dry_run=False,
            decision=undo_decision(undone, look.target, now),
            rehearsal=rehearsal,
            state=IntentState.DECIDED,
            undoes=undone.id,
        )
        note = Note(
            at=now,
            stage=Stage.UNDO,
            message=_undoing(undone),
            data={"intent": intent.id, "undoes": undone.id},
        )
        executing = replace(incident, state=IncidentState.EXECUTING)
        await self.store.intents.add(claim, executing, intent, [*notes, note])
        return True

    async def execute(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """Execute a decided intent: check again, store it as begun, act, record the outcome."""
        if intent.action.name is ActionName.NOTIFY:
            await self._notify(record, intent, claim)
            return
        if self.writer is None or self.reader is None:
            await self._finish(
                claim, intent, OutcomeKind.REFUSED, "the agent has no write access now", look_anew=True
            )
            return
        available = await self._available(record.incident.key)
        snapshot_of_now = replace(await self.reader.snapshot(intent.action), available=available)
        target = await self.reader.target(intent.action)
        moved = _moved_on(intent, target, snapshot_of_now) or self._lapsed(record, intent)
        if moved is not None:
            await self._finish(claim, intent, OutcomeKind.REFUSED, moved, look_anew=True)
            return
        unwilling = await self._unwilling(intent)
        if unwilling is not None:
            await self._finish(claim, intent, OutcomeKind.REFUSED, unwilling)
            return
        reasons = await self._reasons(record, intent)
        if reasons is not None and (refusal := reasons.refusal()) is not None:
            await self._finish(
                claim, intent, OutcomeKind.REFUSED, f"no reason stands: {refusal}", look_anew=True
            )
            return
        if not await self._begun(claim, intent, snapshot_of_now, reasons):
            return
        begun = replace(intent, state=IntentState.EXECUTING, snapshot=snapshot_of_now)
        await self._write(record, begun, target, claim, reasons)

    async def _reasons(self, record: IncidentRecord, intent: Intent) -> Reasons | None:
        """The current reasons for the intent; None for an undo, which needs no reason (promise 13)."""
        if intent.undoes is not None:
            return None
        return (await self.check.examine(record.incident)).reasons

    async def reconcile(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """An intent was begun and has no recorded outcome: read the target, then adopt or retry."""
        if intent.action.name is ActionName.NOTIFY:
            await self._finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                "interrupted while the notification was queued: whether it was sent is unknown",
            )
            return
        if self.reader is None:
            await self._finish(claim, intent, OutcomeKind.UNKNOWN, "interrupted, and no cluster is connected")
            return
        target = await self.reader.target(intent.action)
        if target.marker == intent.id:
            await self._finish(
                claim,
                intent,
                OutcomeKind.DONE,
                "interrupted, then found executed: the object has this intent's annotation",
                target,
            )
        elif not same_ground(intent.action, intent.decision.target_token, target.token):
            await self._finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                f"interrupted, and {intent.action.target} was changed since by "
                f"{target.changed_by or 'someone'}: whether this action was executed is unknown",
            )
        elif (forbidden := self._lapsed(record, intent)) is not None:
            await self._leave_open(claim, intent, forbidden)
        else:
            await self._try_again(record, intent, target, claim)

    async def _try_again(
        self, record: IncidentRecord, intent: Intent, target: TargetState, claim: Claim
    ) -> None:
        """The target shows no effect: retry if the intent has an attempt left."""
        reasons = await self._reasons(record, intent)
        if reasons is not None and (refusal := reasons.refusal()) is not None:
            await self._leave_open(claim, intent, f"no reason stands: {refusal}")
            return
        match await self.store.intents.retry(claim, intent.id, MAX_ATTEMPTS, self.clock.now(), reasons):
            case Begun.YES:
                # The first attempt may have arrived without a response.
                await self._write(record, intent, target, claim, reasons, unheard=True)
            case Begun.NO_REASON:
                await self._leave_open(claim, intent, "there is no longer a reason for it")
            case Begun.BRAKED:
                await self._leave_open(claim, intent, "the kill switch is engaged now")
            case Begun.BUDGET_SPENT:
                await self._leave_open(claim, intent, f"{MAX_ATTEMPTS} attempts were interrupted")
            case Begun.NOT_DECIDED:
                raise ClaimLost(f"intent {intent.id} ended meanwhile")

    async def _leave_open(self, claim: Claim, intent: Intent, why: str) -> None:
        """No effect is visible and no retry is allowed, but an interrupted request may still arrive.

        Only a second attempt could rule that out, because it changes the target's version.
        """
        await self._finish(
            claim,
            intent,
            OutcomeKind.UNKNOWN,
            f"interrupted; no effect on {intent.action.target} is visible so far, and {why}: "
            "manual check required",
        )

    async def _begun(
        self, claim: Claim, intent: Intent, snapshot: Snapshot | None, reasons: Reasons | None = None
    ) -> bool:
        """Store the intent as begun; False if it was finished instead, with the reason."""
        budget = await self._budget(intent.action)
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
                why = f"no reason stands: {'; '.join(beginning.reasons)}"
            case Begun.NOT_DECIDED:
                raise ClaimLost(f"intent {intent.id} was begun or ended meanwhile")
        gone = beginning.begun is Begun.NO_REASON
        await self._finish(claim, intent, OutcomeKind.REFUSED, why, look_anew=gone)
        return False

    async def _budget(self, action: Action) -> Budget:
        """The limits of the action; services are counted only if MAX_FLEET_SHARE is set."""
        limits = self.policy.limits
        known = None
        if limits.shared.fleet_share < 1 and action.target is not None and self.reader is not None:
            known = len(await self.reader.services())
        return Budget(
            per_incident=limits.max_actions_per_incident, limits=limits.shared, known_services=known
        )

    def _lapsed(self, record: IncidentRecord, intent: Intent) -> str | None:
        """Why a recorded decision no longer holds, or None (promise 1). An undo's always holds."""
        if self.writer is None:
            return "the agent has no write access now"
        if intent.undoes is not None:
            return None
        plan, age = record.incident.plan, self.clock.now() - intent.decision.at
        if plan is None or plan.hash != intent.decision.plan_hash:
            return "the decision is for another plan"
        if age > MAX_DECISION_AGE:
            return f"the decision is {age.total_seconds():.0f} s old"
        lifted = forbidden_now(intent.action, self.policy.limits)
        if intent.action.target is not None:
            why = frozen(self.policy.limits.shared.freezes, record.incident.key, self.clock.now())
            lifted += [] if why is None else [why]
        return f"it is no longer allowed: {'; '.join(lifted)}" if lifted else None

    async def _write(
        self,
        record: IncidentRecord,
        intent: Intent,
        target: TargetState,
        claim: Claim,
        reasons: Reasons | None,
        *,
        unheard: bool = False,
    ) -> None:
        """Send the change until it is accepted, refused, or the target is unreachable.

        Every attempt names the version it was decided on, so that the API server accepts
        only one of two copies of an intent; and each attempt needs a current reason.
        """
        assert self.writer is not None  # noqa: S101 - both callers have checked
        assert self.reader is not None  # noqa: S101 - both callers have checked
        content = await self._content(record.incident.key, intent.action, _undone_snapshot(record, intent))
        for _ in range(MAX_WRITE_ATTEMPTS):
            if reasons is not None and (refusal := reasons.refusal()) is not None:
                # This process was paused, or the state changed between two attempts.
                await self._not_sent(claim, intent, refusal, unheard=unheard)
                return
            try:
                after = await self.writer.apply(intent.action, intent.id, target, content)
            except (Conflict, UnknownOutcome) as error:
                unheard = unheard or isinstance(error, UnknownOutcome)
                target = await self.reader.target(intent.action)
                if target.marker == intent.id:
                    after = target
                elif same_ground(intent.action, intent.decision.target_token, target.token):
                    # Another worker may have acted, undone and closed while this process was paused.
                    await self.store.claims.renew(claim, self.lease, self.clock.now())
                    stopped = await self._stopped(record, intent)
                    if stopped is not None:
                        await self._stop(claim, intent, stopped, unheard=unheard)
                        return
                    reasons = await self._reasons(record, intent)
                    continue
                else:
                    by = target.changed_by or "someone else"
                    await self._finish(
                        claim,
                        intent,
                        OutcomeKind.UNKNOWN if unheard else OutcomeKind.FAILED,
                        f"{intent.action.target} was changed by {by} at the same moment; "
                        + ("whether this action was executed is unknown" if unheard else "no action taken"),
                    )
                    return
            except PermanentError as error:
                kind = OutcomeKind.UNKNOWN if unheard else OutcomeKind.FAILED
                await self._finish(claim, intent, kind, f"refused by the API server: {error}")
                return
            await self._finish(
                claim, intent, OutcomeKind.DONE, f"{intent.action.target} changed as planned", after
            )
            return
        raise TransientError(f"{intent.action.target} keeps changing; retrying")

    async def _not_sent(self, claim: Claim, intent: Intent, refusal: str, *, unheard: bool) -> None:
        if unheard:
            await self._finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                f"whether this action was executed is unknown, and it is not sent again: {refusal}",
            )
            return
        message = f"not sent, because there is no current reason: {refusal}"
        await self._finish(claim, intent, OutcomeKind.REFUSED, message, look_anew=True)

    async def _stop(self, claim: Claim, intent: Intent, why: str, *, unheard: bool) -> None:
        if unheard:
            await self._leave_open(claim, intent, why)
        else:
            await self._finish(claim, intent, OutcomeKind.REFUSED, f"not sent: {why}")

    async def _stopped(self, record: IncidentRecord, intent: Intent) -> str | None:
        """What now forbids another attempt of a write; an undo continues (promise 11)."""
        if intent.undoes is not None:
            return None
        switch = await self.store.guardrails.kill_switch()
        if switch is not None and switch.engaged:
            return "the kill switch is engaged now"
        return self._lapsed(record, intent) or await self._unwilling(intent)

    async def _notify(self, record: IncidentRecord, intent: Intent, claim: Claim) -> None:
        """Done means: queued for delivery to every channel."""
        if self.notifier is None:
            await self._finish(
                claim,
                intent,
                OutcomeKind.REFUSED,
                "no notification channel is configured, such as NOTIFY_WEBHOOK_URL",
            )
            return
        if not await self._begun(claim, intent, None):
            return
        try:
            await self.notifier.send(str(intent.action.parameters.get("message", "")), record.incident)
        except (TransientError, PermanentError) as error:
            await self._finish(claim, intent, OutcomeKind.FAILED, f"notification failed: {error}")
        except UnknownOutcome as error:
            await self._finish(claim, intent, OutcomeKind.UNKNOWN, str(error))
        else:
            await self._finish(claim, intent, OutcomeKind.DONE, "queued for every channel")

    async def _look(self, action: Action) -> _Look:
        if action.name is ActionName.NOTIFY:
            return _Look()
        if self.reader is None or action.target is None:
            return _Look(problem="no cluster is connected")
        try:
            return _Look(target=await self.reader.target(action))
        except PermanentError as error:
            return _Look(problem=str(error))

    async def _consent(self, action: Action, look: _Look) -> OptOut:
        if self.reader is None or look.target is None:
            return OptOut()
        return await self.reader.consent(action)

    async def _unwilling(self, intent: Intent) -> str | None:
        """Why opt-out forbids the action, read right before the write; an undo is always allowed."""
        if self.reader is None or intent.undoes is not None:
            return None
        consent = await self.reader.consent(intent.action)
        return withheld(consent, opt_in=self.policy.limits.require_opt_in)

    async def _disruption(self, action: Action, look: _Look) -> Disruption | None:
        if self.reader is None or look.target is None:
            return None
        return await self.reader.disruption(action)

    async def _available(self, key: ServiceKey) -> int | None:
        """The available replicas right before the action: the number an undo must restore."""
        workload = await self._workload(key)
        return None if workload is None else workload.available_replicas

    async def _serving(self, key: ServiceKey) -> str:
        """The available replicas as a sentence; empty if unknown."""
        workload = await self._workload(key)
        return "" if workload is None else f"{serving_now(workload)}. "

    async def _workload(self, key: ServiceKey) -> WorkloadView | None:
        try:
            return None if self.reader is None else await self.reader.workload(key)
        except PermanentError:
            return None

    async def _rehearse_whole(self, record: IncidentRecord, look: _Look) -> Rehearsal | None:
        """Rehearse the next action together with the actions that complete it."""
        incident, plan = record.incident, record.incident.plan
        assert plan is not None  # noqa: S101 - the caller decides an action of it
        index = incident.next_action
        rehearsal = await self._rehearse(incident.key, plan.actions[index], look)
        while rehearsal is not None and rehearsal.accepted and not plan.actions[index].then_verify:
            index += 1
            if index >= len(plan.actions):
                break
            completing = plan.actions[index]
            found = await self._rehearse(incident.key, completing, await self._look(completing))
            if found is not None and not found.accepted:
                return Rehearsal(
                    accepted=False,
                    message=f"{completing.name}, which completes it, would be refused: {found.message}",
                )
        return rehearsal

    async def _rehearse(self, key: ServiceKey, action: Action, look: _Look) -> Rehearsal | None:
        if self.rehearsal is None or look.target is None:
            return None
        return await self.rehearsal.rehearse(action, look.target, await self._content(key, action, None))

    async def _content(self, key: ServiceKey, action: Action, undone: Snapshot | None) -> Snapshot | None:
        """The content that a restore or a ConfigMap revert writes; None for other actions."""
        content_hash = action.parameters.get("content_hash")
        if action.name is not ActionName.REVERT_CONFIG or content_hash is None or action.target is None:
            return undone
        for kept in await self.store.history.configs(key):
            if kept.name == action.target.name and kept.content_hash == content_hash:
                return Snapshot(ref=action.target, token=content_hash, body={"data": dict(kept.data)})
        raise NotFound(f"{action.target} in version {content_hash} is no longer in the agent's history")

    async def _record_decision(
        self, claim: Claim, incident: Incident, intent: Intent, notes: list[Note]
    ) -> None:
        """Allowed: continue with execution. Otherwise the intent is finished and the plan continues."""
        if not incident.dry_run and intent.decision.kind is DecisionKind.ALLOW:
            await self.store.intents.add(
                claim, replace(incident, state=IncidentState.EXECUTING), intent, notes
            )
            return
        now = self.clock.now()
        if incident.dry_run:
            kind, message = OutcomeKind.REHEARSED, _rehearsed_message(intent)
        else:
            kind, message = OutcomeKind.REFUSED, _refused_message(intent.decision)
        ended = replace(
            intent,
            state=IntentState.FINISHED,
            outcome=Outcome(kind=kind, message=message, at=now),
        )
        note = Note(at=now, stage=Stage.EXECUTE, message=message, data={"intent": intent.id, "outcome": kind})
        after = replace(incident, state=IncidentState.OPEN, next_action=incident.next_action + 1)
        await self.store.intents.add(claim, after, ended, [*notes, note])

    async def _finish(
        self,
        claim: Claim,
        intent: Intent,
        kind: OutcomeKind,
        message: str,
        after: TargetState | None = None,
        *,
        look_anew: bool = False,
    ) -> None:
        now = self.clock.now()
        note = Note(
            at=now,
            stage=Stage.UNDO if intent.undoes else Stage.EXECUTE,
            message=f"{intent.action.name} {kind}: {message}.",
            data={"intent": intent.id, "outcome": kind},
        )
        await self.store.intents.finish(
            claim,
            intent.id,
            Outcome(kind=kind, message=message, at=now, look_anew=look_anew),
            after.token if after is not None else None,
            [note],
        )


def _as_diagnosed(record: IncidentRecord, action: Action, target: TargetState) -> bool:
    """Whether the target is unchanged since the diagnosis or since this plan's previous action."""
    left = [
        i.applied_token
        for i in record.intents
        if i.action.target == action.target and i.applied_token is not None
    ]
    if left:
        return same_ground(action, left[-1], target.token)
    seen = action.diagnosed_token
    return seen is None or same_ground(action, seen, target.token) or target.token.endswith(f"/{seen}")


def _undoing(undone: Intent) -> str:
    """A restart cannot be undone: pods are replaced again, to load the restored version."""
    target = undone.action.target
    if undone.action.name is ActionName.RESTART:
        return f"Replacing the pods of {target} again, to load the restored version."
    return f"Undoing {undone.action.name} on {target}: it did not help."


def _not_to_undo(undone: Intent, look: _Look) -> str | None:
    """Why an intent must not be undone: the target changed since."""
    target = look.target
    if target is None:
        return look.problem or "the target cannot be read"
    if as_left(undone.action, undone.applied_token, target.token):
        return None
    parts = ", ".join(moved_parts(undone.action, undone.applied_token, target.token))
    return f"{target.ref} was changed since by {target.changed_by or 'someone else'}" + (
        f" ({parts})" if parts else ""
    )


def _new_intent_id() -> IntentId:
    return IntentId(f"int_{uuid.uuid4().hex}")


def _undone_snapshot(record: IncidentRecord, intent: Intent) -> Snapshot | None:
    """The snapshot that a restore writes: taken before the intent that it undoes."""
    return intent_by_id(record, intent.undoes).snapshot if intent.undoes is not None else None


def _moved_on(intent: Intent, target: TargetState, snapshot: Snapshot) -> str | None:
    """Why the decision no longer holds for the target, or None (promise 1)."""
    decided = intent.decision.target_token
    if same_ground(intent.action, decided, target.token) and same_ground(
        intent.action, target.token, snapshot.token
    ):
        return None
    return (
        f"{target.ref} was changed by {target.changed_by or 'someone else'} after the decision; "
        "a new decision is required"
    )


def _rehearsal_notes(intent: Intent, problem: str | None) -> list[Note]:
    rehearsal = intent.rehearsal
    if rehearsal is None:
        if intent.action.name is ActionName.NOTIFY:
            return []
        message = f"Not rehearsed: {problem or 'no cluster is connected'}."
        data: JsonObject = {"intent": intent.id}
    else:
        verb = "accepts" if rehearsal.accepted else "refuses"
        message = f"Rehearsal (dryRun=All): the API server {verb} {intent.action.name}: {rehearsal.message}"
        data = {"intent": intent.id, "accepted": rehearsal.accepted}
    return [Note(at=intent.decision.at, stage=Stage.POLICY, message=message, data=data)]


def _decision_note(intent: Intent, stands_on: Sequence[Reason]) -> Note:
    decision: Decision = intent.decision
    reasons: list[Json] = [
        {"reason": one.said, "source": one.source, "last_true_at": one.last_true_at.isoformat()}
        for one in stands_on
    ]
    return Note(
        at=decision.at,
        stage=Stage.POLICY,
        message=f"{intent.action.name} ({intent.action.risk} risk): {decision.kind}. "
        + "; ".join(decision.reasons),
        data={
            "intent": intent.id,
            "action": intent.action.name,
            "decision": decision.kind,
            "reasons": list(decision.reasons),
            "rules": list(decision.rules),
            "plan_hash": decision.plan_hash,
            "target_token": decision.target_token,
            **({"stands_on": reasons} if reasons else {}),
        },
    )


def _rehearsed_message(intent: Intent) -> str:
    allowed = intent.decision.kind is DecisionKind.ALLOW
    denied = intent.decision.kind is DecisionKind.DENY
    policy = "allowed by policy" if allowed else "denied by policy" if denied else "needs approval"
    if intent.rehearsal is None:
        server = "no cluster connected"
    elif intent.rehearsal.accepted:
        server = "the API server would accept it"
    else:
        server = "the API server would refuse it"
    return f"Dry run of {intent.action.name}: nothing was written; {policy}; {server}."


def _refused_message(decision: Decision) -> str:
    return f"Not executed: {decision.reasons[-1] if decision.reasons else 'policy denies it'}."

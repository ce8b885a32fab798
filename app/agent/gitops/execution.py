"""Carries a rollback out through a GitOps controller, one durable step at a time.

Called by the executor for an intent that names an application, when it begins and each
time it is taken up again. Every call moves the intent on by one step: the step is
recorded as begun, sent, and recorded as done. A step that was begun and not recorded as
done is looked for on the application first, and sent once more where it does not show
(promise 2). Where a step is refused, or the reasons end halfway, the recorded policy is
restored before the intent ends: the agent leaves automated sync off only where that is
the point.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from app.agent.actions.application import refuses
from app.agent.actions.target_parts import asks_as_before
from app.agent.gitops.application import Application, ApplicationRef, Operation, OperationPhase
from app.agent.gitops.steps import (
    GIT_REVISION,
    HISTORY_ID,
    LEFT_HISTORY_ID,
    LEFT_REVISION,
    MAX_ATTEMPTS,
    MAX_RESTORE_ATTEMPTS,
    GitOpsStep,
    Progress,
    application_of,
    is_switched_off,
    progress,
    short,
    step_note,
    text_of,
)
from app.agent.ids import JsonObject
from app.agent.intents import intent_by_id
from app.agent.models import Incident, IncidentRecord, Intent, Note, Outcome, OutcomeKind, Stage
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.gitops import ApplicationWriter, GitOps
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.clock import Clock
from app.errors import PermanentError

WAIT = timedelta(seconds=1)
"""The time between two checks of a running operation."""

MAX_WAIT = timedelta(minutes=10)
"""How long an operation, or the automated sync after an undo, is waited for."""

Guard: TypeAlias = Callable[[], Awaitable[str | None]]
"""Why no new step may begin, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One intent in progress, with its record."""

    record: IncidentRecord
    intent: Intent
    claim: Claim
    ref: ApplicationRef
    seen: Progress
    writer: ApplicationWriter
    guard: Guard

    @property
    def incident(self) -> Incident:
        return self.record.incident


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOpsExecution:
    """Moves intents on that go through an application."""

    store: Store
    clock: Clock
    reader: ClusterReader
    gitops: GitOps

    async def advance(self, record: IncidentRecord, intent: Intent, claim: Claim, guard: Guard) -> None:
        """Take the next step of an intent that is EXECUTING; finish it after the last one."""
        ref = application_of(intent.action)
        if ref is None or self.gitops.writer is None:
            raise PermanentError("the agent has no write access to the application now")
        work = _Work(
            record=record,
            intent=intent,
            claim=claim,
            ref=ref,
            seen=progress(record, intent.id),
            writer=self.gitops.writer,
            guard=guard,
        )
        done = work.seen.done
        if intent.undoes is not None:
            await self._undo(work)
        elif GitOpsStep.BACK_OUT in done:
            await self._backing_out(work)
        elif GitOpsStep.RECORD not in done:
            await self._record(work)
        elif work.seen.policy is not None and GitOpsStep.SWITCH_OFF not in done:
            await self._switch_off(work)
        elif GitOpsStep.ROLL_BACK not in done:
            history_id = int(text_of(intent.action, HISTORY_ID))
            await self._roll_back(work, history_id, text_of(intent.action, GIT_REVISION))
        else:
            await self._done(work)

    # -------------------------------------------------------- the steps

    async def _record(self, work: _Work) -> None:
        """Record policy and position, before anything is changed."""
        application = await self.gitops.reader.application(work.ref)
        why = _synced_since(work, application) or refuses(application)
        if why is not None:
            await self._finish(work, OutcomeKind.REFUSED, why, look_anew=True)
            return
        facts: JsonObject = {
            "policy": application.policy,
            "automated": application.automated,
            "prunes": application.prunes,
            "desired": application.desired,
        }
        state = "on" if application.automated else "off"
        message = f"Recorded the sync policy of {application.in_words}: automated sync is {state}."
        await self._note(work, GitOpsStep.RECORD, message, done=True, facts=facts)

    async def _switch_off(self, work: _Work) -> None:
        application = await self.gitops.reader.application(work.ref)
        attempts = work.seen.begun.get(GitOpsStep.SWITCH_OFF, 0)
        if attempts and is_switched_off(application, work.intent.id):
            await self._note(
                work, GitOpsStep.SWITCH_OFF, f"Automated sync of {application.in_words} is off.", done=True
            )
            return
        if attempts >= MAX_ATTEMPTS:
            await self._unknown(work, f"automated sync of {application.in_words} could not be switched off")
            return
        why = (
            await work.guard()
            or _synced_since(work, application)
            or _policy_changed(work, application)
            or refuses(application)
        )
        if why is not None and attempts:
            await self._back_out(work, OutcomeKind.REFUSED, why)
            return
        if why is not None:
            await self._finish(work, OutcomeKind.REFUSED, why, look_anew=True)
            return
        message = f"Switching automated sync of {application.in_words} off."
        incident = await self._note(work, GitOpsStep.SWITCH_OFF, message, done=False)
        try:
            await work.writer.switch_off(work.ref, work.intent.id)
        except PermanentError as error:
            await self._back_out(work, OutcomeKind.FAILED, str(error), incident)
            return
        application = await self.gitops.reader.application(work.ref)
        if not is_switched_off(application, work.intent.id):
            why = f"automated sync of {application.in_words} is still on after it was switched off"
            await self._back_out(work, OutcomeKind.FAILED, why, incident)
            return
        message = f"Automated sync of {application.in_words} is off."
        await self._note(work, GitOpsStep.SWITCH_OFF, message, done=True, incident=incident)

    async def _roll_back(self, work: _Work, history_id: int, revision: str) -> None:
        """Start the rollback once, and wait for the end of its operation."""
        application = await self.gitops.reader.application(work.ref)
        attempts, operation = work.seen.begun.get(GitOpsStep.ROLL_BACK, 0), application.operation
        if attempts:
            ours = _started_since(work.seen, operation, revision)
            if ours is not None and ours.phase is OperationPhase.SUCCEEDED and not application.busy:
                message = f"{application.in_words} runs revision {short(revision)} again."
                await self._note(work, GitOpsStep.ROLL_BACK, message[0].upper() + message[1:], done=True)
                return
            if ours is not None and ours.phase is OperationPhase.FAILED:
                failed = f"the rollback of {application.in_words} failed: {ours.message}"
                await self._back_out(work, OutcomeKind.FAILED, failed)
                return
            if application.busy:
                await self._wait(work, f"the operation of {application.in_words} did not end in time")
                return
            if attempts >= MAX_ATTEMPTS:
                await self._unknown(work, f"whether {application.in_words} was rolled back is unknown")
                return
        why = await work.guard()
        if why is None:  # the guard takes time: changes by others in the meantime count
            application = await self.gitops.reader.application(work.ref)
            why = _taken_over(work, application) or _busy(application)
        if why is not None and attempts:
            unclear = f"whether {application.in_words} was rolled back is unknown, and it is not tried again"
            await self._back_out(work, OutcomeKind.UNKNOWN, f"{unclear}: {why}")
            return
        if why is not None:
            await self._back_out(work, OutcomeKind.REFUSED, why)
            return
        facts: JsonObject = {"operation": operation.started_at if operation is not None else None}
        message = f"Rolling {application.in_words} back to revision {short(revision)} (history {history_id})."
        incident = await self._note(work, GitOpsStep.ROLL_BACK, message, done=False, facts=facts)
        try:
            prune = work.seen.done.get(GitOpsStep.RECORD, {}).get("prunes") is True
            await work.writer.roll_back(work.ref, history_id, prune=prune)
        except PermanentError as error:
            await self._back_out(work, OutcomeKind.FAILED, str(error), incident)
            return
        await self._rest(work, incident)

    async def _done(self, work: _Work) -> None:
        after = await self.reader.target(work.intent.action)
        revision = short(text_of(work.intent.action, GIT_REVISION))
        what = f"application {work.ref} runs revision {revision} again"
        await self._finish(work, OutcomeKind.DONE, what, token=after.token)

    # -------------------------------------------------------- backing out and undoing

    async def _back_out(
        self, work: _Work, kind: OutcomeKind, why: str, incident: Incident | None = None
    ) -> None:
        """The rest is not done: restore the policy first, if it may have been changed."""
        if not work.seen.begun.get(GitOpsStep.SWITCH_OFF) and incident is None:
            await self._finish(work, kind, why, look_anew=kind is OutcomeKind.REFUSED)
            return
        message = f"Not continued: {why}. Restoring the sync policy."
        facts: JsonObject = {"kind": kind, "why": why}
        await self._note(work, GitOpsStep.BACK_OUT, message, done=True, facts=facts, incident=incident)

    async def _backing_out(self, work: _Work) -> None:
        facts = work.seen.done[GitOpsStep.BACK_OUT]
        kind, why = OutcomeKind(str(facts["kind"])), str(facts["why"])
        if work.seen.policy is not None and GitOpsStep.RESTORE not in work.seen.done:
            await self.restore(work.record, work.intent, work.claim, work.seen.policy, work.seen)
            return
        await self._finish(work, kind, why, look_anew=kind is OutcomeKind.REFUSED)

    async def _undo(self, work: _Work) -> None:
        """Give the application back to automated sync, or sync the revision again that was left."""
        assert work.intent.undoes is not None  # noqa: S101 - the caller has checked
        undone = intent_by_id(work.record, work.intent.undoes)
        policy = progress(work.record, undone.id).policy
        if policy is None and GitOpsStep.ROLL_BACK not in work.seen.done:
            left = int(text_of(work.intent.action, LEFT_HISTORY_ID))
            await self._roll_back(work, left, text_of(work.intent.action, LEFT_REVISION))
            return
        if policy is not None and GitOpsStep.RESTORE not in work.seen.done:
            why = None if work.intent.own_undo else await work.guard()
            if why is None:
                await self.restore(work.record, work.intent, work.claim, policy, work.seen, held_by=undone)
            elif work.seen.begun.get(GitOpsStep.RESTORE):
                await self._unknown(work, f"whether automated sync is on again is unknown, and {why}")
            else:
                await self._finish(work, OutcomeKind.REFUSED, f"not started: {why}")
            return
        if asks_as_before(undone, await self.reader.snapshot(work.intent.action)):
            after = await self.reader.target(work.intent.action)
            what = f"application {work.ref} runs its previous revision"
            await self._finish(work, OutcomeKind.DONE, what, token=after.token)
            return
        last = GitOpsStep.ROLL_BACK if policy is None else GitOpsStep.RESTORE
        if self.clock.now() - work.seen.at[last] > MAX_WAIT:
            why = f"application {work.ref} did not return to its previous revision"
            await self._finish(work, OutcomeKind.FAILED, why)
            return
        await self._rest(work, work.incident)

    async def restore(
        self,
        record: IncidentRecord,
        intent: Intent,
        claim: Claim,
        policy: JsonObject,
        seen: Progress,
        *,
        held_by: Intent | None = None,
    ) -> None:
        """Set the recorded policy again; another person's later change stays."""
        ref, writer = application_of(intent.action), self.gitops.writer
        if ref is None or writer is None:
            raise PermanentError("the agent has no write access to the application now")
        application = await self.gitops.reader.application(ref)
        attempts, now = seen.begun.get(GitOpsStep.RESTORE, 0), self.clock.now()
        incident = record.incident
        facts: JsonObject = {}
        if application.policy == policy and application.held_by is None:
            message = f"Automated sync of {application.in_words} is on again."
        elif not is_switched_off(application, (held_by or intent).id):
            message = f"The sync policy of {application.in_words} was changed by others and left as it is."
            facts = {"left": True} if application.automated or attempts else {"kept": True}
        elif attempts >= MAX_RESTORE_ATTEMPTS:
            raise PermanentError(f"the sync policy of {application.in_words} could not be restored")
        else:
            message = f"Restoring the sync policy of {application.in_words}."
            begun = step_note(intent, GitOpsStep.RESTORE, message, now, done=False)
            incident = await self.store.incidents.save(claim, incident, [begun])
            await writer.restore(ref, policy)
            message = f"Automated sync of {application.in_words} is on again."
        done = step_note(intent, GitOpsStep.RESTORE, message, self.clock.now(), done=True, facts=facts)
        await self.store.incidents.save(claim, incident, [done])

    # -------------------------------------------------------- recording

    async def _note(
        self,
        work: _Work,
        step: GitOpsStep,
        message: str,
        *,
        done: bool,
        facts: JsonObject | None = None,
        incident: Incident | None = None,
    ) -> Incident:
        note = step_note(work.intent, step, message, self.clock.now(), done=done, facts=facts)
        return await self._save(work, incident or work.incident, [note])

    async def _save(self, work: _Work, incident: Incident, notes: Sequence[Note]) -> Incident:
        moved = replace(incident, wake_at=None, failing_since=None)
        return await self.store.incidents.save(work.claim, moved, notes)

    async def _rest(self, work: _Work, incident: Incident) -> None:
        """Look again soon."""
        waiting = replace(incident, wake_at=self.clock.now() + WAIT, failing_since=None)
        await self.store.incidents.save(work.claim, waiting, [])

    async def _wait(self, work: _Work, too_late: str) -> None:
        if self.clock.now() - work.seen.at[GitOpsStep.ROLL_BACK] > MAX_WAIT:
            await self._unknown(work, too_late)
        else:
            await self._rest(work, work.incident)

    async def _unknown(self, work: _Work, why: str) -> None:
        await self._finish(work, OutcomeKind.UNKNOWN, f"{why}: manual check required")

    async def _finish(
        self,
        work: _Work,
        kind: OutcomeKind,
        message: str,
        *,
        token: str | None = None,
        look_anew: bool = False,
    ) -> None:
        intent, now = work.intent, self.clock.now()
        note = Note(
            at=now,
            stage=Stage.UNDO if intent.undoes else Stage.EXECUTE,
            message=f"{intent.action.words} {kind}: {message}.",
            data={"intent": intent.id, "outcome": kind},
        )
        outcome = Outcome(kind=kind, message=message, at=now, look_anew=look_anew)
        await self.store.intents.finish(work.claim, intent.id, outcome, token, [note])


def _synced_since(work: _Work, application: Application) -> str | None:
    """Why the application is not in the state that was decided on."""
    newest = application.history[0].id if application.history else None
    if str(newest) == text_of(work.intent.action, LEFT_HISTORY_ID):
        return None
    return f"{application.in_words} was synced again after the decision; a new decision is required"


def _policy_changed(work: _Work, application: Application) -> str | None:
    if work.seen.done[GitOpsStep.RECORD].get("policy") == application.policy:
        return None
    return f"the sync policy of {application.in_words} was changed after it was recorded"


def _taken_over(work: _Work, application: Application) -> str | None:
    """Why the rollback must not start: another person acts on the application."""
    if work.intent.undoes is not None:
        return None
    if application.automated:
        return f"automated sync of {application.in_words} was switched on by another person"
    return _synced_since(work, application)


def _busy(application: Application) -> str | None:
    return f"another operation of {application.in_words} is in progress" if application.busy else None


def _started_since(seen: Progress, operation: Operation | None, revision: str) -> Operation | None:
    """The operation on this revision that started after the step began; None if it does not show."""
    if operation is None or operation.revision != revision:
        return None
    before = seen.before.get(GitOpsStep.ROLL_BACK, {}).get("operation")
    return None if operation.started_at == before else operation

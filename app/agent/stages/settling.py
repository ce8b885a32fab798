"""After an action, and without one: verify, re-evaluate, watch, or conclude."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.guardrails.workload_kinds import mutes
from app.agent.intents import index_behind, proposed_intents, unverified
from app.agent.models import (
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    Outcome,
    OutcomeKind,
    Stage,
    Verification,
)
from app.agent.notes import (
    handover_note,
    nothing_written,
    to_inspect,
    why_escalated,
    why_proposed,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.soak import moved_on
from app.agent.stages.components import Stages
from app.agent.verification.assessment import Assessment
from app.durations import span
from app.errors import PermanentError

MAX_INTENTS = 12
"""An incident with more intents than this, including denied ones, is escalated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Advances an incident from its record: an outcome, an ended plan, ended symptoms."""

    store: Store
    stages: Stages
    settle: timedelta
    """How long a new incident collects signals before it is diagnosed."""

    async def settle_outcome(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The last intent is finished: verify it, re-evaluate, or continue with the plan."""
        last = record.intents[-1]
        outcome = last.outcome
        if outcome is None:
            raise PermanentError(f"intent {last.id} ended without an outcome")
        if outcome.kind is OutcomeKind.UNKNOWN and not mutes(last.action):
            await self.stages.closer.close(
                record,
                claim,
                IncidentState.ESCALATED,
                f"The outcome of the action is unknown: {outcome.message}",
            )
        elif last.undoes is not None:
            await self.stages.soak.settle_undo(record, last, outcome, claim, now)
        elif outcome.kind is OutcomeKind.DONE and last.action.then_verify:
            await self.stages.soak.begin(record, last, claim, now)
        elif outcome.kind is OutcomeKind.DONE:
            await self.next_action(record, claim)
        elif outcome.look_anew and len(record.intents) < MAX_INTENTS:
            await self.reevaluate(record, claim, now, outcome.message)
        else:
            await self._without(last, outcome, record, claim)

    async def reevaluate(self, record: IncidentRecord, claim: Claim, now: datetime, why: str) -> None:
        """Discard diagnosis and plan; wait for the settle time of a new incident before diagnosing again.

        An action that completes the last one is skipped: completed actions are verified first.
        """
        done = unverified(record)
        if done is not None:
            await self.stages.soak.begin(record, done, claim, now, [first_verified(why, now)])
            return
        reopened = replace(
            record.incident,
            state=IncidentState.OPEN,
            diagnosis=None,
            plan=None,
            next_action=0,
            verification=None,
            wake_at=now + self.settle,
        )
        note = Note(at=now, stage=Stage.PLAN, message=f"Re-evaluating: {why}.")
        await self.store.incidents.save(claim, reopened, [note])

    async def verify_before_the_next(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The plan advanced past an unverified action: verify it, then continue."""
        incident, done = record.incident, unverified(record)
        if done is None:
            raise PermanentError("no action is left to be verified")
        # After a verdict the plan advances by one.
        here = replace(record, incident=replace(incident, next_action=max(0, incident.next_action - 1)))
        await self.stages.soak.begin(here, done, claim, now)

    async def _without(self, last: Intent, outcome: Outcome, record: IncidentRecord, claim: Claim) -> None:
        """Continue with the plan after an action that did not take place."""
        behind = index_behind(record.incident, last.action, outcome.kind)
        await self.store.incidents.save(claim, replace(moved_on(record.incident), next_action=behind), [])

    async def next_action(self, record: IncidentRecord, claim: Claim) -> None:
        await self.store.incidents.save(claim, moved_on(record.incident), [])

    async def conclude(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The plan is finished without a recovery."""
        incident = record.incident
        if not incident.dry_run or not proposed_intents(record):
            await self._hand_over(record, claim, now)
        elif incident.stale:
            await self.stages.closer.close(
                record,
                claim,
                IncidentState.PROPOSED,
                f"{why_proposed(record)} All signals are stale; recovery is not watched.",
            )
        else:
            rules = self.stages.verifier.rules
            watching = replace(
                incident,
                state=IncidentState.VERIFYING,
                verification=Verification(intent_id=None, started_at=now),
            )
            note = Note(
                at=now,
                stage=Stage.VERIFY,
                message=f"{nothing_written(record)} Watching for recovery without action, for up to "
                f"{span(rules.timeout)}.",
            )
            await self.store.incidents.save(claim, watching, [note])

    async def _hand_over(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """Escalate. After a plan with actions, evidence is collected again for the person who takes over."""
        incident, why, notes = record.incident, why_escalated(record), []
        planned = incident.plan is not None and incident.plan.actions
        if planned and incident.diagnosis is not None:
            gathered = await self.stages.observer.gather(record, now)
            handover = handover_note(gathered.evidence, incident.diagnosis, now)
            if handover is not None:
                notes, why = [handover], f"{why.removesuffix('.')}.{to_inspect([handover])}"
        await self.stages.closer.close_with(record, incident, claim, IncidentState.ESCALATED, notes, why)

    async def watch_instead(
        self,
        record: IncidentRecord,
        claim: Claim,
        health: Assessment,
        now: datetime,
        words: str = "The symptoms ended while awaiting approval; watching for recovery. ",
    ) -> None:
        """The service is healthy without the next action: watch whether it stays so.

        A partly executed change is verified instead.
        """
        note = Note(at=now, stage=Stage.VERIFY, message=words + "; ".join(health.reasons))
        done = unverified(record)
        if done is not None:
            await self.stages.soak.begin(record, done, claim, now, [note])
            return
        watching = replace(
            record.incident,
            state=IncidentState.VERIFYING,
            verification=Verification(intent_id=None, started_at=now),
        )
        await self.store.incidents.save(claim, watching, [note])


def first_verified(why: str, now: datetime) -> Note:
    """Why an action that completes the last one is skipped."""
    return Note(at=now, stage=Stage.PLAN, message=f"{why}. Verifying the completed actions.", data={})


def works_again(record: IncidentRecord) -> IncidentRecord:
    """The incident waits for something else than the end of a failure."""
    return replace(record, incident=replace(record.incident, failing_since=None))

"""Gather evidence, diagnose and plan; and diagnose again where a diagnosis is too old."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app import spans
from app.agent.approvals.state import asked_for
from app.agent.diagnosis import diagnose
from app.agent.evidence.format import in_words
from app.agent.evidence.onset.patience import patience
from app.agent.models import (
    Diagnosis,
    Evidence,
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
    Verification,
)
from app.agent.notes import (
    diagnosis_note,
    evidence_note,
    handover_note,
    plan_note,
    symptoms_ended,
    wait_note,
    with_commands,
)
from app.agent.planner import make_plan, no_longer_planned
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.stages.components import Stages
from app.agent.stages.settling import Settling, works_again
from app.agent.verification.assessment import Health
from app.durations import span


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosing:
    """Diagnoses an incident and plans its actions."""

    store: Store
    stages: Stages
    settling: Settling
    dry_run: bool

    async def diagnose(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        incident = record.incident
        with spans.stage("observe", incident.id):
            gathered = await self.stages.observer.gather(record, now)
        evidence = gathered.evidence
        with spans.stage("diagnose", incident.id):
            diagnosis = diagnose(evidence)
            spans.note(cause=diagnosis.best.cause, confidence=f"{diagnosis.best.confidence:.2f}")
        if await self._waits(record, claim, evidence, diagnosis, now):
            return
        with spans.stage("plan", incident.id):
            plan = make_plan(diagnosis, evidence, self.stages.catalogue, self.stages.limits_of_plans)
            spans.note(actions=", ".join(action.name for action in plan.actions), plan=plan.hash)
        planned = plan_note(plan, now)
        notes = [
            evidence_note(evidence, gathered.missing, now),
            diagnosis_note(diagnosis, now),
            with_commands(planned, evidence) if plan.actions else planned,
        ]
        handover = None if plan.actions else handover_note(evidence, diagnosis, now)
        if handover is not None:
            notes.append(handover)
        after = replace(
            diagnosed(incident, diagnosis, now),
            dry_run=incident.dry_run or self.dry_run,
            plan=plan,
            next_action=0,
            wake_at=None,
            verification=None,
        )
        _, health = await self.stages.verifier.look(incident, now)
        if health.health is Health.HEALTHY and not incident.stale:
            notes.append(
                Note(
                    at=now,
                    stage=Stage.VERIFY,
                    message=f"{symptoms_ended(record)}; watching for recovery. " + "; ".join(health.reasons),
                )
            )
            after = replace(
                after,
                state=IncidentState.VERIFYING,
                verification=Verification(intent_id=None, started_at=now),
            )
        await self.store.incidents.save(claim, after, notes)

    async def _waits(
        self, record: IncidentRecord, claim: Claim, evidence: Evidence, diagnosis: Diagnosis, now: datetime
    ) -> bool:
        """Wait for a symptom that may end by itself before deciding."""
        wait = patience(evidence, diagnosis)
        if wait is None:
            return False
        already_noted = any(entry.data.get("waits_for") == wait.waits_for for entry in record.timeline)
        waiting = replace(works_again(record).incident, wake_at=wait.look_at or wait.until)
        await self.store.incidents.save(claim, waiting, [] if already_noted else [wait_note(wait, now)])
        return True

    async def diagnose_again(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The diagnosis is too old: diagnose again. The first action of a plan is planned again.
        An approved action, and the rest of a partly executed plan, continue only if the new
        diagnosis supports the same action on the same target.
        """
        incident, plan = record.incident, record.incident.plan
        old = old_diagnosis(incident, now)
        if plan is None or (incident.next_action == 0 and asked_for(record) is None):
            await self.settling.reevaluate(record, claim, now, old)
            return
        gathered = await self.stages.observer.gather(record, now)
        taken = {action.name for action in plan.actions[: incident.next_action]}
        # The runbook determines the step after one that did not help.
        others = tuple(name for name in gathered.evidence.failed_actions if name not in taken)
        evidence = replace(gathered.evidence, failed_actions=others)
        diagnosis = diagnose(evidence)
        against = no_longer_planned(
            plan,
            incident.next_action,
            diagnosis,
            evidence,
            self.stages.catalogue,
            self.stages.limits_of_plans,
        )
        if against is None:
            still = f"Re-evaluating: {old}. The new diagnosis supports the same plan."
            still += changed_cause(incident, diagnosis)
            notes = [
                Note(at=now, stage=Stage.PLAN, message=still, data={"hash": plan.hash}),
                evidence_note(evidence, gathered.missing, now),
                diagnosis_note(diagnosis, now),
            ]
            await self.store.incidents.save(claim, diagnosed(incident, diagnosis, now), notes)
        else:
            await self.settling.reevaluate(
                record, claim, now, f"{old}, and the new diagnosis does not support the plan: {against}"
            )


def diagnosed(incident: Incident, diagnosis: Diagnosis, now: datetime) -> Incident:
    """The incident with this diagnosis, which is its summary too."""
    return replace(incident, diagnosis=diagnosis, summary=diagnosis_note(diagnosis, now).message)


def changed_cause(incident: Incident, newer: Diagnosis) -> str:
    """A sentence on the change if a newer diagnosis names another cause; or empty."""
    before, now = incident.diagnosis, newer.best.cause
    if before is None or before.best.cause is now:
        return ""
    return f" The most likely cause changed from {in_words(before.best.cause)} to {in_words(now)}."


def old_diagnosis(incident: Incident, now: datetime) -> str:
    at = incident.diagnosis.at if incident.diagnosis is not None else now
    return f"the diagnosis is {span(abs(now - at))} old"


def too_slow(record: IncidentRecord, now: datetime, max_age: timedelta) -> str:
    """Why a diagnosis of this pass is not used: evidence ages faster than it is gathered."""
    return (
        f"{old_diagnosis(record.incident, now)}, and was made in this pass: evidence may be "
        f"{max_age.total_seconds():g} s old at most (EVIDENCE_MAX_AGE_SECONDS)"
    )

"""Approval requests: durable, bound to plan and live state, with escalation.

Called by the executor where policy requires approval, and by the loop when an
escalation is due. A failed notification blocks nothing: the request remains valid, and
the timeline records the failure.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import timedelta

from app.agent.approvals.state import escalations_due
from app.agent.identity.people import ApprovalTerms, wanted
from app.agent.ids import ApprovalId, JsonObject
from app.agent.models import (
    Action,
    Approval,
    Decision,
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Rehearsal,
    Stage,
)
from app.agent.ports.people import Notifier
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.clock import Clock
from app.durations import span
from app.errors import PermanentError, TransientError, UnknownOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequester:
    """Stores requests and notifies people."""

    store: Store
    clock: Clock
    notifier: Notifier | None
    timeout: timedelta
    """The time-out of a request; without an answer it is denied."""

    async def ask(
        self,
        incident: Incident,
        claim: Claim,
        action: Action,
        decision: Decision,
        rehearsal: Rehearsal | None = None,
    ) -> None:
        """Store a request and set the incident to awaiting approval."""
        approval = Approval(
            id=ApprovalId(f"apr_{uuid.uuid4().hex}"),
            incident_id=incident.id,
            action_index=incident.next_action,
            action=action.name,
            plan_hash=decision.plan_hash,
            target_token=decision.target_token,
            reasons=decision.reasons,
            requested_at=decision.at,
            expires_at=decision.at + self.timeout,
            terms=decision.terms or ApprovalTerms(),
        )
        on = f" on {action.target}" if action.target is not None else ""
        until = f"{approval.expires_at:%Y-%m-%d %H:%M:%S} UTC{wanted(approval.terms)}"
        asking = (
            f"{action.words}{on} ({action.risk} risk) needs an approval until {until}: "
            f"{'; '.join(decision.reasons)}"
        )
        data: JsonObject = {
            "approval": approval.id,
            "action": action.name,
            "decision": decision.kind,
            "plan_hash": decision.plan_hash,
            "target_token": decision.target_token,
            "expires_at": approval.expires_at.isoformat(),
        }
        if rehearsal is not None:
            data["rehearsal"] = {"accepted": rehearsal.accepted, "message": rehearsal.message}
        changes = "" if rehearsal is None else f" Rehearsal: {rehearsal.message.rstrip('.')}."
        note = Note(at=decision.at, stage=Stage.POLICY, message=f"{asking}.{changes}", data=data)
        sent = await self._notify(f"{asking}. Approve or deny: {approval.id}", incident)
        waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL, wake_at=None)
        await self.store.approvals.request(claim, waiting, approval, [note, *sent])

    async def escalate(self, record: IncidentRecord, claim: Claim, asked: Approval) -> None:
        """No answer within the terms: escalate to the next roles, who may answer too."""
        now = self.clock.now()
        steps = escalations_due(record, now)
        taken = asked.escalated + len(steps)
        roles = sorted({role for step in steps for role in step.roles})
        waited = span(now - asked.requested_at)
        may = "may answer too" if asked.terms.roles else "are asked"
        message = f"{asked.action.words} has awaited approval for {waited}: {', '.join(roles)} {may}"
        note = Note(
            at=now,
            stage=Stage.POLICY,
            message=f"{message}.",
            data={"approval": asked.id, "escalated": taken, "roles": [*roles]},
        )
        sent = await self._notify(f"{message}. Approve or deny: {asked.id}", record.incident)
        await self.store.approvals.record_escalation(claim, record.incident, asked.id, taken, [note, *sent])

    async def _notify(self, message: str, incident: Incident) -> list[Note]:
        """Notify people of the request; a failure is recorded and blocks nothing."""
        if self.notifier is None:
            return []
        try:
            await self.notifier.send(message, incident)
        except (TransientError, PermanentError, UnknownOutcome) as error:
            message = f"Notification failed: {error}."
            return [Note(at=self.clock.now(), stage=Stage.POLICY, message=message)]
        return []

"""Decide the next action of a plan, which needs a current reason (promise 13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from app.agent.actions import ACTIONS
from app.agent.approvals.state import asked_for
from app.agent.freshness.reasons import Reason
from app.agent.freshness.silences import Muting
from app.agent.intents import done_intents, unverified
from app.agent.models import (
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.reason_check import Examination
from app.agent.stages.components import Stages
from app.agent.stages.diagnosing import Diagnosing
from app.agent.stages.retries import LONGEST_RETRY, RETRY_AFTER, delay_after
from app.agent.stages.settling import Settling, first_verified, works_again
from app.agent.verification.assessment import Health


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """Decides the next action, or watches, waits or escalates where no reason for one is current."""

    store: Store
    stages: Stages
    settling: Settling
    diagnosing: Diagnosing

    async def decide(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        incident = record.incident
        if incident.state is IncidentState.AWAITING_APPROVAL:
            _, health = await self.stages.verifier.look(incident, now)
            if health.health is Health.HEALTHY:
                await self.settling.watch_instead(works_again(record), claim, health, now)
                return
        standing: tuple[Reason, ...] = ()
        if needs_reason(incident):
            examination = await self.stages.check.examine(incident)
            standing = examination.reasons.standing()
            if not standing:
                await self._without_reason(works_again(record), claim, now, examination)
                return
            if self.aged(record, now):
                await self.diagnosing.diagnose_again(record, claim, now)
                return
            record = replace(record, incident=replace(incident, without_reason_since=None, wake_at=None))
        moved = await self.stages.executor.decide(record, claim, standing)
        if moved is not None:
            await self.settling.reevaluate(record, claim, now, moved)

    def aged(self, record: IncidentRecord, now: datetime) -> bool:
        """Whether the diagnosis is older than the maximum age of evidence."""
        incident = record.incident
        if not needs_reason(incident) or incident.diagnosis is None:
            return False
        asked = asked_for(record)
        if asked is not None and asked.state is ApprovalState.DENIED:
            return False
        return abs(now - incident.diagnosis.at) > self.stages.check.max_age

    async def _without_reason(
        self, record: IncidentRecord, claim: Claim, now: datetime, examination: Examination
    ) -> None:
        """No current reason for an action (promise 13): diagnose again, then watch, wait or escalate."""
        incident, why = record.incident, examination.reasons.why_none()
        health = await self.stages.verifier.assess(incident, examination.seen, examination.silencings)
        since = incident.without_reason_since
        done = unverified(record)
        if done is not None:
            # The completing action has no current reason: verify the completed actions.
            await self.stages.soak.begin(record, done, claim, now, [first_verified(why, now)])
        elif health.health is Health.HEALTHY:
            known = replace(record, incident=replace(incident, without_reason_since=since or now))
            words = f"Re-evaluating: {why}. No current reason for an action; watching for recovery. "
            await self.settling.watch_instead(known, claim, health, now, words)
        elif examination.muting:
            await self._wait_out(record, claim, now, examination.muting)
        elif since is None:
            missing = replace(record, incident=replace(incident, without_reason_since=now))
            await self.settling.reevaluate(missing, claim, now, why)
        elif now - since >= self.stages.verifier.rules.timeout:
            nothing = "No further action taken" if done_intents(record) else "No action taken"
            summary = f"{nothing}: no current reason for an action. {why}. Now: {'; '.join(health.reasons)}."
            await self.stages.closer.close(record, claim, IncidentState.ESCALATED, summary)
        else:
            delay = delay_after(now - since)
            waiting = replace(incident, state=IncidentState.OPEN, wake_at=now + delay)
            note = Note(
                at=now,
                stage=Stage.OBSERVE,
                message=f"No current reason for an action, no changes made: {why}. "
                "Waiting for fresh evidence.",
            )
            first = incident.wake_at is None
            await self.store.incidents.save(claim, waiting, [note] if first else [])

    async def _wait_out(self, record: IncidentRecord, claim: Claim, now: datetime, muting: Muting) -> None:
        """The service or its firing alerts are muted: no changes and no escalation until that ends."""
        until = min((one.silence.ends_at for one in muting.silencings), default=now + LONGEST_RETRY)
        delay = min(max(until - now, RETRY_AFTER), LONGEST_RETRY)
        waiting = replace(
            record.incident, state=IncidentState.OPEN, without_reason_since=now, wake_at=now + delay
        )
        known = {
            f"{one.silence.id} until {one.silence.ends_at.isoformat()}": (
                f"{'The service is' if one.whole else 'Alerts of the service are'} {one.words}"
            )
            for one in muting.silencings
        }
        if muting.suppressed:
            known["suppressed"] = (
                "Alerts of the service were reported as suppressed (silenced or inhibited by their sender)"
            )
        said = {entry.data.get("silence") for entry in record.timeline}
        notes = [
            Note(
                at=now,
                stage=Stage.OBSERVE,
                message=f"{words}. No changes are made unless another reason for an action exists.",
                data={"silence": name},
            )
            for name, words in known.items()
            if name not in said
        ]
        await self.store.incidents.save(claim, waiting, notes)


def needs_reason(incident: Incident) -> bool:
    """Whether the next action writes: false in a dry run, on stale signals and for a notification."""
    if incident.dry_run or incident.stale or incident.plan is None:
        return False
    if incident.next_action >= len(incident.plan.actions):
        return False
    return bool(ACTIONS[incident.plan.actions[incident.next_action].name].kinds)

"""The loop: observe -> diagnose -> plan -> execute -> verify -> learn, in that order.

`next_stage` is pure: it derives the next stage from an incident's durable record
alone, so that the same record leads to the same stage after a crash, in the durable
engine, in run-once and on a virtual clock. `Loop.advance` runs stages under a claim
until the incident waits or is closed (promise 3).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from weakref import WeakValueDictionary

from app import spans
from app.agent.actions import ACTIONS, ENABLED_BY_DEFAULT
from app.agent.approvals.state import asked_for, escalations_due, wait_until
from app.agent.closing import Closer
from app.agent.diagnosis import diagnose
from app.agent.evidence.format import in_words
from app.agent.evidence.onset.patience import patience
from app.agent.executor import Executor
from app.agent.freshness.clock_jumps import LONGEST_REST, ahead
from app.agent.freshness.reasons import Reason, ago_words
from app.agent.freshness.silences import Muting
from app.agent.gitops.follow_up import FollowUp
from app.agent.gitops.steps import followed_up
from app.agent.heartbeat import renewed
from app.agent.identity.people import same_person
from app.agent.ids import IncidentId
from app.agent.intake import Intake
from app.agent.intents import awaits_completion, done_intents, proposed_intents, unverified
from app.agent.models import (
    ApprovalState,
    Diagnosis,
    Evidence,
    Incident,
    IncidentRecord,
    IncidentState,
    IntentState,
    Note,
    OutcomeKind,
    Stage,
    TimelineEntry,
    Verification,
)
from app.agent.notes import (
    diagnosis_note,
    evidence_note,
    handover_note,
    nothing_written,
    plan_note,
    symptoms_ended,
    wait_note,
    why_escalated,
    why_proposed,
)
from app.agent.observer import Observer
from app.agent.planner import PlanLimits, make_plan, no_longer_planned
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.reason_check import Examination, ReasonCheck
from app.agent.responders.undo import RequestedUndo
from app.agent.runbooks import Catalogue
from app.agent.soak import Soak, moved_on
from app.agent.verification.assessment import Assessment, Health
from app.agent.verifier import Verifier
from app.clock import Clock
from app.errors import AgentError, ClaimLost, NotFound, PermanentError, TransientError, UnknownOutcome
from app.logs import about_incident

MAX_INTENTS = 12
"""An incident with more intents than this, including denied ones, is escalated."""

RETRY_AFTER = timedelta(seconds=5)
"""The first delay after a transient error without a `retry_after`."""

LONGEST_RETRY = timedelta(minutes=1)

FAILURE_NOTES, FAILURE_NOTES_APART = 4, timedelta(minutes=15)
"""At most so many notes of failing stages within this time, and one of each message."""

_TURN_SECONDS = 0.1
"""How often run-once checks whether another worker has released an incident."""

MAX_INTERRUPTIONS = 10
"""After this many consecutive interrupted claims an incident is escalated."""


class NextStage(StrEnum):
    DIAGNOSE = "diagnose"
    DECIDE = "decide"
    EXECUTE = "execute"
    RECONCILE = "reconcile"
    SETTLE = "settle"
    BEGIN_VERIFICATION = "begin verification"
    VERIFY = "verify"
    DECIDE_UNDO = "decide undo"
    """A person asked for it."""
    SETTLE_UNDO = "settle undo"
    CONCLUDE_UNDO = "conclude undo"
    FOLLOW_UP = "follow up"
    """After a rollback through a GitOps controller that helped."""
    CONCLUDE = "conclude"


_SPANS = {
    NextStage.DECIDE: "decide",
    NextStage.EXECUTE: "execute",
    NextStage.RECONCILE: "execute",
    NextStage.SETTLE: "verify",
    NextStage.BEGIN_VERIFICATION: "verify",
    NextStage.VERIFY: "verify",
    NextStage.DECIDE_UNDO: "decide",
    NextStage.SETTLE_UNDO: "verify",
    NextStage.CONCLUDE_UNDO: "conclude",
    NextStage.FOLLOW_UP: "follow up",
    NextStage.CONCLUDE: "conclude",
}
"""The span of each stage after the plan."""

_WAITING = (NextStage.SETTLE, NextStage.SETTLE_UNDO, NextStage.RECONCILE, NextStage.FOLLOW_UP)
"""Stages that are repeated until something outside is ready."""


def next_stage(record: IncidentRecord) -> NextStage:
    """The next stage of an open incident, from its durable record alone."""
    incident = record.incident
    if any(i.state is IntentState.EXECUTING for i in record.intents):
        return NextStage.RECONCILE
    if incident.undoing is not None:
        return _stage_of_undo(record)
    if followed_up(record) is not None:
        return NextStage.FOLLOW_UP
    if incident.state is IncidentState.VERIFYING:
        return NextStage.VERIFY
    if incident.state is IncidentState.AWAITING_APPROVAL:
        return NextStage.DECIDE
    if incident.state is IncidentState.EXECUTING and record.intents:
        decided = record.intents[-1].state is IntentState.DECIDED
        return NextStage.EXECUTE if decided else NextStage.SETTLE
    if unverified(record) is not None and not awaits_completion(record):
        # However the plan went on, or ended: what took place is verified before anything else.
        return NextStage.BEGIN_VERIFICATION
    if incident.diagnosis is None or incident.plan is None:
        return NextStage.DIAGNOSE
    if incident.next_action < len(incident.plan.actions):
        return NextStage.DECIDE
    return NextStage.CONCLUDE


def _stage_of_undo(record: IncidentRecord) -> NextStage:
    """The next stage of an incident while a request of a person to undo is pending."""
    incident, plan = record.incident, record.incident.plan
    if plan is None or incident.next_action >= len(plan.actions):
        return NextStage.CONCLUDE_UNDO
    if incident.state is not IncidentState.EXECUTING:
        return NextStage.DECIDE_UNDO
    decided = record.intents[-1].state is IntentState.DECIDED
    return NextStage.EXECUTE if decided else NextStage.SETTLE_UNDO


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The result of a pass: the incident is closed, or is due again at `wake_at`."""

    closed: bool
    wake_at: datetime | None
    held_elsewhere: bool = False
    """No stage was run: another worker holds the claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One incident after a pass, with the timeline entries that the pass added."""

    record: IncidentRecord
    entries: tuple[TimelineEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOnceReport:
    """What `run-once` did."""

    service: str
    environment: str | None
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The components of the stages."""

    observer: Observer
    executor: Executor
    verifier: Verifier
    trial: Soak
    closer: Closer
    follow_up: FollowUp
    undo: RequestedUndo
    catalogue: Catalogue
    plan_limits: PlanLimits
    check: ReasonCheck

    @property
    def limits_of_plans(self) -> PlanLimits:
        """The limits with the optional actions that are enabled now."""
        enabled = self.executor.policy.limits.enabled_actions
        return replace(self.plan_limits, optional=enabled - ENABLED_BY_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Runs the stages of incidents. One per process; safe under concurrent calls."""

    store: Store
    intake: Intake
    stages: Stages
    clock: Clock
    owner: str
    """Unique to this process and this start of it."""
    lease: timedelta
    dry_run: bool
    settle: timedelta
    """How long a new incident collects signals before it is diagnosed."""
    _locks: WeakValueDictionary[IncidentId, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def advance(
        self, incident_id: IncidentId, *, now_please: bool = False, requested_by: str | None = None
    ) -> Rest:
        """Run stages until the incident rests or ends.

        `now_please` skips the settling time (run-once evaluates what is known now);
        `requested_by` is the person who requested the pass.
        While another worker holds the incident, rests for one lease.
        """
        lock = self._locks.setdefault(incident_id, asyncio.Lock())
        with about_incident(incident_id):
            async with lock:
                return await self._advance(incident_id, now_please, requested_by)

    async def _advance(self, incident_id: IncidentId, now_please: bool, requested_by: str | None) -> Rest:
        try:
            claim = await self.store.claims.take(incident_id, self.owner, self.lease, self.clock.now())
        except NotFound:
            return Rest(closed=True, wake_at=None)
        if claim is None:
            return Rest(closed=False, wake_at=self.clock.now() + self.lease, held_elsewhere=True)
        if requested_by is not None:
            await self._request(claim, requested_by)
        rest = await self._held(claim, now_please)
        await self._release(claim, rest)
        return rest

    async def _request(self, claim: Claim, by: str) -> None:
        """Record who requested the pass: that person may not approve the resulting actions."""
        record = await self.store.incidents.get(claim.incident_id)
        if record is None or record.incident.state.closed:
            return
        incident = record.incident
        before = [name for name in (incident.requested_by, *incident.also_requested_by) if name is not None]
        if any(same_person(name, by) for name in before):
            return
        if incident.requested_by is None:
            asked_for = replace(incident, requested_by=by)
        else:
            asked_for = replace(incident, also_requested_by=(*incident.also_requested_by, by))
        note = Note(
            at=self.clock.now(),
            stage=Stage.OBSERVE,
            message=f"{by} requested an immediate pass.",
            data={"requested_by": by},
        )
        await self.store.incidents.save(claim, asked_for, [note])

    async def _held(self, claim: Claim, now_please: bool) -> Rest:
        try:
            if claim.interruptions >= MAX_INTERRUPTIONS:
                return await self._give_up(claim)
            return await self._run(claim, now_please)
        except ClaimLost:
            return Rest(closed=False, wake_at=None)
        except TransientError as error:
            return await self._retry_later(claim, error, error.retry_after)
        except UnknownOutcome as error:
            return await self._retry_later(claim, error, None)

    async def _give_up(self, claim: Claim) -> Rest:
        record = await self.store.incidents.get(claim.incident_id)
        if record is not None and not record.incident.state.closed:
            error = AgentError(f"{claim.interruptions} consecutive workers were interrupted")
            await self.stages.closer.stop_at(record, claim, next_stage(record), error)
        return Rest(closed=True, wake_at=None)

    async def handle_defect(self, incident_id: IncidentId, error: Exception) -> Rest:
        """A pass failed with an unexpected exception: record it, retry, escalate in the end."""
        async with self._locks.setdefault(incident_id, asyncio.Lock()):
            claim = await self.store.claims.take(incident_id, self.owner, self.lease, self.clock.now())
            if claim is None:
                return Rest(closed=False, wake_at=self.clock.now() + self.lease)
            rest = await self._retry_later(claim, AgentError(f"internal error: {error!r}"), None)
            await self._release(claim, rest)
            return rest

    async def _release(self, claim: Claim, rest: Rest) -> None:
        try:
            await self.store.claims.release(claim, rest.wake_at)
        except TransientError:
            return  # the lease expires

    async def _retry_later(self, claim: Claim, error: AgentError, retry_after: timedelta | None) -> Rest:
        """The step failed: record it once, retry with growing delays, escalate in the end."""
        now = self.clock.now()
        try:
            record = await self.store.incidents.get(claim.incident_id)
            if record is None or record.incident.state.closed:
                return Rest(closed=True, wake_at=None)
            incident = record.incident
            since = incident.failing_since or now
            if now - since > self.stages.verifier.rules.timeout:
                await self.stages.closer.stop_at(record, claim, next_stage(record), error)
                return Rest(closed=True, wake_at=None)
            delay = retry_after or min(max(RETRY_AFTER, (now - since) / 2), LONGEST_RETRY)
            note = Note(
                at=now,
                stage=Stage.OBSERVE,
                message=f"Stage {next_stage(record)} failed: {error}. Retrying.",
                data={"retrying": next_stage(record)},
            )
            waiting = replace(incident, failing_since=since, wake_at=now + delay)
            known = incident.failing_since is not None or _noted_lately(record, note)
            await self.store.incidents.save(claim, waiting, [] if known else [note])
        except (TransientError, ClaimLost):
            return Rest(closed=False, wake_at=now + RETRY_AFTER)
        return Rest(closed=False, wake_at=now + delay)

    async def run_once(
        self, service: str, environment: str | None, requested_by: str | None = None
    ) -> RunOnceReport:
        """Run one pass now for every open incident of the service.

        `requested_by` is the person who requested it, if authenticated.
        """
        for key in await self.store.signals.pending_services(service, environment):
            await self.intake.open_now(key, self.clock.now())
        passes = []
        for found in await self.store.incidents.open_of_service(service, environment):
            known = len(await self.store.incidents.timeline(found.id))
            if found.held_by is None:
                await self._advance_in_turn(found.id, requested_by)
            record = await self.store.incidents.get(found.id)
            if record is not None:
                passes.append(Pass(record=record, entries=record.timeline[known:]))
        return RunOnceReport(service=service, environment=environment, passes=tuple(passes))

    async def _advance_in_turn(self, incident_id: IncidentId, requested_by: str | None) -> None:
        """Run a pass now; while another worker holds the claim, wait for at most one lease."""
        waited_until = self.clock.now() + self.lease
        while True:
            rest = await self.advance(incident_id, now_please=True, requested_by=requested_by)
            if not rest.held_elsewhere or self.clock.now() >= waited_until:
                return
            await self.clock.sleep(_TURN_SECONDS)

    async def _run(self, claim: Claim, now_please: bool) -> Rest:
        looked = settled = waited = diagnosed = just_diagnosed = False
        while True:
            record = await self.store.incidents.get(claim.incident_id)
            if record is None:
                return Rest(closed=True, wake_at=None)
            incident, now = record.incident, self.clock.now()
            if incident.state.closed:
                return Rest(closed=True, wake_at=None)
            if incident.held_by is not None:
                return Rest(closed=False, wake_at=None)  # the undo that its person asked for has ended
            stage = next_stage(record)
            wake_at = self._due(record, stage, now, looked, now_please and not waited)
            if wake_at is None and stage in _WAITING and settled:
                wake_at = incident.wake_at  # pods or an operation that are not ready yet: no busy loop
            if stage is NextStage.DIAGNOSE and just_diagnosed and wake_at is None:
                wake_at = incident.wake_at  # what may end by itself is waited out
            if wake_at is not None:
                return Rest(closed=False, wake_at=wake_at)
            just_diagnosed = stage is NextStage.DIAGNOSE
            await self.store.claims.renew(claim, self.lease, now)
            looked = looked or stage is NextStage.VERIFY
            settled = settled or stage in _WAITING
            waited = waited or (stage is NextStage.DECIDE and incident.without_reason_since is not None)
            aged = stage is NextStage.DECIDE and self._aged(record, now)
            diagnoses = stage is NextStage.DIAGNOSE or aged
            if incident.failing_since is not None:
                # Storing the step clears the failure; a new diagnosis alone is no progress.
                since = incident.failing_since if diagnoses else None
                record = replace(record, incident=replace(incident, failing_since=since, wake_at=None))
            if aged and diagnosed:
                raise TransientError(_too_slow(record, now, self.stages.check.max_age))
            diagnosed = diagnosed or diagnoses  # at most once in a pass
            try:
                async with renewed(self.store.claims, claim, self.lease, self.clock):
                    await self._step(stage, record, claim, now)
            except PermanentError as error:
                await self.stages.closer.stop_at(record, claim, stage, error)

    def _due(
        self, record: IncidentRecord, stage: NextStage, now: datetime, looked: bool, now_please: bool
    ) -> datetime | None:
        """When the stage may run; None if it may run now."""
        incident = record.incident
        if incident.state is IncidentState.AWAITING_APPROVAL:
            return wait_until(record, now)
        waits = incident.wake_at is not None and not ahead(incident.wake_at, now, LONGEST_REST)
        if incident.wake_at is not None and waits and now < incident.wake_at and not now_please:
            return incident.wake_at
        if stage is NextStage.DIAGNOSE and incident.wake_at is None and not now_please:
            settled = incident.opened_at + self.settle
            return settled if now < settled and not ahead(incident.opened_at, now) else None
        if stage is NextStage.VERIFY and incident.verification is not None:
            last = incident.verification.last_observed_at
            due = now if last is None or ahead(last, now) else last + self.stages.verifier.rules.interval
            if looked or (now < due and not now_please):
                return due
        return None

    async def _step(self, stage: NextStage, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        if stage is NextStage.DIAGNOSE:
            await self._diagnose(record, claim, now)
            return
        with spans.stage(_SPANS[stage], record.incident.id):
            await self._step_after_plan(stage, record, claim, now)

    async def _step_after_plan(
        self, stage: NextStage, record: IncidentRecord, claim: Claim, now: datetime
    ) -> None:
        executor = self.stages.executor
        match stage:
            case NextStage.DECIDE:
                asked = asked_for(record)
                if asked is not None and escalations_due(record, now):
                    await executor.asking.escalate(_works_again(record), claim, asked)
                else:
                    await self._decide(record, claim, now)
            case NextStage.EXECUTE:
                await executor.execute(record, record.intents[-1], claim)
            case NextStage.RECONCILE:
                begun = next(i for i in record.intents if i.state is IntentState.EXECUTING)
                await executor.reconcile(record, begun, claim)
            case NextStage.SETTLE:
                await self._settle_outcome(record, claim, now)
            case NextStage.BEGIN_VERIFICATION:
                await self._verify_before_the_next(record, claim, now)
            case NextStage.VERIFY:
                await self.stages.trial.look(record, claim, now)
            case NextStage.DECIDE_UNDO:
                asked = asked_for(record)
                if asked is not None and escalations_due(record, now):
                    await executor.asking.escalate(_works_again(record), claim, asked)
                else:
                    await self.stages.undo.decide(record, claim, now)
            case NextStage.SETTLE_UNDO:
                await self.stages.undo.settle(record, claim, now)
            case NextStage.CONCLUDE_UNDO:
                await self.stages.undo.conclude(record, claim, now)
            case NextStage.FOLLOW_UP:
                await self.stages.follow_up.advance(record, claim, now)
            case NextStage.CONCLUDE:
                await self._conclude(record, claim, now)

    # -------------------------------------------------------- diagnose and plan

    async def _diagnose(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
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
        notes = [
            evidence_note(evidence, gathered.missing, now),
            diagnosis_note(diagnosis, now),
            plan_note(plan, now),
        ]
        told = None if plan.actions else handover_note(evidence, diagnosis, now)
        if told is not None:
            notes.append(told)
        after = replace(
            _diagnosed(incident, diagnosis, now),
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
        """Give what may end by itself its time before anything is decided."""
        wait = patience(evidence, diagnosis)
        if wait is None:
            return False
        told = any(entry.data.get("waits_for") == wait.waits_for for entry in record.timeline)
        waiting = replace(_works_again(record).incident, wake_at=wait.look_at or wait.until)
        await self.store.incidents.save(claim, waiting, [] if told else [wait_note(wait, now)])
        return True

    async def _decide(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        incident = record.incident
        if incident.state is IncidentState.AWAITING_APPROVAL:
            _, health = await self.stages.verifier.look(incident, now)
            if health.health is Health.HEALTHY:
                await self._watch_instead(_works_again(record), claim, health, now)
                return
        standing: tuple[Reason, ...] = ()
        if needs_reason(incident):
            examination = await self.stages.check.examine(incident)
            standing = examination.reasons.standing()
            if not standing:
                await self._without_reason(_works_again(record), claim, now, examination)
                return
            if self._aged(record, now):
                await self._diagnose_again(record, claim, now)
                return
            record = replace(record, incident=replace(incident, without_reason_since=None, wake_at=None))
        moved = await self.stages.executor.decide(record, claim, standing)
        if moved is not None:
            await self._reevaluate(record, claim, now, moved)

    def _aged(self, record: IncidentRecord, now: datetime) -> bool:
        """Whether the diagnosis is older than the maximum age of evidence."""
        incident = record.incident
        if not needs_reason(incident) or incident.diagnosis is None:
            return False
        asked = asked_for(record)
        if asked is not None and asked.state is ApprovalState.DENIED:
            return False
        return abs(now - incident.diagnosis.at) > self.stages.check.max_age

    async def _diagnose_again(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The diagnosis is too old: diagnose again. The first action of a plan is planned again.
        An approved action, and the rest of a partly executed plan, continue only if the new
        diagnosis supports the same action on the same target.
        """
        incident, plan = record.incident, record.incident.plan
        old = _old_diagnosis(incident, now)
        if plan is None or (incident.next_action == 0 and asked_for(record) is None):
            await self._reevaluate(record, claim, now, old)
            return
        gathered = await self.stages.observer.gather(record, now)
        taken = {action.name for action in plan.actions[: incident.next_action]}
        # The runbook decides what follows a step that did not help.
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
            still += _changed_cause(incident, diagnosis)
            notes = [
                Note(at=now, stage=Stage.PLAN, message=still, data={"hash": plan.hash}),
                evidence_note(evidence, gathered.missing, now),
                diagnosis_note(diagnosis, now),
            ]
            await self.store.incidents.save(claim, _diagnosed(incident, diagnosis, now), notes)
        else:
            await self._reevaluate(
                record, claim, now, f"{old}, and the new diagnosis does not support the plan: {against}"
            )

    async def _without_reason(
        self, record: IncidentRecord, claim: Claim, now: datetime, examination: Examination
    ) -> None:
        """No current reason for an action (promise 13): diagnose again, then watch, wait or escalate."""
        incident, why = record.incident, examination.reasons.why_none()
        health = await self.stages.verifier.assess(incident, examination.seen, examination.silencings)
        since = incident.without_reason_since
        done = unverified(record)
        if done is not None:
            # The completing action has no current reason: verify what was done.
            await self.stages.trial.begin(record, done, claim, now, [_first_verified(why, now)])
        elif health.health is Health.HEALTHY:
            known = replace(record, incident=replace(incident, without_reason_since=since or now))
            words = f"Re-evaluating: {why}. No current reason for an action; watching for recovery. "
            await self._watch_instead(known, claim, health, now, words)
        elif examination.muting:
            await self._wait_out(record, claim, now, examination.muting)
        elif since is None:
            missing = replace(record, incident=replace(incident, without_reason_since=now))
            await self._reevaluate(missing, claim, now, why)
        elif now - since >= self.stages.verifier.rules.timeout:
            nothing = "No further action taken" if done_intents(record) else "No action taken"
            told = f"{nothing}: no current reason for an action. {why}. Now: {'; '.join(health.reasons)}."
            await self.stages.closer.close(record, claim, IncidentState.ESCALATED, told)
        else:
            delay = min(max(RETRY_AFTER, (now - since) / 2), LONGEST_RETRY)
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

    async def _watch_instead(
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
            await self.stages.trial.begin(record, done, claim, now, [note])
            return
        watching = replace(
            record.incident,
            state=IncidentState.VERIFYING,
            verification=Verification(intent_id=None, started_at=now),
        )
        await self.store.incidents.save(claim, watching, [note])

    # -------------------------------------------------------- after an action

    async def _settle_outcome(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The last intent is finished: verify it, re-evaluate, or continue with the plan."""
        last = record.intents[-1]
        outcome = last.outcome
        if outcome is None:
            raise PermanentError(f"intent {last.id} ended without an outcome")
        if outcome.kind is OutcomeKind.UNKNOWN:
            await self.stages.closer.close(
                record,
                claim,
                IncidentState.ESCALATED,
                f"The outcome of the action is unknown: {outcome.message}",
            )
        elif last.undoes is not None:
            await self.stages.trial.settle_undo(record, last, outcome, claim, now)
        elif outcome.kind is OutcomeKind.DONE and last.action.then_verify:
            await self.stages.trial.begin(record, last, claim, now)
        elif outcome.kind is OutcomeKind.DONE:
            await self._next_action(record, claim)
        elif outcome.look_anew and len(record.intents) < MAX_INTENTS:
            await self._reevaluate(record, claim, now, outcome.message)
        else:
            await self._next_action(record, claim)

    async def _reevaluate(self, record: IncidentRecord, claim: Claim, now: datetime, why: str) -> None:
        """Discard diagnosis and plan; wait for the settle time of a new incident before diagnosing again.

        An action that completes the last one is left out: what was done is verified first.
        """
        done = unverified(record)
        if done is not None:
            await self.stages.trial.begin(record, done, claim, now, [_first_verified(why, now)])
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

    async def _verify_before_the_next(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The plan advanced past an unverified action: verify it, then continue."""
        incident, done = record.incident, unverified(record)
        if done is None:
            raise PermanentError("no action is left to be verified")
        # After a verdict the plan advances by one.
        here = replace(record, incident=replace(incident, next_action=max(0, incident.next_action - 1)))
        await self.stages.trial.begin(here, done, claim, now)

    async def _next_action(self, record: IncidentRecord, claim: Claim) -> None:
        await self.store.incidents.save(claim, moved_on(record.incident), [])

    # -------------------------------------------------------- conclude and learn

    async def _conclude(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The plan is finished without a recovery."""
        incident = record.incident
        if not incident.dry_run or not proposed_intents(record):
            await self.stages.closer.close(record, claim, IncidentState.ESCALATED, why_escalated(record))
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
                f"{rules.timeout.total_seconds():.0f} s.",
            )
            await self.store.incidents.save(claim, watching, [note])


def needs_reason(incident: Incident) -> bool:
    """Whether the next action writes: false in a dry run, on stale signals and for a notification."""
    if incident.dry_run or incident.stale or incident.plan is None:
        return False
    if incident.next_action >= len(incident.plan.actions):
        return False
    return bool(ACTIONS[incident.plan.actions[incident.next_action].name].kinds)


def _noted_lately(record: IncidentRecord, note: Note) -> bool:
    """Whether a failure that comes and goes has its notes: a cause has one in `FAILURE_NOTES_APART`."""
    lately = [
        entry.message
        for entry in record.timeline
        if "retrying" in entry.data and abs(note.at - entry.at) < FAILURE_NOTES_APART
    ]
    return note.message in lately or len(lately) >= FAILURE_NOTES


def _works_again(record: IncidentRecord) -> IncidentRecord:
    """The incident waits for something else than the end of a failure."""
    return replace(record, incident=replace(record.incident, failing_since=None))


def _first_verified(why: str, now: datetime) -> Note:
    """Why an action that completes the last one is left out."""
    return Note(at=now, stage=Stage.PLAN, message=f"{why}. Verifying what was done.", data={})


def _too_slow(record: IncidentRecord, now: datetime, max_age: timedelta) -> str:
    """Why a diagnosis of this pass is not used: evidence ages faster than it is gathered."""
    return (
        f"{_old_diagnosis(record.incident, now)}, and was made in this pass: evidence may be "
        f"{max_age.total_seconds():g} s old at most (EVIDENCE_MAX_AGE_SECONDS)"
    )


def _diagnosed(incident: Incident, diagnosis: Diagnosis, now: datetime) -> Incident:
    """The incident with this diagnosis, which is its summary too."""
    return replace(incident, diagnosis=diagnosis, summary=diagnosis_note(diagnosis, now).message)


def _changed_cause(incident: Incident, newer: Diagnosis) -> str:
    """A sentence on the change if a newer diagnosis names another cause; or empty."""
    before, now = incident.diagnosis, newer.best.cause
    if before is None or before.best.cause is now:
        return ""
    return f" The most likely cause changed from {in_words(before.best.cause)} to {in_words(now)}."


def _old_diagnosis(incident: Incident, now: datetime) -> str:
    at = incident.diagnosis.at if incident.diagnosis is not None else now
    return f"the diagnosis is {ago_words(abs(now - at))} old"

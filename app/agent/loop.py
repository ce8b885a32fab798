"""The loop: observe -> diagnose -> plan -> execute -> verify -> learn, in that order.

`app.agent.stages.order` derives the next stage from an incident's durable record alone,
so that the same record leads to the same stage after a crash, in the durable engine, in
run-once and on a virtual clock. `Loop.advance` runs stages under a claim until the
incident waits or is closed (promise 3).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from app import spans
from app.agent.approvals.state import asked_for, escalations_due, wait_until
from app.agent.freshness.clock_jumps import LONGEST_REST, ahead
from app.agent.heartbeat import renewed
from app.agent.identity.people import same_person
from app.agent.ids import IncidentId
from app.agent.intake import Intake
from app.agent.models import (
    IncidentRecord,
    IncidentState,
    IntentState,
    Note,
    Stage,
    TimelineEntry,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.stages.components import Stages
from app.agent.stages.deciding import Deciding
from app.agent.stages.diagnosing import Diagnosing, too_slow
from app.agent.stages.order import NextStage, next_stage
from app.agent.stages.retries import RETRY_AFTER, delay_after, noted_recently
from app.agent.stages.settling import Settling, works_again
from app.clock import Clock
from app.errors import AgentError, ClaimLost, NotFound, PermanentError, TransientError, UnknownOutcome
from app.logs import about_incident

_TURN_SECONDS = 0.1
"""How often run-once checks whether another worker has released an incident."""

MAX_INTERRUPTIONS = 10
"""After this many consecutive interrupted claims an incident is escalated."""


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
class Loop:
    """Runs the stages of incidents. One per process; safe under concurrent calls."""

    store: Store
    intake: Intake
    stages: Stages
    clock: Clock
    owner: str
    """Unique to this process and this start."""
    lease: timedelta
    dry_run: bool
    settle: timedelta
    """How long a new incident collects signals before it is diagnosed."""
    _locks: WeakValueDictionary[IncidentId, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @property
    def settling(self) -> Settling:
        """The transitions after an outcome, or at the end of a plan or of the symptoms."""
        return Settling(store=self.store, stages=self.stages, settle=self.settle)

    @property
    def diagnosing(self) -> Diagnosing:
        """Evidence, diagnosis and plan."""
        return Diagnosing(store=self.store, stages=self.stages, settling=self.settling, dry_run=self.dry_run)

    @property
    def deciding(self) -> Deciding:
        """The decision on the next action."""
        return Deciding(
            store=self.store, stages=self.stages, settling=self.settling, diagnosing=self.diagnosing
        )

    async def advance(
        self, incident_id: IncidentId, *, now_please: bool = False, requested_by: str | None = None
    ) -> Rest:
        """Run stages until the incident rests or ends.

        `now_please` skips the settling time (run-once evaluates what is known now);
        `requested_by` is the person who requested the pass.
        While another worker holds the incident, returns a rest of one lease.
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
            delay = retry_after or delay_after(now - since)
            note = Note(
                at=now,
                stage=Stage.OBSERVE,
                message=f"Stage {next_stage(record)} failed: {error}. Retrying.",
                data={"retrying": next_stage(record)},
            )
            waiting = replace(incident, failing_since=since, wake_at=now + delay)
            known = incident.failing_since is not None or noted_recently(record, note)
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
                wake_at = incident.wake_at  # wait for a symptom that may end by itself
            if wake_at is not None:
                return Rest(closed=False, wake_at=wake_at)
            just_diagnosed = stage is NextStage.DIAGNOSE
            await self.store.claims.renew(claim, self.lease, now)
            looked = looked or stage is NextStage.VERIFY
            settled = settled or stage in _WAITING
            waited = waited or (stage is NextStage.DECIDE and incident.without_reason_since is not None)
            aged = stage is NextStage.DECIDE and self.deciding.aged(record, now)
            diagnoses = stage is NextStage.DIAGNOSE or aged
            if incident.failing_since is not None:
                # Storing the step clears the failure; a new diagnosis alone does not count as progress.
                since = incident.failing_since if diagnoses else None
                record = replace(record, incident=replace(incident, failing_since=since, wake_at=None))
            if aged and diagnosed:
                raise TransientError(too_slow(record, now, self.stages.check.max_age))
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
            await self.diagnosing.diagnose(record, claim, now)
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
                    await executor.asking.escalate(works_again(record), claim, asked)
                else:
                    await self.deciding.decide(record, claim, now)
            case NextStage.EXECUTE:
                await executor.execute(record, record.intents[-1], claim)
            case NextStage.RECONCILE:
                begun = next(i for i in record.intents if i.state is IntentState.EXECUTING)
                await executor.reconcile(record, begun, claim)
            case NextStage.SETTLE:
                await self.settling.settle_outcome(record, claim, now)
            case NextStage.BEGIN_VERIFICATION:
                await self.settling.verify_before_the_next(record, claim, now)
            case NextStage.VERIFY:
                await self.stages.soak.look(record, claim, now)
            case NextStage.DECIDE_UNDO:
                asked = asked_for(record)
                if asked is not None and escalations_due(record, now):
                    await executor.asking.escalate(works_again(record), claim, asked)
                else:
                    await self.stages.undo.decide(record, claim, now)
            case NextStage.SETTLE_UNDO:
                await self.stages.undo.settle(record, claim, now)
            case NextStage.CONCLUDE_UNDO:
                await self.stages.undo.conclude(record, claim, now)
            case NextStage.FOLLOW_UP:
                await self.stages.follow_up.advance(record, claim, now)
            case NextStage.CONCLUDE:
                await self.settling.conclude(record, claim, now)

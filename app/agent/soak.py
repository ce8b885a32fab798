"""The soak of an action: from its execution to a verdict, and its undo if it did not help.

Called by the loop for the verify stages. Keeps promises 8 and 10: recovery is
verified over a soak of fresh observations, an action that did not help is undone or
escalated, and the undo itself is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app import spans
from app.agent.actions.target_parts import asks_as_before
from app.agent.batch.runs import batch_named
from app.agent.closing import Closer
from app.agent.evidence.format import in_words
from app.agent.evidence.restoration import judge_restoration
from app.agent.execution.undo import changed_by
from app.agent.executor import Executor
from app.agent.gitops.steps import needs_follow_up
from app.agent.intents import done_intents, intent_by_id, proposed_intents, rest_to_undo, to_undo
from app.agent.memory import failed_revision
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    Observation,
    Outcome,
    OutcomeKind,
    Stage,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.notes import (
    no_undo_notes,
    turning_points,
    undo_begun_note,
    undo_not_done_note,
    undo_note,
    verdict_note,
    why_not_restored,
    why_proposed,
    why_recovered_alone,
    why_returning,
)
from app.agent.observer import Observer
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.verification.assessment import Assessment, Health
from app.agent.verification.rules import VerifyRules
from app.agent.verification.superseded import (
    NOTHING_UNDONE,
    VERIFYING_ON,
    by_whom,
    comparable,
    noted,
    superseded_note,
    superseded_verdict,
)
from app.agent.verification.verdict import advance, judge, resumed
from app.agent.verifier import Verifier
from app.durations import span
from app.errors import PermanentError

RETURNS_OFTEN = 3
"""A symptom that ended by itself this many times within `RETURNS_WITHIN` counts as persistent."""

RETURNS_WITHIN = timedelta(hours=1)

_LOOKED_AT = 20
"""At most this many incidents of the service are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """Verifies executed actions and undos."""

    store: Store
    observer: Observer
    executor: Executor
    verifier: Verifier
    closer: Closer

    async def begin(
        self,
        record: IncidentRecord,
        done: Intent,
        claim: Claim,
        now: datetime,
        notes: Sequence[Note] = (),
    ) -> None:
        """An action was executed: record the baseline and start the verification."""
        missing: list[str] = []
        baseline = await self.observer.sli(record.incident.key, now, missing)
        after = replace(
            record.incident,
            state=IncidentState.VERIFYING,
            wake_at=None,
            verification=Verification(intent_id=done.id, started_at=now, baseline=baseline),
        )
        rules = self.verifier.rules_of(record.incident.key)
        within = f"within {span(rules.timeout)}."
        wanted = f"the SLO must hold for {span(rules.soak)}"
        if batch_named(record.incident.key) is not None:
            wanted = "the new Job must complete"
        note = Note(
            at=now,
            stage=Stage.VERIFY,
            message=f"Verifying {in_words(done.action.name)}: {wanted} {within}",
            data={"intent": done.id},
        )
        await self.store.incidents.save(claim, after, [*notes, note])

    async def settle_undo(
        self, record: IncidentRecord, undo: Intent, outcome: Outcome, claim: Claim, now: datetime
    ) -> None:
        """Verify the undo: the object has its previous specification, and as many replicas run.

        The incident waits here until the pods are available or the time-out has passed.
        """
        undone = intent_by_id(record, undo.undoes) if undo.undoes is not None else undo
        moving_on = replace(record.incident, state=IncidentState.OPEN, verification=None, wake_at=None)
        reader = self.executor.reader
        if outcome.kind is not OutcomeKind.DONE or reader is None:
            by = changed_by(undone, await self.executor.gatherer.look(undone.action))
            note = undo_not_done_note(undo, outcome, by, now)
            await self.store.incidents.save(claim, moving_on, [note])
            return
        asks = asks_as_before(undone, await reader.snapshot(undo.action))
        rest = rest_to_undo(record, undone)
        if asks and rest:
            note = undo_begun_note(undo, undone, now)
            await self.executor.decide_undo(record, rest[0], claim, moving_on, [note])
            return
        rules = self.verifier.rules
        found = judge_restoration(
            undone,
            await self.observer.workload(record.incident.key, []),
            _seen_so_far(record.incident, undo, outcome, now, rules),
            now=now,
            steady_for=rules.soak,
            timeout=rules.timeout,
        )
        if asks and found.restored is None:
            waiting = replace(record.incident, verification=found.seen, wake_at=now + rules.interval)
            await self.store.incidents.save(claim, waiting, [])
            return
        note = undo_note(undo, undone, found, asks=asks, at=now)
        if asks and found.restored:
            await self.store.incidents.save(claim, moving_on, [note])
            return
        why = why_not_restored(undo, undone, found, asks=asks)
        await self.closer.close_with(record, moving_on, claim, IncidentState.ESCALATED, [note], why)

    async def look(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """Observe once. On a verdict: close the incident, undo the action, or go to the next action."""
        incident = record.incident
        if incident.verification is None:
            raise PermanentError("the incident is in verification without a verification record")
        seen, health = await self.verifier.look(incident, now)
        verdict = judge(incident.verification, health, seen, self.verifier.rules_of(incident.key))
        spans.note(health=health.health, verdict=verdict.kind if verdict is not None else "")
        before = incident.verification
        verification = advance(before, health, now, self.verifier.rules)
        notes = turning_points(before, verification, health, now)
        if before.intent_id is None:
            await self._watch(record, verification, verdict, health, claim, notes, now)
            return
        if verdict is None:
            judged = intent_by_id(record, before.intent_id)
            observed = replace(incident, verification=verification)
            await self._go_on(record, judged, observed, seen, claim, notes)
            return
        ended = replace(incident, verification=verification, verdict=verdict)
        notes.append(verdict_note(verdict))
        if verdict.kind is VerdictKind.RECOVERED:
            helped = intent_by_id(record, before.intent_id)
            await self._remember_failed_revision(record, helped, now)
            if needs_follow_up(helped):
                # The incident stays open until the repository asks for what runs.
                await self.store.incidents.save(claim, ended, notes)
                return
            await self.closer.close_with(
                record,
                ended,
                claim,
                IncidentState.RECOVERED,
                notes,
                "",
            )
            return
        tested = to_undo(record, before.intent_id)
        if verdict.kind is VerdictKind.CANNOT_TELL:
            await self.closer.close_with(
                record,
                ended,
                claim,
                IncidentState.ESCALATED,
                notes,
                "Whether the service recovered is unknown.",
            )
        elif tested is None:
            await self.store.incidents.save(claim, moved_on(ended), [*notes, *no_undo_notes(record, now)])
        else:
            await self.executor.decide_undo(record, tested, claim, moved_on(ended), notes)

    async def _go_on(
        self,
        record: IncidentRecord,
        judged: Intent,
        observed: Incident,
        seen: Observation,
        claim: Claim,
        notes: list[Note],
    ) -> None:
        """Continue the verification; end it at once if another party changed the result of the action.

        It ends only if the service is unhealthy. Otherwise the new state is verified over a new soak.
        """
        compared = comparable(record, judged)
        what = by_whom(compared, await self.closer.since(record, compared))
        if what is None:
            await self.store.incidents.save(claim, observed, notes)
            return
        health = await self.verifier.assess(record.incident, seen, superseded=True)
        if health.health is Health.UNHEALTHY:
            verdict = superseded_verdict(judged, what, health, seen.at)
            ended = replace(observed, verdict=verdict)
            notes = [*notes, superseded_note(judged, what, NOTHING_UNDONE, seen.at), verdict_note(verdict)]
            why = f"{'; '.join(verdict.reasons)}."
            await self.closer.close_with(record, ended, claim, IncidentState.ESCALATED, notes, why)
            return
        if not noted(record, judged):
            verification = observed.verification
            if verification is not None and verification.healthy_since is not None:
                verification = replace(verification, healthy_since=seen.at)
            observed = replace(observed, verification=verification)
            notes = [*notes, superseded_note(judged, what, VERIFYING_ON, seen.at)]
        await self.store.incidents.save(claim, observed, notes)

    async def _watch(
        self,
        record: IncidentRecord,
        verification: Verification,
        verdict: Verdict | None,
        health: Assessment,
        claim: Claim,
        notes: list[Note],
        now: datetime,
    ) -> None:
        """Watch without an action (a dry run, or symptoms that ended)."""
        incident = record.incident
        recovered = verdict is not None and verdict.kind is VerdictKind.RECOVERED
        if health.health is Health.UNHEALTHY and not recovered and not _proposes(record):
            reopened = replace(
                incident, state=IncidentState.OPEN, diagnosis=None, plan=None, verification=None
            )
            note = Note(at=now, stage=Stage.OBSERVE, message="The symptoms returned: re-evaluating.")
            await self.store.incidents.save(claim, reopened, [*notes, note])
            return
        end = None if verdict is None else _end_of_watch(record, verdict)
        if end is not None and end[0] is IncidentState.RECOVERED_WITHOUT_ACTION:
            end = await self._returning(record, now) or end
        if verdict is None or end is None:
            await self.store.incidents.save(claim, replace(incident, verification=verification), notes)
            return
        judged = replace(incident, verification=verification, verdict=verdict)
        await self.closer.close_with(record, judged, claim, end[0], [*notes, verdict_note(verdict)], end[1])

    async def _returning(self, record: IncidentRecord, now: datetime) -> tuple[IncidentState, str] | None:
        """The escalation of a symptom that ends by itself and keeps returning; None for any other symptom."""
        incident = record.incident
        recently = IncidentFilter(
            service=incident.key.service, environment=incident.key.environment, since=now - RETURNS_WITHIN
        )
        found = await self.store.incidents.find(recently, limit=_LOOKED_AT, cursor=None)
        earlier = [one.incident for one in found.items if one.incident.id != incident.id]
        times = 1 + sum(ended_alike(one, incident) for one in earlier)
        return (
            None if times < RETURNS_OFTEN else (IncidentState.ESCALATED, why_returning(times, RETURNS_WITHIN))
        )

    async def _remember_failed_revision(self, record: IncidentRecord, helped: Intent, now: datetime) -> None:
        missing: list[str] = []
        workload = await self.observer.workload(record.incident.key, missing)
        failed = failed_revision(record, helped, workload, now) if workload is not None else None
        if failed is not None:
            await self.store.history.record_revision(failed)


def _seen_so_far(
    incident: Incident, undo: Intent, outcome: Outcome, now: datetime, rules: VerifyRules
) -> Verification:
    """The state of the undo's verification so far; restarted after a gap, a bounded number of times."""
    seen = incident.verification
    if seen is None or seen.intent_id != undo.id:
        seen = Verification(intent_id=undo.id, started_at=outcome.at)
    again = resumed(seen, now, rules)
    return again if again.lost_seconds < rules.longest.total_seconds() else seen


def ended_alike(earlier: Incident, incident: Incident) -> bool:
    """Whether an earlier incident had the same symptoms, and they ended without an action as well."""
    alone = earlier.state is IncidentState.RECOVERED_WITHOUT_ACTION
    return alone and not set(earlier.triggers).isdisjoint(incident.triggers)


def _proposes(record: IncidentRecord) -> bool:
    """Whether the incident is a dry run with a plan: it ends with its proposal, however the service fares."""
    return record.incident.dry_run and bool(proposed_intents(record))


def _end_of_watch(record: IncidentRecord, verdict: Verdict) -> tuple[IncidentState, str] | None:
    """The end of a watch without an action, with its summary; None if the verdict ends nothing."""
    if verdict.kind is VerdictKind.RECOVERED:
        return IncidentState.RECOVERED_WITHOUT_ACTION, why_recovered_alone(record)
    if _proposes(record):
        return IncidentState.PROPOSED, why_proposed(record)
    if verdict.kind is VerdictKind.CANNOT_TELL:
        taken = "No further action taken" if done_intents(record) else "No action taken"
        unknown = f"{taken}: the symptoms ended, but whether the service recovered is unknown. "
        return IncidentState.ESCALATED, f"{unknown}{'; '.join(verdict.reasons)}."
    return None


def moved_on(incident: Incident) -> Incident:
    """The incident, advanced to the next action of its plan."""
    return replace(
        incident, state=IncidentState.OPEN, next_action=incident.next_action + 1, verification=None
    )

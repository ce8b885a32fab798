"""Carries out the undo that a person asked for: decided, begun and verified like every other write.

Called by the loop while the request is pending. Policy, guardrails, approvals and the
kill switch apply; the request itself is the reason, and must be fresh. However the undo
ends, the agent takes no further action: the incident is a person's again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.agent.actions.target_parts import asks_as_before
from app.agent.approvals.state import asked_for
from app.agent.closing import Closer
from app.agent.evidence.restoration import judge_restoration
from app.agent.executor import Executor
from app.agent.intents import intent_by_id, undone_intents
from app.agent.models import (
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    Outcome,
    OutcomeKind,
    Stage,
    UndoRequest,
    Verification,
)
from app.agent.notes import named_actions, undo_begun_note, undo_note
from app.agent.observer import Observer
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.responders.undo_request import not_undone, undone, waiting
from app.agent.verification.rules import VerifyRules
from app.agent.verification.verdict import resumed
from app.durations import span
from app.errors import PermanentError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedUndo:
    """Runs the stages of an undo on request."""

    store: Store
    observer: Observer
    executor: Executor
    closer: Closer
    rules: VerifyRules
    max_age: timedelta
    """A request older than this that was neither carried out nor approved since is refused."""

    async def decide(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """Decide the next undo of the request, or answer it where that is not possible."""
        asked = _asked(record)
        if self._is_old(record, asked, now):
            why = f"the request is {span(now - asked.at)} old: request it again"
            await self._refuse(record, claim, OutcomeKind.REFUSED, why, now)
            return
        why_not = await self.executor.decide_requested_undo(record, claim)
        if why_not is not None:
            await self._refuse(record, claim, OutcomeKind.REFUSED, why_not, now)

    def _is_old(self, record: IncidentRecord, asked: UndoRequest, now: datetime) -> bool:
        if asked_for(record) is not None:
            return False  # it has its own time limit
        mine = (i.started_at for i in record.intents if i.undoes in asked.undoes)
        latest = max([asked.at, *(began for began in mine if began is not None)])
        return abs(now - latest) > self.max_age

    async def settle(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """The last undo has an outcome: verify it, continue with the next one, or end the request."""
        undo = record.intents[-1]
        outcome, reader = undo.outcome, self.executor.reader
        if outcome is None or undo.undoes is None:
            raise PermanentError(f"intent {undo.id} ended without an outcome")
        if outcome.kind is not OutcomeKind.DONE or reader is None:
            await self._refuse(record, claim, outcome.kind, outcome.message, now)
            return
        asked, changed = _asked(record), intent_by_id(record, undo.undoes)
        asks = asks_as_before(changed, await reader.snapshot(undo.action))
        index = record.incident.next_action
        if asks and index + 1 < len(asked.undoes):
            following = replace(record.incident, state=IncidentState.OPEN, next_action=index + 1)
            await self.store.incidents.save(claim, following, [undo_begun_note(undo, changed, now)])
            return
        found = judge_restoration(
            changed,
            await self.observer.workload(record.incident.key, []),
            self._seen(record, undo, outcome, now),
            now=now,
            steady_for=self.rules.soak,
            timeout=self.rules.timeout,
        )
        if asks and found.restored is None:
            later = waiting(record.incident, found.seen, now + self.rules.interval)
            await self.store.incidents.save(claim, later, [])
            return
        note = undo_note(undo, changed, found, asks=asks, at=now)
        await self._end(record, claim, note, now)

    def _seen(self, record: IncidentRecord, undo: Intent, outcome: Outcome, now: datetime) -> Verification:
        seen = record.incident.verification
        if seen is None or seen.intent_id != undo.id:
            seen = Verification(intent_id=undo.id, started_at=outcome.at)
        again = resumed(seen, now, self.rules)
        return again if again.lost_seconds < self.rules.longest.total_seconds() else seen

    async def conclude(self, record: IncidentRecord, claim: Claim, now: datetime) -> None:
        """Policy or a person denied the undo."""
        last = record.intents[-1]
        why = last.outcome.message if last.outcome is not None else "it was not decided"
        await self._refuse(record, claim, OutcomeKind.REFUSED, why, now)

    async def _end(self, record: IncidentRecord, claim: Claim, note: Note, now: datetime) -> None:
        """The undo took effect: the incident stays with the person who has it, or is escalated."""
        asked = _asked(record)
        after = undone(record.incident, note.message, now, OutcomeKind.DONE)
        if after.taken_over is not None:
            await self.store.incidents.save(claim, after, [note])
            return
        named = named_actions([intent_by_id(record, one) for one in asked.undoes])
        why = f"Undone at the request of {asked.by}: {named}. {note.message}"
        await self.closer.close_with(record, after, claim, IncidentState.ESCALATED, [note], why)

    async def _refuse(
        self, record: IncidentRecord, claim: Claim, kind: OutcomeKind, why: str, now: datetime
    ) -> None:
        """The undo did not take place: everything else returns to the earlier state.

        If this is unknown, or part of the undo took place, a person checks it.
        """
        asked, why = _asked(record), why.removesuffix(".")
        unknown, partly = kind is OutcomeKind.UNKNOWN, not undone_intents(record).isdisjoint(asked.undoes)
        words = "Undone in part" if partly else "Not undone"
        if unknown:
            words = "Unknown whether the requested undo took effect"
        note = Note(
            at=now,
            stage=Stage.UNDO,
            message=f"{words}: {why}.",
            data={"undo_outcome": kind.value, "requested_by": asked.by},
        )
        ended = undone if partly else not_undone
        after = ended(record.incident, note.message, now, kind)
        if (unknown or partly) and after.taken_over is None:
            await self.closer.close_with(
                record, after, claim, IncidentState.ESCALATED, [note], f"{words}: {why}. Check it by hand."
            )
            return
        await self.store.incidents.save(claim, after, [note])


def _asked(record: IncidentRecord) -> UndoRequest:
    asked = record.incident.undoing
    if asked is None:
        raise PermanentError("no undo was requested")
    return asked

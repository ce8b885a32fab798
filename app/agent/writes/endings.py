"""How an intent ends: its outcome is recorded, with a note on the timeline."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from app.agent.execution.unanswered import Found, WriteFate
from app.agent.models import Intent, Note, Outcome, OutcomeKind, Stage
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.workload import TargetState
from app.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endings:
    """Records the outcomes of intents. `unheard`: a request was sent, and its response is missing."""

    store: Store
    clock: Clock

    async def finish(
        self,
        claim: Claim,
        intent: Intent,
        kind: OutcomeKind,
        message: str,
        after: TargetState | None = None,
        *,
        look_anew: bool = False,
    ) -> None:
        """Finish the intent with this outcome; `after` is the target after the action."""
        now = self.clock.now()
        note = Note(
            at=now,
            stage=Stage.UNDO if intent.undoes else Stage.EXECUTE,
            message=f"{intent.action.words} {kind}: {message}.",
            data={"intent": intent.id, "outcome": kind},
        )
        await self.store.intents.finish(
            claim,
            intent.id,
            Outcome(kind=kind, message=message, at=now, look_anew=look_anew),
            after.token if after is not None else None,
            [note],
        )
        log.info("incident %s, intent %s: %s", intent.incident_id, intent.id, note.message)

    async def leave_open(self, claim: Claim, intent: Intent, why: str) -> None:
        """No effect is visible and no retry is allowed, but an interrupted request may still arrive.

        Only a second attempt could rule that out, because it changes the target's version.
        """
        await self.finish(
            claim,
            intent,
            OutcomeKind.UNKNOWN,
            f"interrupted; no effect on {intent.action.target} is visible so far, and {why}: "
            "manual check required",
        )

    async def stop(self, claim: Claim, intent: Intent, why: str, *, unheard: bool) -> None:
        """Something else forbids the write now."""
        if unheard:
            await self.leave_open(claim, intent, why)
        else:
            await self.finish(claim, intent, OutcomeKind.REFUSED, f"not sent: {why}")

    async def not_sent(self, claim: Claim, intent: Intent, refusal: str, *, unheard: bool) -> None:
        """The write no longer has a current reason."""
        if unheard:
            await self.finish(
                claim,
                intent,
                OutcomeKind.UNKNOWN,
                f"whether this action was executed is unknown, and it is not sent again: {refusal}",
            )
            return
        message = f"not sent, because there is no current reason: {refusal}"
        await self.finish(claim, intent, OutcomeKind.REFUSED, message, look_anew=True)

    async def not_repeated(self, claim: Claim, intent: Intent, found: Found, *, unheard: bool) -> None:
        """The target was changed by someone else, or does not show whether the write took place."""
        if not unheard:
            message = f"{found.why} at the same time; no action taken"
            await self.finish(claim, intent, OutcomeKind.REFUSED, message, look_anew=True)
        elif found.fate is WriteFate.UNPROVEN:
            message = f"whether this action was executed is unknown, and it is not sent again: {found.why}"
            await self.finish(claim, intent, OutcomeKind.UNKNOWN, message)
        else:
            message = f"{found.why} at the same time; whether this action was executed is unknown"
            await self.finish(claim, intent, OutcomeKind.UNKNOWN, message)

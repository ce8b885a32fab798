"""Writes to the cluster itself: sent until accepted, refused, or the target is unreachable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from app.agent.actions import ACTIONS
from app.agent.execution.unanswered import WriteFate, fate_of, fate_of_refused
from app.agent.execution.undo import undone_snapshot
from app.agent.freshness.reasons import Reasons
from app.agent.guardrails.gather import Gatherer
from app.agent.models import Action, IncidentRecord, Intent, OutcomeKind
from app.agent.ports.cluster import ClusterReader, ClusterWriter
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Begun
from app.agent.workload import TargetState
from app.agent.writes.endings import Endings
from app.agent.writes.permission import Permission
from app.clock import Clock
from app.errors import ClaimLost, Conflict, NotFound, PermanentError, TransientError, UnknownOutcome

MAX_WRITE_ATTEMPTS = 5
"""Attempts to write one intent to a target that keeps changing; each is guarded by its version."""

MAX_ATTEMPTS = 2
"""An interrupted intent is attempted once more; after a second interruption it is escalated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectWrite:
    """Sends the changes of intents that were stored as begun."""

    store: Store
    clock: Clock
    reader: ClusterReader
    writer: ClusterWriter
    gathering: Callable[[], Gatherer]
    """Makes a gatherer with the settings in force at the call: they may change between two attempts."""
    permission: Permission
    endings: Endings
    lease: timedelta
    """The lease that is renewed between two attempts of a write."""

    async def send(
        self,
        record: IncidentRecord,
        intent: Intent,
        target: TargetState,
        claim: Claim,
        reasons: Reasons | None,
        *,
        unheard: bool = False,
    ) -> None:
        """Send the change until it is accepted, refused, or the target is unreachable.

        Every attempt names the version it was decided on, so that the API server accepts
        only one of two copies of an intent; and each attempt needs a current reason.
        """
        undone = undone_snapshot(record, intent)
        try:
            content = await self.gathering().content(record.incident.key, intent.action, undone)
        except PermanentError as missing:
            await self.endings.stop(claim, intent, str(missing), unheard=unheard)
            return
        for _ in range(MAX_WRITE_ATTEMPTS):
            if reasons is not None and (refusal := reasons.refusal()) is not None:
                # This process was paused, or the state changed between two attempts.
                await self.endings.not_sent(claim, intent, refusal, unheard=unheard)
                return
            try:
                after = await self.writer.apply(intent.action, intent.id, target, content)
            except (Conflict, UnknownOutcome) as error:
                unheard = unheard or isinstance(error, UnknownOutcome)
                sent_at = target.resource_version
                try:
                    now = await look_again(self.reader, intent)
                except PermanentError as unread:
                    # A conflict proves nothing either: it is also the answer to a write that is made twice.
                    unknown = "whether this action was executed is unknown, and the object cannot be read"
                    await self.endings.finish(claim, intent, OutcomeKind.UNKNOWN, f"{unknown}: {unread}")
                    return
                found = fate_of(intent, now, sent_at) if unheard else fate_of_refused(intent, now)
                if found.fate is WriteFate.NOT_EXECUTED and now is not None:
                    target = now
                    reasons = await self.permission.reasons(record, intent)
                    # Another worker may have acted, undone and closed while this process was paused.
                    await self.store.claims.renew(claim, self.lease, self.clock.now())
                    stopped = await self.permission.stopped(record, intent)
                    if stopped is not None:
                        await self.endings.stop(claim, intent, stopped, unheard=unheard)
                        return
                    continue
                if found.fate is WriteFate.EXECUTED:
                    await self.endings.finish(
                        claim, intent, OutcomeKind.DONE, f"found executed: {found.why}", now
                    )
                else:
                    await self.endings.not_repeated(claim, intent, found, unheard=unheard)
                return
            except PermanentError as error:
                kind = OutcomeKind.UNKNOWN if unheard else OutcomeKind.FAILED
                await self.endings.finish(claim, intent, kind, f"refused by the API server: {error}")
                return
            await self.endings.finish(claim, intent, OutcomeKind.DONE, _changed_words(intent.action), after)
            return
        raise TransientError(f"{intent.action.target} changed repeatedly during the write; retrying")

    async def try_again(
        self, record: IncidentRecord, intent: Intent, target: TargetState, claim: Claim
    ) -> None:
        """The target shows no effect: retry if the intent has an attempt left."""
        reasons = await self.permission.reasons(record, intent)
        if reasons is not None and (refusal := reasons.refusal()) is not None:
            await self.endings.leave_open(claim, intent, f"no current reason: {refusal}")
            return
        objection = await self.gathering().objection(record.incident.key, intent)
        if objection is not None:
            await self.endings.leave_open(claim, intent, objection)
            return
        match await self.store.intents.retry(claim, intent.id, MAX_ATTEMPTS, self.clock.now(), reasons):
            case Begun.YES:
                # The first attempt may have arrived without a response.
                await self.send(record, intent, target, claim, reasons, unheard=True)
            case Begun.NO_REASON:
                await self.endings.leave_open(claim, intent, "there is no longer a reason for it")
            case Begun.BRAKED:
                await self.endings.leave_open(claim, intent, "the kill switch is engaged now")
            case Begun.BUDGET_SPENT:
                await self.endings.leave_open(claim, intent, f"{MAX_ATTEMPTS} attempts were interrupted")
            case Begun.NOT_DECIDED:
                raise ClaimLost(f"intent {intent.id} ended meanwhile")


async def look_again(reader: ClusterReader, intent: Intent) -> TargetState | None:
    """The target now; None if an action that removes it may have done so."""
    try:
        return await reader.target(intent.action)
    except NotFound:
        if not ACTIONS[intent.action.name].removes:
            raise
        return None


def _changed_words(action: Action) -> str:
    """That the change was made; with the release that the object drifts from since."""
    drift = "" if action.drifts_from is None else f"; {action.drifts_from} has another state since"
    return f"{action.target} changed as planned{drift}"

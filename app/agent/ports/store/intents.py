"""Intents: decided, begun and finished under a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from app.agent.freshness.reasons import Reason
from app.agent.guardrails.limits import Budget
from app.agent.ids import IntentId
from app.agent.models import Incident, Intent, Note, Outcome, Snapshot
from app.agent.ports.store.claims import Claim


class Begun(StrEnum):
    """What became of an attempt to begin an intent."""

    YES = "yes"
    BUDGET_SPENT = "budget_spent"
    BRAKED = "braked"
    """The kill switch is engaged."""
    NOT_DECIDED = "not_decided"
    """Begun or ended already."""
    NO_REASON = "no_reason"
    """The reasons for the action were withdrawn or are now too old (promise 13)."""


class ReasonGuard(Protocol):
    """The reasons for an action, checked again inside the transaction that begins it."""

    def refusal(self, reported: tuple[Reason, ...] | None = None) -> str | None:
        """Why no action may begin, given the stored reports; None while a reason holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What became of an attempt to begin an intent, and why it was not begun."""

    begun: Begun
    reasons: tuple[str, ...] = ()


class IntentRepository(Protocol):
    """Intents under the claim of their incident (promises 2 and 4)."""

    async def add(self, claim: Claim, incident: Incident, intent: Intent, notes: Sequence[Note]) -> Incident:
        """Store a decided intent (state DECIDED, or FINISHED where it was refused or rehearsed).

        An intent with an `approval` uses it up in the same transaction; `ClaimLost`
        when that approval is not APPROVED (any more).
        """
        ...

    async def begin(
        self,
        claim: Claim,
        intent_id: IntentId,
        snapshot: Snapshot | None,
        budget: Budget,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Beginning:
        """DECIDED -> EXECUTING by compare-and-set, durable before it returns (promise 2).

        With nothing changed: BUDGET_SPENT, with the reasons, when the incident has
        its number of intents that began and are no undo, or when one of the limits
        that all incidents share would be exceeded, however many workers ask at once
        (promise 4), or another action of the name, or an undo with the same effect, is
        under way and the budget wants it alone; BRAKED while the kill switch is engaged
        (promise 11); NO_REASON
        when `reasons` refuse it with what is on record of the service in this
        transaction (promise 13); NOT_DECIDED otherwise. An undo neither counts nor is
        braked, and needs no reason, as a notification does not. Adds a timeline entry.
        `Invalid` for an intent that was never allowed, or only rehearsed (promises 1 and 5).
        """
        ...

    async def retry(
        self, claim: Claim, intent_id: IntentId, limit: int, at: datetime, reasons: ReasonGuard | None = None
    ) -> Begun:
        """Count one more attempt at an intent that is EXECUTING, durable before it returns.

        BUDGET_SPENT when it had `limit` attempts, BRAKED and NO_REASON as for
        `begin`. Adds a timeline entry.
        """
        ...

    async def finish(
        self,
        claim: Claim,
        intent_id: IntentId,
        outcome: Outcome,
        applied_token: str | None,
        notes: Sequence[Note],
    ) -> None:
        """EXECUTING or DECIDED -> FINISHED with its outcome; finishing twice is `ClaimLost`."""
        ...

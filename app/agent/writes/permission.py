"""Whether a write that was decided may still be made, asked right before each attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.agent.execution.recheck import lapsed
from app.agent.freshness.reasons import Reasons
from app.agent.guardrails.gather import Gatherer
from app.agent.models import IncidentRecord, Intent
from app.agent.policy import Policy
from app.agent.ports.store import Store
from app.agent.reason_check import ReasonCheck
from app.clock import Clock
from app.errors import PermanentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """Reads reasons, guardrails and the kill switch again for one write."""

    store: Store
    policy: Policy
    clock: Clock
    check: ReasonCheck
    gathering: Callable[[], Gatherer]
    """Makes a gatherer with the settings in force at the call: they may change between two attempts."""
    can_write: bool

    async def reasons(self, record: IncidentRecord, intent: Intent) -> Reasons | None:
        """The current reasons for the intent; None for an undo, which needs no reason (promise 13)."""
        if intent.undoes is not None:
            return None
        return (await self.check.examine(record.incident)).reasons

    def lapsed(self, record: IncidentRecord, intent: Intent, *, under_way: bool = False) -> str | None:
        """Why the decision no longer holds, as far as time and settings go; None if it holds."""
        limits, now = self.policy.limits, self.clock.now()
        return lapsed(record, intent, limits, now, can_write=self.can_write, under_way=under_way)

    async def stopped(self, record: IncidentRecord, intent: Intent, *, under_way: bool = False) -> str | None:
        """What now forbids another attempt or step of a write; its own undo continues (promise 11)."""
        if intent.own_undo:
            return None
        switch = await self.store.guardrails.kill_switch()
        if switch is not None and switch.engaged:
            return "the kill switch is engaged now"
        try:
            lapse = self.lapsed(record, intent, under_way=under_way)
            key = record.incident.key
            return lapse or await self.gathering().objection(key, intent, under_way=under_way)
        except PermanentError as error:
            return f"whether it is still allowed cannot be read: {error}"

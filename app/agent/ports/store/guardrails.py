"""Guardrails that all workers share: kill switch, circuit breakers, and the actions that limits count."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from app.agent.guardrails.limits import History, Limits
from app.agent.guardrails.status import Attempts, CircuitKey
from app.agent.identity.people import Person
from app.agent.ids import ServiceKey
from app.agent.models import KillSwitch


class GuardrailRepository(Protocol):
    """The kill switch and the circuit breakers, shared by all workers."""

    async def kill_switch(self) -> KillSwitch | None:
        """Its last setting; None while it was never touched."""
        ...

    async def set_kill_switch(
        self, setting: KillSwitch, *, person: Person | None = None, nonce: str | None = None
    ) -> None:
        """Engage or release; applies to every intent that has not committed yet.

        Adds an entry to the audit trail, in the name of `person`, else of `setting.by`, unverified.
        `Conflict`, and nothing is changed, for a `nonce` seen before; `Invalid` without the name of the
        person who sets it.
        """
        ...

    async def close_circuit(self, key: CircuitKey, said: KillSwitch, *, person: Person | None = None) -> None:
        """Forget failures before `said.at` for the breaker of one service or of one cluster.

        Adds an entry to the audit trail, as `set_kill_switch` does.
        """
        ...


class BudgetRepository(Protocol):
    """The started actions that limits and circuit breakers count."""

    async def recent_actions(self, key: ServiceKey, limits: Limits, at: datetime) -> History:
        """What began before and matters to an action on that service now."""
        ...

    async def attempts(self, since: datetime) -> Attempts:
        """What began since then on any service, as circuit breakers see it; the newest 2,000."""
        ...

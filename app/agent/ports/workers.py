"""The engine that drives incidents, and the processes that share one store."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from app.agent.ids import (
    IncidentId,
)


class Runner(Protocol):
    """Moves incidents on; the engine behind it is not the loop's business."""

    async def wake(self, incident_id: IncidentId) -> None:
        """Look for due work now instead of at the next poll; safe to repeat, and to lose."""
        ...


class Fleet(Protocol):
    """The processes of the agent that share one store: who is alive, who leads, who rang."""

    async def enter(self, owner: str) -> None:
        """Count as alive from now on, until `leave` or the death of this process.

        Registers again automatically after the connection to the store breaks.
        """
        ...

    async def reap(self) -> tuple[str, ...]:
        """Void the claims and leases of owners that died, and say who; their incidents are due at once."""
        ...

    async def elect(self, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
        """Take or renew the lease of a duty that one process does for all; False while another holds it."""
        ...

    async def resign(self, duty: str, owner: str) -> None:
        """Give a duty back, so that a peer need not wait for the lease."""
        ...

    async def woken(self) -> None:
        """Return when some process has said that an incident became due; may return for nothing."""
        ...

    async def leave(self) -> None:
        """Leave: claims and leases are free at once. May be called twice."""
        ...

"""Claims: the right to move an incident, and the queue of due incidents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.agent.ids import FencingToken, IncidentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to move one incident, until it expires or a newer token is given out."""

    incident_id: IncidentId
    owner: str
    token: FencingToken
    expires_at: datetime
    interruptions: int = 0
    """How many holders in a row did not release it: they died, or were cut off."""
    nudges: int = 0
    """How often the incident had been made due from outside when this was taken."""


class ClaimRepository(Protocol):
    """Who moves which incident, and which are due (promise 3)."""

    async def take(
        self, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
    ) -> Claim | None:
        """Take or renew the incident; None while another owner's lease lives, or a person has taken it over.

        Each take-over raises the token; a renewal by the same owner keeps it.
        """
        ...

    async def renew(self, claim: Claim, lease: timedelta, now: datetime) -> None:
        """Renew the claim for another lease from now.

        Raises `ClaimLost` if the claim was voided or taken over, or the incident is closed; claims no
        further incident.
        """
        ...

    async def take_due(self, owner: str, lease: timedelta, now: datetime, limit: int) -> tuple[Claim, ...]:
        """Claim up to `limit` open incidents that are due and unclaimed, longest due first.

        Of two workers that ask at the same time each incident goes to one. An
        incident is due when it opens, when an approval is answered, and at the
        time its last holder named in `release`.
        """
        ...

    async def next_due(self) -> datetime | None:
        """When the next unclaimed open incident becomes due; None when there is none."""
        ...

    async def release(self, claim: Claim, due_at: datetime | None = None) -> None:
        """Release the claim; the incident is due again at `due_at`. A lost claim is not an error."""
        ...

    async def release_owner(self, owner: str) -> int:
        """Void every claim of an owner known to be dead; how many."""
        ...

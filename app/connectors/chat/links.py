"""Where people find an incident or a request on this agent's pages, as `PUBLIC_URL` says. Pure.

Used by every channel; without the setting there is nothing to link to, and the
messages say how to answer by command instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from app.agent.ids import ApprovalId, IncidentId
from app.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Addresses of pages."""

    base: str | None = None
    """Without a slash at its end."""

    @staticmethod
    def from_settings(settings: Settings) -> Links:
        """`app.config` has checked that a browser can open it."""
        return Links() if settings.public_url is None else Links(base=settings.public_url.rstrip("/"))

    def incident(self, incident_id: IncidentId) -> str | None:
        return None if self.base is None else f"{self.base}/dashboard/incidents/{quote(incident_id, safe='')}"

    def approval(self, approval_id: ApprovalId) -> str | None:
        return None if self.base is None else f"{self.base}/approvals/{quote(approval_id, safe='')}/page"

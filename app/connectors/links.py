"""Where people find an incident or a request on this agent's pages, as `PUBLIC_URL` says. Pure.

Used by every channel; without the setting there is nothing to link to, and the
messages say how to answer by command instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from app.agent.models import ApprovalId, IncidentId
from app.config import Settings
from app.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Addresses of pages."""

    base: str | None = None
    """Without a slash at its end."""

    @staticmethod
    def from_settings(settings: Settings) -> Links:
        """Raises `ConfigurationError` for a `PUBLIC_URL` that no browser could open."""
        if settings.public_url is None:
            return Links()
        text = settings.public_url.rstrip("/")
        try:
            parts = urlsplit(text)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()
        except ValueError:
            usable = False
        if not usable or " " in text:
            raise ConfigurationError("PUBLIC_URL must be an address such as https://heal.example.com")
        return Links(base=text)

    def incident(self, incident_id: IncidentId) -> str | None:
        return None if self.base is None else f"{self.base}/dashboard/incidents/{quote(incident_id, safe='')}"

    def approval(self, approval_id: ApprovalId) -> str | None:
        return None if self.base is None else f"{self.base}/approvals/{quote(approval_id, safe='')}/page"

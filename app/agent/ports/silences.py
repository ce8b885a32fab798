"""The ports for the agent's own silences in the monitoring: reading, creating and ending them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.agent.freshness.silences import Matcher, Silence
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceScope:
    """The matchers of a silence for a service, and the alerts that it would mute now."""

    matchers: tuple[Matcher, ...]
    """Exact conditions that name the service and where it runs."""
    muted: int = 0
    """Alerts of the service that fire and would be muted."""
    left: int = 0
    """Alerts of the service that fire and would still notify."""
    others: tuple[str, ...] = ()
    """Other services with alerts that would be muted too."""

    @property
    def words(self) -> str:
        """The conditions as the monitoring writes them."""
        return ", ".join(f'{one.name}="{one.value}"' for one in self.matchers)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSilence:
    """A silence to create. It names its incident and intent, by which it is recognised."""

    key: ServiceKey
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    incident_id: IncidentId
    intent_id: IntentId


class OwnSilences(Protocol):
    """Reads the agent's own silences; read-only."""

    async def own(self, key: ServiceKey, at: datetime) -> tuple[Silence, ...]:
        """The agent's active silences for the service, oldest first; raises like every port."""
        ...

    async def scope(self, key: ServiceKey) -> SilenceScope:
        """The scope of a silence of the service. Raises like every port."""
        ...


class SilenceEnding(Protocol):
    """Ends the silences of an incident that is over. Constructed only when `DRY_RUN=false`."""

    async def end(self, key: ServiceKey, intents: tuple[Intent, ...]) -> int:
        """End the active silences of these intents; returns how many. Idempotent. Raises like every port.

        A silence that a person prolonged stays.
        """
        ...


class SilenceWriter(Protocol):
    """Creates and ends the agent's own silences. Constructed only when `DRY_RUN=false`."""

    async def create(self, wanted: WantedSilence) -> None:
        """Create the silence. Raises `UnknownOutcome` if no answer shows whether it was created."""
        ...

    async def expire(self, silence_id: str) -> None:
        """End the silence now. Idempotent: an ended or missing silence is not an error."""
        ...

"""The agent's own silences in the monitoring: reading and writing, each a port of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.agent.freshness.silences import Matcher, Silence
from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceScope:
    """What a silence of a service has to name, and what it would mute now."""

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
    """Reads the silences of the agent's own; never changes anything."""

    async def own(self, key: ServiceKey, at: datetime) -> tuple[Silence, ...]:
        """Those in force that the agent created for the service, oldest first. Raises like every port."""
        ...

    async def scope(self, key: ServiceKey) -> SilenceScope:
        """What a silence of the service has to name now. Raises like every port."""
        ...


class SilenceEnding(Protocol):
    """Ends the silences of an incident that is over. Constructed only when `DRY_RUN=false`."""

    async def end(self, key: ServiceKey, intents: tuple[Intent, ...]) -> int:
        """End those in force that these intents created; how many. May be repeated. Raises like every port.

        One that a person prolonged is left.
        """
        ...


class SilenceWriter(Protocol):
    """Creates and ends silences of the agent's own. Constructed only when `DRY_RUN=false`."""

    async def create(self, wanted: WantedSilence) -> None:
        """Create it. Raises `UnknownOutcome` where no answer says whether it was created."""
        ...

    async def expire(self, silence_id: str) -> None:
        """End it now; one that has ended or is gone is no error. May be repeated."""
        ...

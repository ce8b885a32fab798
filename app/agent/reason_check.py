"""A fresh check of the reasons for an incident's actions (promise 13).

Run before every decision and again before every write. It only reads; the evaluation
is in `app.agent.freshness.reasons`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app.agent.freshness.reasons import (
    Reason,
    Reasons,
    examined,
    from_signals,
    of_cluster,
)
from app.agent.freshness.silences import Silencing, silenced, unreadable
from app.agent.models import Incident, Observation
from app.agent.observer import Observer
from app.agent.ports.metrics import SilenceSource
from app.agent.slo import SloThresholds
from app.clock import Clock
from app.errors import AgentError

_MAX_SIGNALS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The reasons of an incident, with the look that they were examined by."""

    reasons: Reasons
    seen: Observation
    silenced: tuple[Silencing, ...] = ()
    """The silences in force that take reasons away: the incident waits for their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCheck:
    """Checks reports against the agent's own current observation."""

    observer: Observer
    slo: SloThresholds
    max_age: timedelta
    clock: Clock
    silences: SilenceSource | None = None
    """None: silences are not read."""

    async def examine(self, incident: Incident) -> Examination:
        """Look at the service now. Raises `TransientError` while the store does not answer."""
        seen = await self.observer.look(incident.key, self.clock.now())
        known = of_cluster(await self._reported(incident), incident.cluster)
        found = examined(known, incident.triggers, seen, self.slo)
        found, muting = await self._heeding_silences(incident, found)
        return Examination(
            reasons=Reasons(found=found, max_age=self.max_age, clock=self.clock.now),
            seen=seen,
            silenced=muting,
        )

    async def _heeding_silences(
        self, incident: Incident, found: tuple[Reason, ...]
    ) -> tuple[tuple[Reason, ...], tuple[Silencing, ...]]:
        """Without the reasons that are silenced; without any while silences cannot be read."""
        if self.silences is None:
            return found, ()
        now = self.clock.now()
        try:
            silencings = await self.silences.concerning(incident.key, now)
        except AgentError as error:
            return unreadable(found, str(error), now), ()
        return silenced(found, silencings, now)

    async def _reported(self, incident: Incident) -> tuple[Reason, ...]:
        """What was reported of the service; read from the signals where an older version took them in."""
        store = self.observer.store
        levels = await store.signals.levels(incident.key)
        known = levels.reasons if levels is not None else ()
        if any(reason.trigger in incident.triggers for reason in known):
            return known
        signals = await store.signals.of_incident(incident.id, _MAX_SIGNALS)
        return (*known, *from_signals(signals, self.slo))

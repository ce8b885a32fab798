"""Verify: whether the service recovered, from fresh observations against the SLO over a soak.

`Verifier` only reads; the conclusions from its observations are drawn by
`app.agent.verification.assessment` and `app.agent.verification.verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from app.agent.batch.runs import batch_named
from app.agent.freshness.all_clear import (
    firing_alerts,
)
from app.agent.freshness.own_alerts import without_past_burns
from app.agent.freshness.own_silences import of_others
from app.agent.freshness.reasons import of_cluster
from app.agent.freshness.silences import Silencing
from app.agent.ids import ServiceKey
from app.agent.models import (
    Incident,
    Observation,
)
from app.agent.observer import Observer
from app.agent.ports.metrics import SilenceSource
from app.agent.verification.assessment import Assessment, Health, acted, assess, with_reports
from app.agent.verification.rules import VerifyRules
from app.errors import AgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Observes a service for the loop's verify stage."""

    observer: Observer
    rules: VerifyRules
    silences: SilenceSource | None = None
    """None: silences are not read."""

    def rules_of(self, key: ServiceKey) -> VerifyRules:
        """The rules with the objectives of one service."""
        rules = self.rules if batch_named(key) is None else self.rules.for_batch()
        return replace(rules, slo=rules.slo.of(key))

    async def look(self, incident: Incident, now: datetime) -> tuple[Observation, Assessment]:
        """Observe the incident's service at `now` and assess its health."""
        seen = await self.observer.look(incident.key, now)
        return seen, await self.assess(incident, seen)

    async def assess(
        self,
        incident: Incident,
        seen: Observation,
        silencings: tuple[Silencing, ...] | None = None,
        *,
        superseded: bool = False,
    ) -> Assessment:
        """The health that an observation shows, given the reports on the incident that were not withdrawn.

        `silencings` are the silences in force; None: they are read where an alert fires.
        `superseded`: someone else changed what the verified action had changed.
        """
        health = assess(
            seen,
            incident.triggers,
            self.rules_of(incident.key),
            incident.verification,
            superseded=superseded,
        )
        levels = await self.observer.store.signals.levels(incident.key)
        if levels is None:
            return health
        reported = of_cluster(levels.reasons, incident.cluster)
        if acted(incident.verification):
            terms = self.rules.slo.services.of(incident.key)
            reported = without_past_burns(reported, seen.sli, None if terms is None else terms.budget)
        if silencings is None and health.health is Health.HEALTHY:
            firing = firing_alerts(reported, incident.triggers, seen.at)
            silencings = await self._silencings(incident, seen.at) if firing else ()
        return with_reports(
            health,
            incident,
            seen,
            reported,
            measures=self.observer.metrics is not None,
            silencings=silencings or (),
        )

    async def _silencings(self, incident: Incident, at: datetime) -> tuple[Silencing, ...]:
        """The silences in force, which only explain a verdict; none if they cannot be read."""
        if self.silences is None:
            return ()
        try:
            found = await self.silences.concerning(incident.key, at)
        except AgentError:
            return ()
        active = tuple(one for one in found if one.silence.active(at))
        return await of_others(active, self.observer.store.incidents)

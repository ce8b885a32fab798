"""A fresh check of the reasons for an incident's actions (promise 13).

Run before every decision and again before every write. It only reads; the evaluation
is in `app.agent.freshness.reasons`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.agent.freshness.all_clear import firing_alerts
from app.agent.freshness.clock_jumps import ahead
from app.agent.freshness.own_look import examined
from app.agent.freshness.own_silences import of_others
from app.agent.freshness.reasons import Reason, Reasons, of_cluster
from app.agent.freshness.reports import from_signals
from app.agent.freshness.silences import Muting, Silencing, muting, silenced, unreadable
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
    muting: Muting = field(default_factory=Muting)
    """What mutes every alert of the incident that may fire: the incident waits for its end."""
    silencings: tuple[Silencing, ...] = ()
    """The silences in force."""


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
        recorded, older = await self._reported(incident)
        known = of_cluster((*recorded, *older), incident.cluster)
        found = examined(known, incident.triggers, seen, self.slo.of(incident.key))
        now = self.clock.now()
        try:
            silencings = await self._silencings(incident, now)
        except AgentError as error:
            found = unreadable(found, str(error), now)
            return Examination(reasons=self._reasons(found, recorded), seen=seen)
        firing = firing_alerts(known, incident.triggers, now)
        return Examination(
            reasons=self._reasons(silenced(found, silencings, now)[0], recorded),
            seen=seen,
            muting=muting(firing, silencings, now),
            silencings=silencings,
        )

    def _reasons(self, found: tuple[Reason, ...], recorded: tuple[Reason, ...]) -> Reasons:
        unrecorded = {one.subject for one in found} - {one.subject for one in recorded}
        return Reasons(
            found=found, max_age=self.max_age, clock=self.clock.now, unrecorded=frozenset(unrecorded)
        )

    async def _silencings(self, incident: Incident, now: datetime) -> tuple[Silencing, ...]:
        """The silences in force that may concern the incident's service or its alerts."""
        if self.silences is None:
            return ()
        found = await self.silences.concerning(incident.key, now)
        active = tuple(one for one in found if one.silence.active(now))
        return await of_others(active, self.observer.store.incidents)

    async def _reported(self, incident: Incident) -> tuple[tuple[Reason, ...], tuple[Reason, ...]]:
        """The recorded reasons of the service, and those from the signals if an older version accepted them.

        Only such a version left no record: a reason that is missing from a record was withdrawn and then
        dropped, and is not read from the signals again.
        """
        store = self.observer.store
        levels = await store.signals.levels(incident.key)
        if levels is not None and levels.reasons:
            return levels.reasons, ()
        signals = await store.signals.of_incident(incident.id, _MAX_SIGNALS)
        newest = levels.last_sample if levels is not None else None
        found, now = from_signals(signals, self.slo.of(incident.key), newest), self.clock.now()
        # A record dated in the future may be missing because intake ignored it.
        return (), tuple(one for one in found if not ahead(one.newest, now))

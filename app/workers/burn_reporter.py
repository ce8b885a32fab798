"""Reports services that use up their error budget too fast, and when that is over.

Called by the poller with each measurement. What it counted is in memory: a process that
takes over begins anew, and what it has not observed counts as healthy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.agent.ids import ServiceKey
from app.agent.models import BURN_ALERT, Alert, SliSample, Trigger
from app.agent.services.burn_rates import BudgetUse
from app.agent.services.terms import ServiceCatalogue

_REPEAT_EVERY = timedelta(minutes=5)
"""An alert that goes on is delivered again as often: what is not repeated gets old."""


@dataclass(slots=True)
class _Service:
    use: BudgetUse
    told: Alert | None = None
    """The alert that was delivered and is not over."""
    told_at: SliSample | None = None


@dataclass(slots=True, kw_only=True)
class BurnReporter:
    """Remembers what each service with burn rates used of its budget."""

    services: ServiceCatalogue
    every: timedelta
    """How far apart measurements are."""
    _known: dict[ServiceKey, _Service] = field(default_factory=dict)

    def changed(self, key: ServiceKey, sample: SliSample) -> Alert | None:
        """The alert to deliver now: that a service burns, goes on burning, or no longer does."""
        terms = self.services.of(key)
        budget = None if terms is None else terms.budget
        known = self._known.get(key)
        if budget is None or known is None or known.use.budget != budget:
            told = None if known is None else known.told
            self._known.pop(key, None)
            if budget is None:
                return None if told is None else replace(told, firing=False)
            known = self._known[key] = _Service(use=BudgetUse(budget), told=told)
        if sample.error_rate is None:
            return None  # no data is no end of anything
        rate = 1.0 if sample.request_rate is None else sample.request_rate
        known.use.add(sample.at, sample.error_rate, rate * self.every.total_seconds())
        return self._alert(key, known, sample)

    def _alert(self, key: ServiceKey, known: _Service, sample: SliSample) -> Alert | None:
        burning = known.use.burning(sample.at)
        if burning is None:
            return None if known.told is None else replace(known.told, firing=False)
        if known.told is None:
            return Alert(
                name=BURN_ALERT,
                firing=True,
                fingerprint=f"burn-{key}",
                starts_at=sample.at,
                trigger=Trigger.HIGH_ERROR_RATE,
                summary=burning.words,
            )
        recent = known.told_at is not None and sample.at - known.told_at.at < _REPEAT_EVERY
        return None if recent else known.told

    def delivered(self, key: ServiceKey, alert: Alert, sample: SliSample) -> None:
        """The alert is durable: it is delivered again only as a repeat."""
        known = self._known.get(key)
        if known is not None:
            known.told = alert if alert.firing else None
            known.told_at = sample

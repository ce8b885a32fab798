"""The agent's own alerts about single services: error budgets that burn, levels that are not usual.

Called by the poller with each measurement. What was counted is in memory: a process that
takes over begins without them. For burn rates, what it has not observed counts as healthy; a
baseline has a warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.evidence.baselines.comparison import unusual, usual_level, words
from app.agent.evidence.baselines.learned import Baselines
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY
from app.agent.ids import ServiceKey
from app.agent.models import BURN_ALERT, UNUSUAL_ALERT, Alert, SliSample, Trigger
from app.agent.services.burn_rates import BudgetUse, ErrorBudget
from app.agent.services.terms import ServiceCatalogue, ServiceTerms

_REPEAT_EVERY = timedelta(minutes=5)
"""An alert that goes on is delivered again as often: what is not repeated gets old."""

UNUSUAL_FOR = timedelta(minutes=5)
"""A level that left its baseline opens an incident once it has lasted for so long."""

_TRIGGERS = {ERROR_RATE: Trigger.HIGH_ERROR_RATE, LATENCY: Trigger.HIGH_LATENCY}


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastDelivery:
    """An alert that was delivered and is not over."""

    alert: Alert
    at: datetime


@dataclass(slots=True, kw_only=True)
class ServiceAlerts:
    """Remembers what each service used of its budget, and which alerts it has."""

    services: ServiceCatalogue
    baselines: Baselines
    every: timedelta
    """How far apart measurements are."""
    _uses: dict[ServiceKey, BudgetUse] = field(default_factory=dict)
    _unusual_since: dict[tuple[ServiceKey, str], datetime] = field(default_factory=dict)
    _delivered: dict[tuple[ServiceKey, str], _LastDelivery] = field(default_factory=dict)
    """By service and fingerprint."""

    def changed(self, key: ServiceKey, sample: SliSample) -> list[Alert]:
        """The alerts to deliver now: that one begins, goes on, or is over. No data is no end of anything."""
        terms = self.services.of(key)
        wanted: dict[str, Alert | None] = {}
        wanted |= self._burn(key, None if terms is None else terms.budget, sample)
        wanted |= self._unusual(key, terms, sample)
        due = (self._due(key, fingerprint, alert, sample.at) for fingerprint, alert in wanted.items())
        # Learned afterwards: a sample is compared with those before it.
        self.baselines.learn(key, sample)
        return [alert for alert in due if alert is not None]

    def delivered(self, key: ServiceKey, alert: Alert, at: datetime) -> None:
        """The alert is durable: it is delivered again only as a repeat."""
        if alert.firing:
            self._delivered[key, alert.fingerprint] = _LastDelivery(alert=alert, at=at)
        else:
            self._delivered.pop((key, alert.fingerprint), None)

    def _burn(
        self, key: ServiceKey, budget: ErrorBudget | None, sample: SliSample
    ) -> dict[str, Alert | None]:
        fingerprint = f"burn-{key.environment}/{key.service}"
        if budget is None:
            self._uses.pop(key, None)
            return {fingerprint: None}
        use = self._uses.get(key)
        if use is None or use.budget != budget:
            use = self._uses[key] = BudgetUse(budget)
        if sample.error_rate is None:
            return {}
        rate = 1.0 if sample.request_rate is None else sample.request_rate
        use.add(sample.at, sample.error_rate, rate * self.every.total_seconds())
        burning = use.burning(sample.at)
        if burning is None:
            return {fingerprint: None}
        return {
            fingerprint: _alert(BURN_ALERT, fingerprint, sample.at, Trigger.HIGH_ERROR_RATE, burning.words)
        }

    def _unusual(
        self, key: ServiceKey, terms: ServiceTerms | None, sample: SliSample
    ) -> dict[str, Alert | None]:
        found: dict[str, Alert | None] = {}
        levels = self.baselines.usual([key]) if terms is not None and terms.on_baseline else ()
        for indicator, trigger in _TRIGGERS.items():
            fingerprint, value = f"unusual-{trigger}-{key.environment}/{key.service}", indicator.of(sample)
            if levels and value is None:
                continue
            level, place = usual_level(levels, key, indicator), (key, fingerprint)
            if level is None or value is None or not unusual(level, indicator, value):
                self._unusual_since.pop(place, None)
                found[fingerprint] = None
                continue
            since = self._unusual_since.setdefault(place, sample.at)
            if sample.at - since >= UNUSUAL_FOR:
                said = words(level, indicator, value)
                found[fingerprint] = _alert(UNUSUAL_ALERT, fingerprint, since, trigger, said)
        return found

    def _due(self, key: ServiceKey, fingerprint: str, wanted: Alert | None, at: datetime) -> Alert | None:
        last = self._delivered.get((key, fingerprint))
        if last is None:
            return wanted
        if wanted is None:
            return replace(last.alert, firing=False)
        return last.alert if at - last.at >= _REPEAT_EVERY else None


def _alert(name: str, fingerprint: str, since: datetime, trigger: Trigger, summary: str) -> Alert:
    return Alert(
        name=name, firing=True, fingerprint=fingerprint, starts_at=since, trigger=trigger, summary=summary
    )

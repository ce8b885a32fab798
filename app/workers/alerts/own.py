"""The agent's own alerts about single services: burning error budgets, unusual levels.

Called by the poller with each measurement. The counts are in memory: a process that takes over starts
without them. For burn rates, unobserved time counts as healthy; a baseline has a warm-up. The process takes
over the recorded alerts, and ends them once it has measured long enough to know that they have ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.evidence.baselines.comparison import unusual, usual_level, words
from app.agent.evidence.baselines.learned import Baselines
from app.agent.evidence.symptoms import ERROR_RATE, LATENCY
from app.agent.freshness.own_alerts import is_own_alert
from app.agent.freshness.reasons import Reason, alert_identity, alert_name
from app.agent.ids import ServiceKey
from app.agent.models import BURN_ALERT, UNUSUAL_ALERT, Alert, SliSample, Trigger
from app.agent.services.burn_rates import BudgetUse, ErrorBudget
from app.agent.services.terms import ServiceCatalogue, ServiceTerms

_REPEAT_EVERY = timedelta(minutes=5)
"""How often an alert that still fires is delivered again, so that its reason stays fresh."""

UNUSUAL_FOR = timedelta(minutes=5)
"""A deviation from the baseline opens an incident once it has lasted this long."""

_TRIGGERS = {ERROR_RATE: Trigger.HIGH_ERROR_RATE, LATENCY: Trigger.HIGH_LATENCY}


@dataclass(frozen=True, slots=True, kw_only=True)
class _LastDelivery:
    """An alert that was delivered and is not over."""

    alert: Alert
    at: datetime


@dataclass(slots=True, kw_only=True)
class ServiceAlerts:
    """Stores the used error budget and the alerts of each service."""

    services: ServiceCatalogue
    baselines: Baselines
    every: timedelta
    """How far apart measurements are."""
    _uses: dict[ServiceKey, BudgetUse] = field(default_factory=dict)
    _unusual_since: dict[tuple[ServiceKey, str], datetime] = field(default_factory=dict)
    _delivered: dict[tuple[ServiceKey, str], _LastDelivery] = field(default_factory=dict)
    """By service and fingerprint."""
    _recalled: set[ServiceKey] = field(default_factory=set)

    def begin(self) -> None:
        """Another process may have delivered alerts in between: take over the recorded ones again."""
        self._delivered.clear()
        self._recalled.clear()

    def takes_over(self, key: ServiceKey) -> bool:
        """Whether the alerts of a service that are on record were not taken over yet."""
        return key not in self._recalled

    def recall(self, key: ServiceKey, reasons: Iterable[Reason]) -> None:
        """Take over the alerts on record, so that they are repeated and ended as if delivered here."""
        self._recalled.add(key)
        for reason in sorted(reasons, key=lambda one: one.last_true_at):
            alert = _on_record(reason)
            if alert is not None:
                self._delivered[key, alert.fingerprint] = _LastDelivery(alert=alert, at=reason.last_true_at)

    def keep(self, keys: Collection[ServiceKey]) -> None:
        """Forget the services that are not among these."""
        known = set(keys)
        self.baselines.keep(known)
        self._recalled &= known
        for gone in self._uses.keys() - known:
            del self._uses[gone]
        for place in [one for one in (*self._delivered, *self._unusual_since) if one[0] not in known]:
            self._delivered.pop(place, None)
            self._unusual_since.pop(place, None)

    def changed(self, key: ServiceKey, sample: SliSample) -> list[Alert]:
        """The alerts to deliver now: begun, continuing or ended. Missing data does not end an alert."""
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
        burning = use.burning(sample.at, before=(key, fingerprint) in self._delivered)
        if burning is None:
            return {fingerprint: None} if use.knows_its_end(sample.at) else {}
        return {
            fingerprint: _alert(BURN_ALERT, fingerprint, sample.at, Trigger.HIGH_ERROR_RATE, burning.words)
        }

    def _unusual(
        self, key: ServiceKey, terms: ServiceTerms | None, sample: SliSample
    ) -> dict[str, Alert | None]:
        found: dict[str, Alert | None] = {}
        wanted = terms is not None and terms.on_baseline
        levels = self.baselines.usual([key]) if wanted else ()
        for indicator, trigger in _TRIGGERS.items():
            fingerprint, value = f"unusual-{trigger}-{key.environment}/{key.service}", indicator.of(sample)
            level, place = usual_level(levels, key, indicator), (key, fingerprint)
            if wanted and (level is None or value is None):
                continue
            if level is None or value is None or not unusual(level, indicator, value):
                self._unusual_since.pop(place, None)
                found[fingerprint] = None
                continue
            since = min(self._unusual_since.get(place, sample.at), sample.at)
            self._unusual_since[place] = since
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
        return None if timedelta(0) <= at - last.at < _REPEAT_EVERY else last.alert


def _alert(name: str, fingerprint: str, since: datetime, trigger: Trigger, summary: str) -> Alert:
    return Alert(
        name=name, firing=True, fingerprint=fingerprint, starts_at=since, trigger=trigger, summary=summary
    )


def _on_record(reason: Reason) -> Alert | None:
    """The alert of the agent's own that a reason is about, if it fires."""
    name = alert_name(reason)
    if not is_own_alert(reason) or reason.withdrawn is not None or name not in (BURN_ALERT, UNUSUAL_ALERT):
        return None
    fingerprint, _, start = alert_identity(reason).rpartition("@")
    return _alert(name, fingerprint, datetime.fromisoformat(start), reason.trigger, "")

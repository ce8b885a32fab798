"""Which reasons for an action hold, computed from the text of promise 13 alone.

Receives reports, measurements and observations in the order of events. Independent of
the product's own code; lenient where one process cannot know what another measured.
Times are seconds from a common start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.agent.models import Alert, ClusterCondition, Deploy, DeployStatus, MetricSample, Signal, Trigger

MAX_ERROR_RATE = 0.05
_CLEAR = 0.8 * MAX_ERROR_RATE
_REPEAT_APART = 12.0
"""Repeats of an alert after its end that are further apart than this count; clocks may differ a little."""
_NEVER = -1e12


@dataclass(kw_only=True)
class ReportedAlert:
    """One alert with one start."""

    fired_at: float
    fingerprint: str = ""
    began: float = 0.0
    over: bool = False
    severity: str | None = None
    repeats: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An answer of the agent's own metric source."""

    at: float
    answered: bool
    """False: it could not measure."""
    error_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A look at the workload."""

    at: float
    unhealthy: bool
    whole: bool


@dataclass(frozen=True, kw_only=True)
class Muted:
    """What people silence of a service."""

    whole: bool = False
    severities: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Reported:
    """What is known of one service so far."""

    start: datetime
    alerts: dict[str, ReportedAlert] = field(default_factory=dict)
    bad_at: float | None = None
    good_at: float = _NEVER
    conditions: dict[str, float] = field(default_factory=dict)
    deploy_failed_at: float | None = None
    rates: dict[str, Measured] = field(default_factory=dict)
    """The newest measurement of each process."""
    looks: dict[str, Seen] = field(default_factory=dict)
    mutes: dict[str, Muted] = field(default_factory=dict)
    """The silences that each process read last."""

    def told(self, signal: Signal, at: float) -> None:
        """A signal was recorded at that moment."""
        observed = min((signal.observed_at - self.start).total_seconds(), at)
        match signal.payload:
            case Alert(trigger=Trigger()) as alert:
                self._alert(alert, at)
            case MetricSample(error_rate=float() as rate):
                if rate > MAX_ERROR_RATE and observed > self.good_at:
                    self.bad_at = observed if self.bad_at is None else max(observed, self.bad_at)
                elif rate <= _CLEAR and (self.bad_at is None or observed >= self.bad_at):
                    self.good_at, self.bad_at = observed, None
            case ClusterCondition(present=True) as told:
                self.conditions[told.condition] = max(observed, self.conditions.get(told.condition, observed))
            case Deploy(status=DeployStatus.FAILED):
                self.deploy_failed_at = observed
            case Deploy(status=DeployStatus.SUCCEEDED):
                if self.deploy_failed_at is not None and observed >= self.deploy_failed_at:
                    self.deploy_failed_at = None
            case _:
                pass

    def _alert(self, alert: Alert, at: float) -> None:
        identity = f"{alert.fingerprint}@{alert.starts_at}"
        severity = dict(alert.labels or ()).get("severity")
        began = (alert.starts_at - self.start).total_seconds()
        others = [one for one in self.alerts.values() if one.fingerprint == alert.fingerprint]
        for one in others:
            if one.began < began:  # its end was never delivered: it fires again since
                one.over, one.repeats = True, []
        followed = any(one.began > began and not one.over for one in others)
        new = ReportedAlert(
            fired_at=at,
            fingerprint=alert.fingerprint,
            began=began,
            over=followed or not alert.firing,
            severity=severity,
        )
        known = self.alerts.setdefault(identity, new)
        if followed and alert.firing:
            return
        if not alert.firing:
            known.over, known.repeats = True, []
        elif not known.over:
            known.fired_at = at
        else:
            known.repeats.append(at)
            if at - known.repeats[0] >= _REPEAT_APART:
                known.over, known.fired_at, known.repeats = False, at, []

    @property
    def fires(self) -> bool:
        """Whether an alert was reported that has not ended."""
        return any(not one.over for one in self.alerts.values())

    def reasons(self, process: str, now: float, age: float) -> list[str]:
        """What speaks for acting, as far as that process could know."""
        if self.mutes.get(process, Muted()).whole:
            return []
        return [name for name, at in (*self._metric(process), *self._cluster(process)) if now - at <= age]

    def _metric(self, process: str) -> list[tuple[str, float]]:
        rate = self.rates.get(process)
        if rate is None or not rate.answered:
            return []
        if rate.error_rate is not None and rate.error_rate <= MAX_ERROR_RATE:
            return []
        muted = self.mutes.get(process, Muted()).severities
        found = [
            (name, one.fired_at)
            for name, one in self.alerts.items()
            if not one.over and one.severity not in muted
        ]
        if self.bad_at is not None:
            found.append(("sample", self.bad_at))
        if rate.error_rate is not None:
            found.append(("measured", rate.at))
        return found

    def _cluster(self, process: str) -> list[tuple[str, float]]:
        look = self.looks.get(process)
        if look is not None and look.whole and not look.unhealthy:
            return []
        found = list(self.conditions.items())
        if self.deploy_failed_at is not None:
            found.append(("deploy", self.deploy_failed_at))
        if look is not None and look.unhealthy:
            found.append(("seen", look.at))
        if look is not None and not look.whole and self.deploy_failed_at is not None:
            found.append(("unfinished", look.at))
        return found

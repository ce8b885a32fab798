"""The metric poller: queries the metric source for every known service, reports breaches to intake.

Many services are queried concurrently, within a bound, and nothing else waits for the answers. Healthy
samples end here and cost no write; a sample is reported if it breaches the SLO, or if a recorded breach may
have ended. A source without usable answers is one separate incident, regardless of the number of services.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.guardrails.limits.clusters import UNNAMED
from app.agent.ids import ServiceKey
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.models import (
    METRICS_SOURCE,
    POLLED,
    Alert,
    MetricSample,
    SliSample,
    cluster_source,
)
from app.agent.ports.cluster import ClusterReader
from app.agent.ports.metrics import MetricSource
from app.agent.ports.store.signals import SignalRepository
from app.agent.slo import SloThresholds
from app.clock import Clock
from app.connectors.observability import polled
from app.errors import AgentError
from app.workers.alerts.own import ServiceAlerts
from app.workers.telemetry_reporter import TelemetryFaults

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """Polls one metric source for the life of the process."""

    source: MetricSource
    reader: ClusterReader
    signals: SignalRepository
    intake: Intake
    slo: SloThresholds
    clock: Clock
    every: timedelta
    stale_after: timedelta
    at_once: int = 8
    """Services that are asked about side by side."""
    cluster_faults: Callable[[], Mapping[str, str | None]] = dict
    """Of each of several clusters, why it did not list its services when last asked; empty for one."""
    alerts: ServiceAlerts | None = None
    """The agent's own alerts, in addition to breaches of thresholds."""
    faults: TelemetryFaults = field(default_factory=TelemetryFaults)
    """What cannot be measured by, reported once for each source."""

    async def run(self) -> None:
        """Poll until cancelled; a source or cluster out of reach is tried again next time."""
        if self.alerts is not None:
            self.alerts.begin()
        while True:
            try:
                await self.poll()
            except AgentError as error:
                log.warning("polling service levels failed: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def poll(self) -> None:
        """One round over every service that the cluster knows."""
        at = self.clock.now()
        try:
            keys = await self.reader.services()
        except AgentError as error:
            await self._report_clusters(str(error))
            raise
        await self._report_clusters(None)
        answers, refused = [], None
        async for key, answer in polled(self.source, keys, at, concurrency=self.at_once):
            answers.append((key, answer))
            if isinstance(answer, AgentError):
                log.warning("no service levels of %s: %s", key, answer)
                continue
            try:
                if await self._is_news(key, answer):
                    await self._report_sample(key, answer)
                await self._alert(key, answer)
            except AgentError as error:
                refused = error  # the others are reported all the same
        if self.alerts is not None:
            self.alerts.keep(keys)
        await self._report(METRICS_SOURCE, self.faults.in_round(answers, at))
        if refused is not None:
            raise refused

    async def _report_clusters(self, fault: str | None) -> None:
        """Report each cluster that did not list its services; `fault`: of the one cluster without a name."""
        for name, one in (self.cluster_faults() or {UNNAMED: fault}).items():
            await self._report(cluster_source(name), one)

    async def _is_news(self, key: ServiceKey, sample: SliSample) -> bool:
        """A breach, or a sample that may end a breach on record: only then the record is read."""
        slo = self.slo.of(key)
        if slo.breaches(sample):
            return True
        measured = sample.error_rate is not None or sample.p95_latency_ms is not None
        if not measured or slo.too_few(sample.request_rate):
            return False
        levels = await self.signals.levels(key)
        return levels is not None and any(levels.breached)

    async def _alert(self, key: ServiceKey, sample: SliSample) -> None:
        """Report alerts of the agent's own, and when they are over."""
        if self.alerts is None:
            return
        if self.alerts.takes_over(key):
            levels = await self.signals.levels(key)
            self.alerts.recall(key, () if levels is None else levels.reasons)
        for alert in self.alerts.changed(key, self.slo.of(key).judged(sample)):
            await self._accept(key, alert, POLLED)
            self.alerts.delivered(key, alert, sample.at)

    async def _report(self, source: ServiceKey, fault: str | None) -> None:
        """Have intake open one incident for a source that gives no usable answers, and see it end."""
        alert = self.faults.changed(source, fault, self.clock.now(), self.slo.breach_for)
        if alert is not None:
            await self._accept(source, alert, "telemetry")
            self.faults.delivered(source, alert)

    async def _accept(self, key: ServiceKey, alert: Alert, source: str) -> None:
        now = self.clock.now()
        signal = new_signal(
            key=key,
            source=source,
            observed_at=now,
            received_at=now,
            payload=alert,
            stale_after=self.stale_after,
        )
        await self.intake.accept([signal])

    async def _report_sample(self, key: ServiceKey, sample: SliSample) -> None:
        signal = new_signal(
            key=key,
            source=POLLED,
            observed_at=sample.at,
            received_at=self.clock.now(),
            payload=MetricSample(
                error_rate=sample.error_rate,
                p95_latency_ms=sample.p95_latency_ms,
                request_rate=sample.request_rate,
            ),
            stale_after=self.stale_after,
        )
        await self.intake.accept([signal])

"""The metric poller: asks the metric source about every known service, tells intake of breaches.

Healthy samples end here and cost no write; a sample is told when it breaks the
SLO, or when a breach on record may have ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from app.agent.intake import Intake
from app.agent.models import POLLED, MetricSample, ServiceKey, SliSample
from app.agent.observer import new_signal
from app.agent.ports import ClusterReader, MetricSource, ServiceLevels, SignalStore
from app.agent.slo import SloThresholds
from app.clock import Clock
from app.connectors.observability import poll_once
from app.errors import AgentError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poller:
    """Polls one metric source for the life of the process."""

    source: MetricSource
    reader: ClusterReader
    store: SignalStore
    intake: Intake
    slo: SloThresholds
    clock: Clock
    every: timedelta
    stale_after: timedelta

    async def run(self) -> None:
        """Poll until cancelled; a source or cluster out of reach is tried again next time."""
        while True:
            try:
                await self.poll()
            except AgentError as error:
                log.warning("service levels could not be polled: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def poll(self) -> None:
        """One round over every service that the cluster knows."""
        at = self.clock.now()
        keys = await self.reader.services()
        for key, answer in await poll_once(self.source, keys, at):
            if isinstance(answer, AgentError):
                log.warning("no service levels of %s: %s", key, answer)
            elif _worth_telling(answer, await self.store.levels(key), self.slo):
                await self._tell(key, answer)

    async def _tell(self, key: ServiceKey, sample: SliSample) -> None:
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


def _worth_telling(sample: SliSample, levels: ServiceLevels | None, slo: SloThresholds) -> bool:
    if slo.breaches(sample):
        return True
    if levels is None or slo.too_few(sample.request_rate):
        return False
    measured = sample.error_rate is not None or sample.p95_latency_ms is not None
    return measured and any(levels.breached)

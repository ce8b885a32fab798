"""Reports a telemetry fault of the agent's own when the watchdog alert stays away, and its end.

The fault opens an incident of the source of alerts, which notifies people and leads to no
action (promise 8). One process does it for all; a repeated report is recognised by intake.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.agent.freshness.watchdog import WatchdogTerms, missing_words
from app.agent.intake import Intake
from app.agent.intake.signals import new_signal
from app.agent.models import ALERTS_SOURCE
from app.agent.ports.store.signals import SignalRepository
from app.clock import Clock
from app.connectors.readiness import watchdog_now
from app.errors import AgentError
from app.workers.telemetry_reporter import TelemetryFaults

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogReporter:
    """Compares the last delivery of the watchdog alert with its longest silence."""

    terms: WatchdogTerms
    signals: SignalRepository
    intake: Intake
    clock: Clock
    stale_after: timedelta
    every: timedelta = timedelta(seconds=15)
    faults: TelemetryFaults = field(default_factory=TelemetryFaults)

    async def run(self) -> None:
        """Check until cancelled; a store out of reach is tried again."""
        while True:
            try:
                await self.check()
            except AgentError as error:
                log.warning("checking the watchdog alert failed: %s", error)
            await self.clock.sleep(self.every.total_seconds())

    async def check(self) -> None:
        """Report the fault once, and its end once."""
        now = self.clock.now()
        state = await watchdog_now(self.signals, self.terms, self.clock)
        fault = missing_words(self.terms, state) if state.missing else None
        alert = self.faults.changed(ALERTS_SOURCE, fault, now, timedelta())
        if alert is None:
            return
        if alert.firing and state.since is not None:  # the same for every process that reports this fault
            alert = replace(alert, starts_at=state.since + self.terms.longest_silence)
        (log.error if alert.firing else log.info)(
            "%s", fault or f"the alert {self.terms.alert} is delivered again"
        )
        await self.intake.accept(
            [
                new_signal(
                    key=ALERTS_SOURCE,
                    source="telemetry",
                    observed_at=now,
                    received_at=now,
                    payload=alert,
                    stale_after=self.stale_after,
                )
            ]
        )
        self.faults.delivered(ALERTS_SOURCE, alert)

"""Reports failing metric sources: once for each source, not once for each service.

Called by the poller after every round. Pure, except for its memory of earlier rounds; a process that takes
over the duty starts with empty state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import (
    METRICS_SOURCE,
    Alert,
    SliSample,
    Trigger,
)
from app.connectors.observability import Polled, judge_telemetry
from app.errors import AgentError, PermanentError

_LOOK_BACK = timedelta(minutes=10)
_MAX_TOLD = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    since: datetime
    reported: Alert | None = None
    """The alert that was delivered for it."""


@dataclass(slots=True, kw_only=True)
class TelemetryFaults:
    """Remembers since when each source gives no usable answers."""

    _faults: dict[ServiceKey, _Fault] = field(default_factory=dict)
    _seen: dict[ServiceKey, datetime] = field(default_factory=dict)
    """When each service last had data."""

    def in_round(self, answers: Sequence[Polled], at: datetime) -> str | None:
        """The fault of a round of answers from the metric source; None if it could measure.

        One answer that a retry cannot fix is enough; time-outs and missing answers count if they are more
        than half of all.
        """
        failed = {key: answer for key, answer in answers if isinstance(answer, AgentError)}
        lasting = [error for error in failed.values() if isinstance(error, PermanentError)]
        if lasting or len(failed) * 2 > len(answers):
            first = lasting[0] if lasting else next(iter(failed.values()))
            return f"{len(failed)} of {len(answers)} services have no metrics: {first}"[:_MAX_TOLD]
        now = {key for key, answer in answers if isinstance(answer, SliSample) and not answer.empty}
        known = {key for key, _ in answers}
        before = {key for key, last in self._seen.items() if key in known and at - last <= _LOOK_BACK}
        if METRICS_SOURCE in self._faults:
            before |= self._seen.keys() & known  # silence does not become normal by lasting
        self._seen = {key: last for key, last in self._seen.items() if key in known}
        self._seen.update(dict.fromkeys(now, at))
        health = judge_telemetry(before, now)
        return health.said if health.outage else None

    def changed(self, source: ServiceKey, fault: str | None, at: datetime, lasts: timedelta) -> Alert | None:
        """The alert to deliver now: that a fault has lasted for so long, or that a reported one is over."""
        known = self._faults.get(source)
        if fault is None:
            if known is None or known.reported is None:
                self._faults.pop(source, None)
                return None
            return replace(known.reported, firing=False)
        if known is None:
            known = self._faults[source] = _Fault(since=at)
        if known.reported is not None or at - known.since < lasts:
            return None
        return Alert(
            name="TelemetryFault",
            firing=True,
            fingerprint=f"telemetry-{source.service}",
            starts_at=known.since,
            trigger=Trigger.TELEMETRY_OUTAGE,
            summary=fault,
        )

    def delivered(self, source: ServiceKey, alert: Alert) -> None:
        """The alert is durable: it is not delivered again."""
        if alert.firing:
            self._faults[source] = replace(self._faults[source], reported=alert)
        else:
            self._faults.pop(source, None)

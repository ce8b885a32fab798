"""Whether a revision is a trusted rollback target: it answered enough requests within the SLO.

Pure; called by the historian (`app.agent.memory`) and, for a revision without a
recorded result, by the actions. A release without requests is not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.models import SliSample
from app.agent.slo import SloThresholds

LONGEST_PERIOD = timedelta(hours=1)
"""How far back requests are counted for a service that has few."""

_MOSTLY = 0.95
"""Share of the requests that must be answered while latency is within its objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRules:
    """The requirements for a trusted revision."""

    after: timedelta
    """How long it must have run fully rolled out without a fault."""
    min_requests: int
    """How many requests it must have answered; 0 requires none."""
    window: timedelta = timedelta(0)
    """The window of a measurement; until it has passed, samples include requests to the previous revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTotals:
    """Requests answered in a period, summed over its samples."""

    requests: float
    failed: float
    slow: float
    """Requests of samples whose latency was above the objective."""


def period_of(rules: TrustRules, since: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The period to evaluate: since only this revision runs, at most an hour.

    It begins one window later, and is empty before that.
    """
    return max(since + rules.window, now - max(rules.after, LONGEST_PERIOD)), now


def traffic_in(samples: Sequence[SliSample], slo: SloThresholds, step: timedelta) -> RequestTotals:
    """Each sample covers one `step`; a sample without a request rate counts as no traffic."""
    requests = failed = slow = 0.0
    for sample in samples:
        answered = (sample.request_rate or 0.0) * step.total_seconds()
        requests += answered
        failed += answered * (sample.error_rate or 0.0)
        if sample.p95_latency_ms is not None and sample.p95_latency_ms > slo.max_p95_latency_ms:
            slow += answered
    return RequestTotals(requests=requests, failed=failed, slow=slow)


def objection(traffic: RequestTotals, rules: TrustRules, slo: SloThresholds) -> str | None:
    """Why the traffic of a period is not sufficient for trust; None if it is."""
    if traffic.requests < rules.min_requests:
        return f"answered {traffic.requests:.0f} requests, {rules.min_requests} required"
    if not traffic.requests:
        return None
    if traffic.failed / traffic.requests > slo.max_error_rate:
        return f"failed {traffic.failed / traffic.requests:.1%} of its requests"
    if 1 - traffic.slow / traffic.requests < _MOSTLY:
        return f"answered {traffic.slow / traffic.requests:.1%} of its requests while it was slow"
    return None

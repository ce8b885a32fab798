"""What the properties of healthy samples share: objectives, a reason that stands, and moments around NOW."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st

from app.agent.freshness.reasons import Reason, ReasonKind
from app.agent.models import Trigger
from app.agent.slo import SloThresholds
from tests.contract.store_values import NOW

SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(minutes=1),
    reopen_after=timedelta(hours=1),
)
REASON = Reason(
    trigger=Trigger.HIGH_LATENCY,
    kind=ReasonKind.SAMPLE,
    subject="p95",
    source="http",
    said="the p95",
    last_true_at=NOW,
)


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """NOW and so many minutes, from `first` to `last`."""
    return st.integers(first, last).map(lambda minutes: NOW + timedelta(minutes=minutes))

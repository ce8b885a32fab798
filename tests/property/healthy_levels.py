"""What the properties of healthy samples share: a reason that stands, and moments around NOW."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st

from app.agent.freshness.reasons import Reason, ReasonKind
from app.agent.models import Trigger
from tests.contract.store_values import NOW

REASON = Reason(
    trigger=Trigger.HIGH_LATENCY,
    kind=ReasonKind.SAMPLE,
    subject="p95",
    source="http",
    said="the p95",
    last_true_at=NOW,
)


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Whole minutes from NOW, `first` to `last` of them."""
    return st.integers(first, last).map(lambda minutes: NOW + timedelta(minutes=minutes))

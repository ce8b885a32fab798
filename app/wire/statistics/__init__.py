"""Statistics over HTTP: the query, and the report as JSON and as CSV."""

from __future__ import annotations

from app.wire.statistics.figures import (
    ApprovalStatsView,
    BarView,
    BudgetStatsView,
    CauseView,
    DecisionStatsView,
    EndsView,
    ReasonStatsView,
    RunbookStatsView,
    ServiceStatsView,
    ShadowView,
    ShareView,
    SpreadView,
    TimeSavedView,
    TrendView,
    limit_in_words,
)
from app.wire.statistics.query import StatsQuery
from app.wire.statistics.report import StatsView
from app.wire.statistics.sheet import csv_of

__all__ = [
    "ApprovalStatsView",
    "BarView",
    "BudgetStatsView",
    "CauseView",
    "DecisionStatsView",
    "EndsView",
    "ReasonStatsView",
    "RunbookStatsView",
    "ServiceStatsView",
    "ShadowView",
    "ShareView",
    "SpreadView",
    "StatsQuery",
    "StatsView",
    "TimeSavedView",
    "TrendView",
    "csv_of",
    "limit_in_words",
]

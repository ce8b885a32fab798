"""The figures of a report, one model a table."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Self

from pydantic import BaseModel, Field

from app.agent.analytics.times import BUCKET_SECONDS, Proportion, Spread
from app.agent.models import ActionName, ApprovalState, Cause, DecisionKind, OutcomeKind
from app.durations import span


class BarView(BaseModel):
    """How many durations are shorter than this limit, and not shorter than the one before."""

    below_seconds: int | None = Field(description="Null: no limit.")
    incidents: int


class SpreadView(BaseModel):
    """A distribution of durations in whole seconds; percentiles by nearest rank; null without any."""

    count: int
    mean_seconds: float | None
    p50_seconds: int | None
    p90_seconds: int | None
    p95_seconds: int | None
    p99_seconds: int | None
    longest_seconds: int | None
    bars: list[BarView]

    @classmethod
    def of(cls, spread: Spread) -> Self:
        limits = (*BUCKET_SECONDS, None)
        return cls(
            count=spread.count,
            mean_seconds=spread.mean,
            p50_seconds=spread.p50,
            p90_seconds=spread.p90,
            p95_seconds=spread.p95,
            p99_seconds=spread.p99,
            longest_seconds=spread.longest,
            bars=[
                BarView(below_seconds=limit, incidents=number)
                for limit, number in zip(limits, spread.bars, strict=True)
            ],
        )


class ShareView(BaseModel):
    """A share with its Wilson interval at 95%; null where there is nothing to judge by."""

    hits: int
    of: int
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def share_of(cls, share: Proportion) -> Self:
        return cls(hits=share.hits, of=share.of, share=share.value, low=share.low, high=share.high)


class EndsView(BaseModel):
    """Incidents by how they stand."""

    incidents: int
    recovered: int
    recovered_without_action: int
    resolved_by_hand: int
    escalated: int
    proposed: int
    active: int = Field(description="Not ended.")
    restore_seconds_mean: float | None


class CauseView(EndsView):
    """The incidents of one cause."""

    cause: Cause | None = Field(description="Null: not diagnosed.")


class TrendView(EndsView):
    """One day, or one week from its Monday, in UTC."""

    start: date
    detect_seconds_mean: float | None
    acknowledge_seconds_mean: float | None


class ServiceStatsView(BaseModel):
    """The incidents of one service."""

    environment: str
    service: str
    incidents: int
    recovered: int
    escalated: int
    restore_seconds_mean: float | None


class RunbookStatsView(BaseModel):
    """What a runbook achieved: of the incidents in which it acted, those that recovered by its action."""

    runbook: str
    planned: int
    worked: ShareView


class DecisionStatsView(BaseModel):
    """Decisions on actions, and what became of the actions; undos are not among them."""

    action: ActionName
    decision: DecisionKind
    result: OutcomeKind | None = Field(description="Null: not ended.")
    dry_run: bool
    decisions: int


class ReasonStatsView(BaseModel):
    """How often the first reason of a denial, or of asking for an approval, was this one."""

    decision: DecisionKind
    reason: str
    decisions: int


class ApprovalStatsView(BaseModel):
    """Approvals asked for in the period, and how long people took to decide."""

    asked: int
    states: dict[ApprovalState, int]
    wait: SpreadView


class BudgetStatsView(BaseModel):
    """Actions that began, as the limits count them, and the limits in force; null: none is set."""

    actions: int
    busiest_day: date | None = Field(description="In UTC.")
    actions_on_busiest_day: int
    most_of_one_service_on_it: int
    window_seconds: float
    per_service: int | None
    per_cluster: int | None


class TimeSavedView(BaseModel):
    """By how much people would have been slower, under the stated assumption."""

    seconds: int
    incidents: int = Field(description="Those in which an action of the agent worked.")
    manual_minutes: int
    assumption: str


class ShadowView(BaseModel):
    """The proposals of dry runs by one runbook, judged by what happened afterwards."""

    runbook: str
    proposed: int
    confirmed: int = Field(description="A person made a matching change, and the service stayed healthy.")
    contradicted: int = Field(description="A person made a matching change; it failed again within 1 h.")
    not_needed: int = Field(description="The service recovered, and nothing was changed.")
    unknown: int = Field(description="The events do not show it.")
    right: ShareView = Field(description="Confirmed ones of those confirmed, contradicted or not needed.")


def limit_in_words(bar: BarView) -> str:
    """`below 5 m`, or `longer`."""
    if bar.below_seconds is None:
        return "longer"
    return f"below {span(timedelta(seconds=bar.below_seconds))}"

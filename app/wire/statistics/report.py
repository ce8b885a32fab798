"""The report: every figure of the incidents that were opened in a period."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.agent.analytics.report import MOST_REASONS, MOST_SERVICES, Ends, Statistics
from app.agent.evidence.format import counted
from app.agent.guardrails.limits import Limits
from app.agent.models import Cause
from app.agent.responders.attention import IncidentSeverity
from app.wire.statistics.figures import (
    ApprovalStatsView,
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
)


class StatsView(BaseModel):
    """Statistics of the incidents that were opened in a period."""

    since: datetime
    until: datetime
    interval: Literal["day", "week"]
    environment: str | None
    service: str | None
    cause: Cause | None
    severity: IncidentSeverity | None
    ends: EndsView
    detect: SpreadView = Field(description="From the first observation to the opening; stale ones excluded.")
    acknowledge: SpreadView = Field(description="From the opening to the first acknowledgement by a person.")
    restore: SpreadView = Field(description="From the opening to recovery or resolution by hand.")
    trend: list[TrendView] = Field(description="Oldest first.")
    causes: list[CauseView]
    services: list[ServiceStatsView] = Field(description=f"The {MOST_SERVICES} with most incidents.")
    runbooks: list[RunbookStatsView]
    decisions: list[DecisionStatsView] = Field(description="Decided in the period.")
    reasons: list[ReasonStatsView] = Field(description=f"The {MOST_REASONS} most frequent ones.")
    approvals: ApprovalStatsView
    budget: BudgetStatsView
    false_alarms: ShareView = Field(description="Recovered without an action, of the incidents that ended.")
    time_saved: TimeSavedView
    shadow: list[ShadowView]
    outdated_days: int = Field(
        description="Days that changed since they were counted, with the numbers of then: many days "
        "changed at once, and they are counted again within minutes. 0: every number is of now."
    )

    @classmethod
    def of(cls, found: Statistics, limits: Limits) -> Self:
        where, busiest = found.where, found.busiest
        minutes = round(where.manual.total_seconds() / 60)
        return cls(
            since=where.since,
            until=where.until,
            interval="week" if where.weekly else "day",
            environment=where.environment,
            service=where.service,
            cause=where.cause,
            severity=None if where.severity is None else IncidentSeverity(where.severity),
            ends=EndsView(**_ends(found.ends)),
            detect=SpreadView.of(found.detect),
            acknowledge=SpreadView.of(found.acknowledge),
            restore=SpreadView.of(found.restore),
            trend=[
                TrendView(
                    start=point.start,
                    detect_seconds_mean=point.detect_mean,
                    acknowledge_seconds_mean=point.acknowledge_mean,
                    **_ends(point.ends),
                )
                for point in found.trend
            ],
            causes=[CauseView(cause=cause, **_ends(ends)) for cause, ends in found.causes],
            services=_services(found),
            runbooks=[
                RunbookStatsView(
                    runbook=one.runbook, planned=one.planned, worked=ShareView.share_of(one.worked)
                )
                for one in found.runbooks
            ],
            decisions=[
                DecisionStatsView(
                    action=one.action,
                    decision=one.decision,
                    result=one.result,
                    dry_run=one.dry_run,
                    decisions=one.number,
                )
                for one in found.decisions
            ],
            reasons=[
                ReasonStatsView(decision=one.decision, reason=one.reason, decisions=one.number)
                for one in found.reasons
            ],
            approvals=ApprovalStatsView(
                asked=sum(found.approvals.values()),
                states=found.approvals,
                wait=SpreadView.of(found.wait),
            ),
            budget=BudgetStatsView(
                actions=found.actions,
                busiest_day=None if busiest is None else date(1970, 1, 1) + timedelta(days=busiest.day),
                actions_on_busiest_day=0 if busiest is None else busiest.actions,
                most_of_one_service_on_it=0 if busiest is None else busiest.most_of_service,
                window_seconds=limits.window.total_seconds(),
                per_service=limits.per_service,
                per_cluster=limits.per_cluster,
            ),
            false_alarms=ShareView.share_of(found.false_alarms),
            time_saved=TimeSavedView(
                seconds=found.saved_seconds,
                incidents=found.healed,
                manual_minutes=minutes,
                assumption=f"A person would have needed {counted(minutes, 'minute')} for each incident that "
                "an action of the agent healed; the time that the agent needed is subtracted.",
            ),
            shadow=_shadow(found),
            outdated_days=found.outdated,
        )


def _ends(ends: Ends) -> dict[str, int | float | None]:
    return {
        "incidents": ends.incidents,
        "recovered": ends.recovered,
        "recovered_without_action": ends.recovered_without_action,
        "resolved_by_hand": ends.resolved_by_hand,
        "escalated": ends.escalated,
        "proposed": ends.proposed,
        "active": ends.active,
        "restore_seconds_mean": ends.restore_mean,
    }


def _services(found: Statistics) -> list[ServiceStatsView]:
    return [
        ServiceStatsView(
            environment=one.key.environment,
            service=one.key.service,
            incidents=one.incidents,
            recovered=one.recovered,
            escalated=one.escalated,
            restore_seconds_mean=one.restore_seconds / one.restored if one.restored else None,
        )
        for one in found.services
    ]


def _shadow(found: Statistics) -> list[ShadowView]:
    return [
        ShadowView(
            runbook=one.runbook,
            proposed=one.proposed,
            right=ShareView.share_of(one.right),
            **{kind.value: number for kind, number in one.judgements.items()},
        )
        for one in found.shadow
    ]

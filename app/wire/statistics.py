"""Statistics over HTTP: the query, and the report as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.agent.analytics.report import (
    DAILY_UP_TO,
    MANUAL,
    MOST_REASONS,
    MOST_SERVICES,
    Ends,
    Statistics,
    StatsFilter,
)
from app.agent.analytics.times import BUCKET_SECONDS, Proportion, Spread
from app.agent.evidence.format import counted, span
from app.agent.guardrails.limits import Limits
from app.agent.models import ActionName, ApprovalState, Cause, DecisionKind, OutcomeKind
from app.agent.responders.attention import IncidentSeverity
from app.wire.fields import DnsLabel, MomentOrSpan, _plain_digits

Cell: TypeAlias = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MINUTES_OF_A_WEEK = 7 * 24 * 60


class StatsQuery(BaseModel):
    """Query parameters of `GET /v1/stats`: incidents opened with since <= t < until."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: MomentOrSpan = timedelta(days=30)
    until: MomentOrSpan | None = None
    environment: DnsLabel | None = None
    service: DnsLabel | None = None
    cause: Cause | None = None
    severity: IncidentSeverity | None = None
    interval: Literal["auto", "day", "week"] = Field(
        default="auto", description="Of the trend; auto: days up to 92 days, weeks above."
    )
    manual_minutes: Annotated[int, BeforeValidator(_plain_digits)] = Field(
        default=round(MANUAL.total_seconds() / 60),
        ge=0,
        le=_MINUTES_OF_A_WEEK,
        description="The assumption behind the time saved: what a person would have needed for an incident.",
    )

    def filter_at(self, now: datetime) -> StatsFilter:
        """The filter; raises `PydanticCustomError` for a period that is empty."""
        since, until = _moment(self.since, now), now if self.until is None else _moment(self.until, now)
        if since >= until:
            raise PydanticCustomError("empty_period", "is not later than since")
        weekly = self.interval == "week" or (self.interval == "auto" and until - since > DAILY_UP_TO)
        return StatsFilter(
            since=since,
            until=until,
            environment=self.environment,
            service=self.service,
            cause=self.cause,
            severity=self.severity,
            weekly=weekly,
            manual=timedelta(minutes=self.manual_minutes),
        )


def _moment(given: datetime | timedelta, now: datetime) -> datetime:
    """A length of time counts back from now, to the year 1 at most."""
    if isinstance(given, datetime):
        return given
    earliest = datetime(1, 1, 1, tzinfo=now.tzinfo)
    return now - given if given < now - earliest else earliest


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
    unknown: int = Field(description="What happened does not tell.")
    right: ShareView = Field(description="Confirmed ones of those confirmed, contradicted or not needed.")


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


def limit_in_words(bar: BarView) -> str:
    """`below 5 min`, or `longer`."""
    if bar.below_seconds is None:
        return "longer"
    return f"below {span(timedelta(seconds=bar.below_seconds))}"


# ------------------------------------------------------------------ CSV


def csv_of(view: StatsView) -> str:
    """The report as CSV, one figure in a row; no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["section", "item", "figure", "value"])
    for row in _rows(view):
        writer.writerow([_inert(cell) for cell in row])
    return text.getvalue()


def _inert(cell: Cell) -> Cell:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA) else cell


def _rows(view: StatsView) -> Iterator[tuple[Cell, ...]]:
    for name in ("since", "until", "interval", "environment", "service", "cause", "severity"):
        value = getattr(view, name)
        yield "report", "", name, value.isoformat() if isinstance(value, datetime) else value
    yield from _figures("incidents", "", view.ends)
    for section in ("detect", "acknowledge", "restore"):
        yield from _spread_rows(section, getattr(view, section))
    for point in view.trend:
        yield from _figures("trend", point.start.isoformat(), point)
    for cause in view.causes:
        yield from _figures("cause", cause.cause or "not diagnosed", cause)
    for service in view.services:
        yield from _figures("service", f"{service.environment}/{service.service}", service)
    for runbook in view.runbooks:
        yield from _figures("runbook", runbook.runbook, runbook)
        yield from _figures("runbook", runbook.runbook, runbook.worked)
    for decision in view.decisions:
        item = f"{decision.action} {decision.decision}{' (dry run)' if decision.dry_run else ''}"
        yield "decision", item, decision.result or "not ended", decision.decisions
    for reason in view.reasons:
        yield "reason", reason.reason, reason.decision, reason.decisions
    for state, number in view.approvals.states.items():
        yield "approval", "", state, number
    yield from _spread_rows("approval wait", view.approvals.wait)
    yield from _figures("budget", "", view.budget)
    yield from _figures("false alarms", "", view.false_alarms)
    yield from _figures("time saved", view.time_saved.assumption, view.time_saved)
    for score in view.shadow:
        yield from _figures("shadow", score.runbook, score)
        yield from _figures("shadow", score.runbook, score.right)


def _figures(section: str, item: str, model: BaseModel) -> Iterator[tuple[Cell, ...]]:
    """The numbers of a model, each with the name of its field."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield section, item, name, value


def _spread_rows(section: str, spread: SpreadView) -> Iterator[tuple[Cell, ...]]:
    yield from _figures(section, "", spread)
    for bar in spread.bars:
        limit = (
            "longer" if bar.below_seconds is None else f"below {span(timedelta(seconds=bar.below_seconds))}"
        )
        yield section, limit, "incidents", bar.incidents

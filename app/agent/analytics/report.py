"""Statistics of the incidents of a period: the counts, and the report computed from them. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from app.agent.analytics.shadow import Judged
from app.agent.analytics.times import Proportion, Spread, share_of, spread
from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    ApprovalState,
    Cause,
    DecisionKind,
    IncidentState,
    OutcomeKind,
)

MOST_SERVICES = 20
MOST_REASONS = 20
DAILY_UP_TO = timedelta(days=92)
"""A longer period has a trend by week."""
MANUAL = timedelta(minutes=30)
"""The default assumption of how long a person needs for an incident that the agent healed."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFilter:
    """The filter on incidents: opened with since <= t < until; None matches any value."""

    since: datetime
    until: datetime
    environment: str | None = None
    service: str | None = None
    cause: Cause | None = None
    severity: str | None = None
    weekly: bool = False
    """The trend has a point for each week (from Monday) instead of each day."""
    manual: timedelta = MANUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Incidents that are alike in what statistics group by, with the sums of their durations in seconds."""

    day: int
    """Days since 1970-01-01 (UTC)."""
    state: IncidentState
    cause: Cause | None
    """None: not diagnosed, or not known."""
    runbook: str | None
    worked: bool | None
    dry_run: bool
    judged: Judged | None
    incidents: int
    detected: int = 0
    detect_seconds: int = 0
    acknowledged: int = 0
    acknowledge_seconds: int = 0
    restored: int = 0
    restore_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCount:
    """The incidents of one service."""

    key: ServiceKey
    incidents: int
    recovered: int
    escalated: int
    restored: int
    restore_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCount:
    """Decisions on actions that are alike; undos are not among them."""

    action: ActionName
    decision: DecisionKind
    result: OutcomeKind | None
    dry_run: bool
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How often the first reason of a decision that did not allow was this one."""

    decision: DecisionKind
    reason: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOfActions:
    """Actions that began on one day (UTC), and how many of them on the service with most."""

    day: int
    actions: int
    most_of_service: int


class StatsPart(StrEnum):
    """A separately counted part: a field of `Counted`."""

    CELLS = "cells"
    SERVICES = "services"
    DETECT = "detect"
    ACKNOWLEDGE = "acknowledge"
    RESTORE = "restore"
    HEALED = "healed"
    DECISIONS = "decisions"
    REASONS = "reasons"
    APPROVALS = "approvals"
    WAITS = "waits"
    ACTIONS = "actions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The counts of the database for one report. Durations are pairs (whole seconds, frequency)."""

    cells: tuple[Cell, ...] = ()
    services: tuple[ServiceCount, ...] = ()
    detect: tuple[tuple[int, int], ...] = ()
    acknowledge: tuple[tuple[int, int], ...] = ()
    restore: tuple[tuple[int, int], ...] = ()
    """Of incidents that no action of the agent healed."""
    healed: tuple[tuple[int, int], ...] = ()
    """Until the service was healthy again, where an action of the agent worked."""
    decisions: tuple[DecisionCount, ...] = ()
    reasons: tuple[ReasonCount, ...] = ()
    approvals: tuple[tuple[ApprovalState, int], ...] = ()
    waits: tuple[tuple[int, int], ...] = ()
    actions: tuple[DayOfActions, ...] = ()
    outdated: int = 0
    """Days that changed since they were counted, and are here as they were counted then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The number of incidents by state."""

    incidents: int = 0
    recovered: int = 0
    recovered_without_action: int = 0
    resolved_by_hand: int = 0
    escalated: int = 0
    proposed: int = 0
    active: int = 0
    """Not ended."""
    restore_mean: float | None = None
    """Seconds from the opening until the service was healthy again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPoint:
    """One day, or one week from its Monday; means in seconds."""

    start: date
    ends: Ends
    detect_mean: float | None
    acknowledge_mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookResult:
    """The results of a runbook: the incidents in which it acted, and those that recovered with its action."""

    runbook: str
    planned: int
    worked: Proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowScore:
    """The proposals of dry runs by one runbook, judged by what happened afterwards."""

    runbook: str
    proposed: int
    judgements: dict[Judged, int]
    """Each judgement with its count; proposals that are not judged yet are in none."""
    right: Proportion
    """Confirmed ones, of those confirmed, contradicted or not needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The report of a period."""

    where: StatsFilter
    ends: Ends
    detect: Spread
    """From the first observation until the incident was opened."""
    acknowledge: Spread
    """From the opening until the first person acknowledged it."""
    restore: Spread
    """From the opening until the service was healthy again."""
    trend: tuple[TrendPoint, ...]
    causes: tuple[tuple[Cause | None, Ends], ...]
    services: tuple[ServiceCount, ...]
    runbooks: tuple[RunbookResult, ...]
    decisions: tuple[DecisionCount, ...]
    reasons: tuple[ReasonCount, ...]
    approvals: dict[ApprovalState, int]
    wait: Spread
    """From the request of an approval until it was decided by people."""
    actions: int
    """Actions that began, undos not among them."""
    busiest: DayOfActions | None
    false_alarms: Proportion
    """Recovered without an action, and no matching change of a person is known; of those that ended."""
    saved_seconds: int
    healed: int
    """Incidents in which an action of the agent worked."""
    shadow: tuple[ShadowScore, ...] = field(default_factory=tuple)
    outdated: int = 0
    """Days with the figures of their last count; the sweep counts them again within minutes."""


def report(where: StatsFilter, counted: Counted) -> Statistics:
    """Compute the report from the counts."""
    cells = counted.cells
    ends = _ends(cells)
    return Statistics(
        where=where,
        ends=ends,
        detect=spread(counted.detect),
        acknowledge=spread(counted.acknowledge),
        restore=spread((*counted.restore, *counted.healed)),
        trend=_trend(cells, weekly=where.weekly),
        causes=_most_first(_grouped(cells, lambda one: one.cause)),
        services=counted.services,
        runbooks=_runbooks(cells),
        decisions=counted.decisions,
        reasons=counted.reasons,
        approvals=dict(counted.approvals),
        wait=spread(counted.waits),
        actions=sum(day.actions for day in counted.actions),
        busiest=max(counted.actions, key=lambda day: (day.actions, day.day), default=None),
        false_alarms=share_of(
            sum(one.incidents for one in cells if _false_alarm(one)), ends.incidents - ends.active
        ),
        saved_seconds=_saved(counted.healed, round(where.manual.total_seconds())),
        healed=sum(one.incidents for one in cells if one.worked),
        shadow=_shadow(cells),
        outdated=counted.outdated,
    )


def _saved(healed: Iterable[tuple[int, int]], manual: int) -> int:
    """By how many seconds a person is assumed to have been slower."""
    return sum((manual - seconds) * often for seconds, often in healed if seconds < manual)


def start_of(bucket: int, *, weekly: bool) -> date:
    """The day of a bucket; of a week its Monday."""
    return date(1970, 1, 1) + timedelta(days=bucket * 7 - 3 if weekly else bucket)


def _false_alarm(one: Cell) -> bool:
    return one.state is IncidentState.RECOVERED_WITHOUT_ACTION and one.judged is not Judged.CONFIRMED


def _ends(cells: Iterable[Cell]) -> Ends:
    states: Counter[IncidentState] = Counter()
    restored = seconds = 0
    for one in cells:
        states[one.state] += one.incidents
        restored, seconds = restored + one.restored, seconds + one.restore_seconds
    return Ends(
        incidents=states.total(),
        recovered=states[IncidentState.RECOVERED],
        recovered_without_action=states[IncidentState.RECOVERED_WITHOUT_ACTION],
        resolved_by_hand=states[IncidentState.RESOLVED_BY_HAND],
        escalated=states[IncidentState.ESCALATED],
        proposed=states[IncidentState.PROPOSED],
        active=sum(number for state, number in states.items() if not state.closed),
        restore_mean=_mean(seconds, restored),
    )


def _grouped(cells: Iterable[Cell], of: Callable[[Cell], Key]) -> dict[Key, list[Cell]]:
    found: dict[Key, list[Cell]] = defaultdict(list)
    for one in cells:
        found[of(one)].append(one)
    return found


def _most_first(groups: dict[Cause | None, list[Cell]]) -> tuple[tuple[Cause | None, Ends], ...]:
    found = [(cause, _ends(cells)) for cause, cells in groups.items()]
    return tuple(sorted(found, key=lambda one: (-one[1].incidents, one[0] or "")))


def _trend(cells: Sequence[Cell], *, weekly: bool) -> tuple[TrendPoint, ...]:
    """One point for each day or week between the first and the last with an incident."""
    # A week begins on Monday: 1970-01-01 was a Thursday.
    groups = _grouped(cells, lambda one: (one.day + 3) // 7 if weekly else one.day)
    if not groups:
        return ()
    return tuple(
        TrendPoint(
            start=start_of(bucket, weekly=weekly),
            ends=_ends(groups.get(bucket, ())),
            detect_mean=_mean(
                sum(one.detect_seconds for one in groups.get(bucket, ())),
                sum(one.detected for one in groups.get(bucket, ())),
            ),
            acknowledge_mean=_mean(
                sum(one.acknowledge_seconds for one in groups.get(bucket, ())),
                sum(one.acknowledged for one in groups.get(bucket, ())),
            ),
        )
        for bucket in range(min(groups), max(groups) + 1)
    )


def _runbooks(cells: Iterable[Cell]) -> tuple[RunbookResult, ...]:
    found = []
    for runbook, mine in _grouped(cells, lambda one: one.runbook).items():
        if runbook is None:
            continue
        acted = sum(one.incidents for one in mine if one.worked is not None)
        worked = sum(one.incidents for one in mine if one.worked)
        planned = sum(one.incidents for one in mine)
        found.append(RunbookResult(runbook=runbook, planned=planned, worked=share_of(worked, acted)))
    return tuple(sorted(found, key=lambda one: (-one.planned, one.runbook)))


def _shadow(cells: Iterable[Cell]) -> tuple[ShadowScore, ...]:
    found = []
    proposing = [one for one in cells if one.dry_run and one.state.closed and one.judged is not Judged.NONE]
    for runbook, mine in _grouped(proposing, lambda one: one.runbook).items():
        if runbook is None:
            continue
        judgements: dict[Judged, int] = {
            kind: sum(one.incidents for one in mine if one.judged is kind)
            for kind in Judged
            if kind is not Judged.NONE
        }
        right = judgements[Judged.CONFIRMED]
        wrong = judgements[Judged.CONTRADICTED] + judgements[Judged.NOT_NEEDED]
        found.append(
            ShadowScore(
                runbook=runbook,
                proposed=sum(one.incidents for one in mine),
                judgements=judgements,
                right=share_of(right, right + wrong),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.proposed, one.runbook)))


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None

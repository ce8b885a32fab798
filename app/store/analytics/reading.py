"""Rows of counted parts to the values that a report is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from app.agent.analytics.report import (
    MOST_REASONS,
    MOST_SERVICES,
    Cell,
    Counted,
    DayOfActions,
    DecisionCount,
    ReasonCount,
    ServiceCount,
    StatsPart,
)
from app.agent.analytics.shadow import Judged
from app.agent.ids import ServiceKey
from app.agent.models import ActionName, ApprovalState, Cause, DecisionKind, IncidentState, OutcomeKind
from app.store.analytics.counting import Row

Kind = TypeVar("Kind", Cause, Judged, OutcomeKind, IncidentState)


def counted_of(rows: Mapping[StatsPart, Sequence[Row]], outdated: int = 0) -> Counted:
    """The parts that are there; the others are empty. `outdated`: days that changed since their count."""
    return Counted(outdated=outdated, **{part.value: _READERS[part](found) for part, found in rows.items()})


def _cells(rows: Sequence[Row]) -> tuple[Cell, ...]:
    return tuple(map(_cell, rows))


def _cell(row: Row) -> Cell:
    day, state, cause, runbook, worked, dry_run, judged, *sums = row
    incidents, detected, detect, acknowledged, acknowledge, restored, restore = sums
    return Cell(
        day=int(day),
        state=IncidentState(state),
        cause=_known(Cause, cause),
        runbook=runbook,
        worked=worked,
        dry_run=dry_run,
        judged=_known(Judged, judged),
        incidents=incidents,
        detected=detected,
        detect_seconds=detect,
        acknowledged=acknowledged,
        acknowledge_seconds=acknowledge,
        restored=restored,
        restore_seconds=restore,
    )


def _known(kind: type[Kind], value: str | None) -> Kind | None:
    """None too for a value that only a later version knows."""
    return kind(value) if value is not None and value in kind._value2member_map_ else None


def _most_first(rows: Sequence[Row], key: int, most: int | None = None) -> list[Row]:
    """By the first number after the key, then by the key."""
    return sorted(rows, key=lambda row: (-row[key], *(str(part) for part in row[:key])))[:most]


def _services(rows: Sequence[Row]) -> tuple[ServiceCount, ...]:
    return tuple(
        ServiceCount(
            key=ServiceKey(environment=environment, service=service),
            incidents=incidents,
            recovered=recovered,
            escalated=escalated,
            restored=restored,
            restore_seconds=seconds,
        )
        for environment, service, incidents, recovered, escalated, restored, seconds in _most_first(
            rows, 2, MOST_SERVICES
        )
    )


def _durations(rows: Sequence[Row]) -> tuple[tuple[int, int], ...]:
    return tuple((int(seconds), often) for seconds, often in rows)


def _decisions(rows: Sequence[Row]) -> tuple[DecisionCount, ...]:
    return tuple(
        DecisionCount(
            action=ActionName(action),
            decision=DecisionKind(decision),
            result=_known(OutcomeKind, result),
            dry_run=dry_run,
            number=number,
        )
        for action, decision, result, dry_run, number in _most_first(rows, 4)
        if action in ActionName._value2member_map_
    )


def _reasons(rows: Sequence[Row]) -> tuple[ReasonCount, ...]:
    return tuple(
        ReasonCount(decision=DecisionKind(decision), reason=reason, number=number)
        for decision, reason, number in _most_first(rows, 2, MOST_REASONS)
    )


def _approvals(rows: Sequence[Row]) -> tuple[tuple[ApprovalState, int], ...]:
    return tuple(sorted((ApprovalState(state), number) for state, number in rows))


def _actions(rows: Sequence[Row]) -> tuple[DayOfActions, ...]:
    return tuple(
        DayOfActions(day=int(day), actions=number, most_of_service=most) for day, number, most in sorted(rows)
    )


_READERS: Mapping[StatsPart, Callable[[Sequence[Row]], Any]] = {
    StatsPart.CELLS: _cells,
    StatsPart.SERVICES: _services,
    StatsPart.DETECT: _durations,
    StatsPart.ACKNOWLEDGE: _durations,
    StatsPart.RESTORE: _durations,
    StatsPart.HEALED: _durations,
    StatsPart.DECISIONS: _decisions,
    StatsPart.REASONS: _reasons,
    StatsPart.APPROVALS: _approvals,
    StatsPart.WAITS: _durations,
    StatsPart.ACTIONS: _actions,
}

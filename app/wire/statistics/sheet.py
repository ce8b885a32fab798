"""The report as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import TypeAlias

from pydantic import BaseModel

from app.wire.statistics.figures import SpreadView, limit_in_words
from app.wire.statistics.report import StatsView

Cell: TypeAlias = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


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
        yield section, limit_in_words(bar), "incidents", bar.incidents

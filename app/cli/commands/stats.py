"""`heal stats`: how the incidents of a period ended, and how long that took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from pydantic import BaseModel, Field
from rich.table import Table

from app.agent.evidence.format import in_words, share
from app.agent.models import DecisionKind, IncidentState, OutcomeKind
from app.cli.commands.output import printable
from app.schemas import IncidentSummary

MOST = 10_000
"""So many of the newest incidents of the period are counted."""
_RECOVERIES = (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)


class ActionStats(BaseModel):
    """What one action did in a period."""

    carried_out: int = 0
    denied: int = 0
    recovered: int = Field(default=0, description="Incidents with it that ended as recovered.")


class Stats(BaseModel):
    """The incidents of a period. Times in seconds; null without any."""

    incidents: int
    states: dict[str, int]
    causes: dict[str, int]
    services: dict[str, int]
    actions: dict[str, ActionStats]
    recovery_seconds_median: float | None = Field(
        description="From the opening of an incident to its recovery."
    )
    recovery_seconds_longest: float | None
    recovered_share: float | None = Field(description="Of the incidents that ended.")


def stats_of(incidents: Sequence[IncidentSummary]) -> Stats:
    """Counts and times over these incidents."""
    took = [
        (one.closed_at - one.opened_at).total_seconds()
        for one in incidents
        if one.closed_at is not None and one.state in _RECOVERIES
    ]
    ended = [one for one in incidents if one.state.closed]
    return Stats(
        incidents=len(incidents),
        states=_counted(one.state for one in incidents),
        causes=_counted(one.diagnosis.cause for one in incidents if one.diagnosis is not None),
        services=_counted(f"{one.environment}/{one.service}" for one in incidents),
        actions=_actions(incidents),
        recovery_seconds_median=median(took) if took else None,
        recovery_seconds_longest=max(took, default=None),
        recovered_share=len(took) / len(ended) if ended else None,
    )


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(map(str, values)).most_common())


def _actions(incidents: Sequence[IncidentSummary]) -> dict[str, ActionStats]:
    found: dict[str, ActionStats] = {}
    for incident in incidents:
        for name in {action.name for action in incident.actions}:
            mine = [action for action in incident.actions if action.name == name]
            done = sum(a.outcome is OutcomeKind.DONE and not a.dry_run for a in mine)
            one = found.setdefault(name, ActionStats())
            one.carried_out += done
            one.denied += sum(a.decision is DecisionKind.DENY for a in mine)
            one.recovered += done > 0 and incident.state is IncidentState.RECOVERED
    return found


def tables(stats: Stats) -> list[Table]:
    """The counts as tables, and the times as one."""
    listed = [
        _table("STATE", stats.states, words=True),
        _table("CAUSE", stats.causes, words=True),
        _table("SERVICE", stats.services, words=False),
    ]
    actions = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("ACTION", "CARRIED OUT", "DENIED", "RECOVERED"):
        actions.add_column(heading)
    for name, one in stats.actions.items():
        actions.add_row(in_words(name), str(one.carried_out), str(one.denied), str(one.recovered))
    return [one for one in (*listed, actions) if one.row_count]


def sentence(stats: Stats) -> str:
    """The figures that fit into one line."""
    line = f"{stats.incidents} incidents"
    if stats.recovered_share is not None:
        line += f", {share(stats.recovered_share)} of those that ended recovered"
    if stats.recovery_seconds_median is not None:
        line += f", in {stats.recovery_seconds_median:.0f} s (median)"
    return line + "."


def _table(heading: str, counts: dict[str, int], *, words: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading)
    table.add_column("INCIDENTS", justify="right")
    for name, count in counts.items():
        table.add_row(in_words(name) if words else printable(name), str(count))
    return table

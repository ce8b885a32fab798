"""`heal stats`: the statistics of a running agent, or of its SQLite file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from rich.table import Table

from app.agent.analytics.report import report
from app.agent.evidence.format import counted, in_words, share
from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import local_store
from app.cli.commands.output import printable
from app.config import Settings
from app.durations import span
from app.terms import guardrails
from app.wire.field_errors import field_errors
from app.wire.statistics import EndsView, ShareView, SpreadView, StatsQuery, StatsView, csv_of

_ENDS = ("recovered", "recovered_without_action", "resolved_by_hand", "escalated", "proposed", "active")


async def statistics(settings: Settings, url: str | None, given: Mapping[str, str | None]) -> StatsView:
    """The report for these parameters of `GET /v1/stats`; raises `CommandFailed` for one that is invalid."""
    parameters = {name: value for name, value in given.items() if value is not None}
    try:
        query = StatsQuery.model_validate(parameters)
        where = query.filter_at(datetime.now(UTC))
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        raise CommandFailed("; ".join(f"--{one.field} {one.message}: {one.fix}" for one in found)) from error
    except PydanticCustomError as error:
        raise CommandFailed(f"--until {error.message()}") from error
    agent = running_agent(settings, url)
    reply = await agent.ask("/v1/stats", parameters)
    if reply is not None:
        return agent.parsed(StatsView, reply)
    store = await local_store(settings)
    try:
        read = await store.statistics.counted(where)
    finally:
        await store.close()
    return StatsView.of(report(where, read), guardrails(settings).shared)


def as_csv(view: StatsView) -> str:
    """The report as `GET /v1/stats.csv` returns it."""
    return csv_of(view)


def tables(view: StatsView) -> list[Table]:
    """The parts of the report that are not empty."""
    times = (
        ("time to detect", view.detect),
        ("time to acknowledge", view.acknowledge),
        ("time to restore", view.restore),
        ("approval wait", view.approvals.wait),
    )
    found = [
        _table(("END", "INCIDENTS"), [(in_words(name), str(_end(view.ends, name))) for name in _ENDS]),
        _table(("TIME", "NUMBER", "MEAN", "P50", "P95", "LONGEST"), [_times(*one) for one in times]),
        _table(
            ("CAUSE", "INCIDENTS"),
            [(in_words(one.cause or "not diagnosed"), str(one.incidents)) for one in view.causes],
        ),
        _table(
            ("SERVICE", "INCIDENTS", "RECOVERED", "ESCALATED"),
            [
                (
                    f"{one.service} in {one.environment}",
                    str(one.incidents),
                    str(one.recovered),
                    str(one.escalated),
                )
                for one in view.services
            ],
        ),
        _table(
            ("RUNBOOK", "PLANNED", "ACTED", "WORKED"),
            [
                (one.runbook, str(one.planned), str(one.worked.of), _interval(one.worked))
                for one in view.runbooks
            ],
        ),
        _table(
            ("ACTION", "DECISION", "RESULT", "NUMBER"),
            [
                (
                    in_words(one.action) + (" (dry run)" if one.dry_run else ""),
                    in_words(one.decision),
                    in_words(one.result or "not ended"),
                    str(one.decisions),
                )
                for one in view.decisions
            ],
        ),
        _table(
            ("REASON", "DECISION", "NUMBER"),
            [(one.reason, in_words(one.decision), str(one.decisions)) for one in view.reasons],
        ),
        _table(
            ("DRY RUN", "PROPOSED", "CONFIRMED", "CONTRADICTED", "NOT NEEDED", "RIGHT"),
            [
                (
                    one.runbook,
                    *map(str, (one.proposed, one.confirmed, one.contradicted, one.not_needed)),
                    _interval(one.right),
                )
                for one in view.shadow
            ],
        ),
    ]
    return [one for one in found if one.row_count]


def sentence(view: StatsView) -> str:
    """The figures that fit into a few lines."""
    saved = view.time_saved
    return (
        f"{counted(view.ends.incidents, 'incident')} since {view.since:%Y-%m-%d %H:%M} UTC; false alarms: "
        f"{_interval(view.false_alarms)}; {counted(view.budget.actions, 'action')} began.\n"
        f"Time saved: {span(timedelta(seconds=saved.seconds))} "
        f"for {counted(saved.incidents, 'incident')}. {saved.assumption}"
    )


def _end(ends: EndsView, name: str) -> int:
    return int(getattr(ends, name))


def _times(name: str, spread: SpreadView) -> tuple[str, ...]:
    figures = (spread.mean_seconds, spread.p50_seconds, spread.p95_seconds, spread.longest_seconds)
    return (
        name,
        str(spread.count),
        *("-" if value is None else span(timedelta(seconds=value)) for value in figures),
    )


def _interval(found: ShareView) -> str:
    if found.share is None or found.low is None or found.high is None:
        return f"{found.hits} of {found.of}"
    return f"{found.hits} of {found.of}, {share(found.share)} ({share(found.low)} to {share(found.high)})"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", ratio=None if number else 1)
    for row in rows:
        table.add_row(*map(printable, row))
    return table

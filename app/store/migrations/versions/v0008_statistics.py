"""Statistics: what incidents and decisions are counted by, in columns and in one index of each table.

Only additions: programs of the versions before go on while this is applied and
afterwards. What they write is counted without cause, runbook and times until a
process of this version changes it; so statistics are complete once every process is
upgraded. Incidents that ended before are completed here, except for when their first
signal was observed.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_INCIDENT_TEXTS = ("cause", "severity", "runbook", "judged")
_INCIDENT_TIMES = ("began_at", "acknowledged_at", "restored_at")
_INTENT_TEXTS = ("action", "decision", "reason", "result")
_INCIDENT_INDEX = [
    "opened_at",
    "environment",
    "service",
    "cause",
    "severity",
    "state",
    "runbook",
    "worked",
    "dry_run",
    "judged",
    "began_at",
    "acknowledged_at",
    "restored_at",
]
_INTENT_INDEX = [
    "decided_at",
    "environment",
    "service",
    "cause",
    "action",
    "decision",
    "result",
    "dry_run",
    "reason",
]
_PLANNED = "undoes IS NULL AND decided_at IS NOT NULL"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    for name in _INCIDENT_TEXTS:
        op.add_column("incidents", sa.Column(name, sa.Text()))
    op.add_column("incidents", sa.Column("worked", sa.Boolean()))
    for name in _INCIDENT_TIMES:
        op.add_column("incidents", sa.Column(name, time))
    for name in _INTENT_TEXTS:
        op.add_column("intents", sa.Column(name, sa.Text()))
    op.add_column("intents", sa.Column("decided_at", time))
    if op.get_bind().dialect.name == "postgresql":
        _backfill(_pg_text, _pg_time, "CAST({} AS boolean)", "left({}, 200)")
    else:
        _backfill(_sqlite_text, _sqlite_time, "{}", "substr({}, 1, 200)")
    op.create_index("ix_incidents_statistics", "incidents", _INCIDENT_INDEX)
    where = sa.text(_PLANNED)
    op.create_index(
        "ix_intents_statistics", "intents", _INTENT_INDEX, sqlite_where=where, postgresql_where=where
    )


def downgrade() -> None:
    op.drop_index("ix_intents_statistics", "intents")
    op.drop_index("ix_incidents_statistics", "incidents")
    for name in ("decided_at", *reversed(_INTENT_TEXTS)):
        op.drop_column("intents", name)
    for name in (*reversed(_INCIDENT_TIMES), "worked", *reversed(_INCIDENT_TEXTS)):
        op.drop_column("incidents", name)


def _pg_text(column: str, *path: str | int) -> str:
    return f"CAST({column} AS json) #>> '{{{','.join(map(str, path))}}}'"


def _pg_time(column: str, *path: str | int) -> str:
    return f"CAST({_pg_text(column, *path)} AS timestamptz)"


def _sqlite_text(column: str, *path: str | int) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"json_extract({column}, '${steps}')"


def _sqlite_time(column: str, *path: str | int) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f', {_sqlite_text(column, *path)}) || '000'"


def _backfill(text: Callable[..., str], time: Callable[..., str], boolean: str, cut: str) -> None:
    """Rows that no program changes any more: incidents that ended, and all intents."""
    triggers = "CAST(triggers AS TEXT)"
    op.execute(
        "UPDATE incidents SET "  # noqa: S608 - constants
        f"cause = {text('body', 'diagnosis', 'hypotheses', 0, 'cause')}, "
        f"runbook = {text('body', 'plan', 'runbook')}, "
        f"worked = {boolean.format(text('body', 'lesson', 'worked'))}, "
        f"acknowledged_at = {time('body', 'acknowledged', 'at')}, "
        "restored_at = CASE WHEN state IN ('recovered', 'recovered_without_action') THEN closed_at "
        f"WHEN state = 'resolved_by_hand' THEN {time('body', 'resolved', 'at')} END, "
        f"severity = CASE WHEN {triggers} LIKE '%high_error_rate%' THEN 'critical' "
        f"WHEN {triggers} LIKE '%crash_loop%' OR {triggers} LIKE '%pods_unavailable%' "
        f"OR {triggers} LIKE '%high_latency%' THEN 'major' ELSE 'minor' END "
        "WHERE closed_at IS NOT NULL"
    )
    op.execute(
        "UPDATE intents SET "  # noqa: S608 - constants
        f"action = {text('body', 'action', 'name')}, "
        f"decision = {text('body', 'decision', 'kind')}, "
        f"decided_at = {time('body', 'decision', 'at')}, "
        f"result = {text('outcome', 'kind')}, "
        f"reason = CASE WHEN {text('body', 'decision', 'kind')} <> 'allow' "
        f"THEN {cut.format(text('body', 'decision', 'reasons', 0))} END"
    )

"""Roll-ups: counts of whole days, so that statistics of a year need not read every incident.

Only additions. The database itself notes which counted day a change makes stale, in the
transaction of the change: so programs of the versions before, which know nothing of
roll-ups, go on while this is applied and afterwards, and no count is ever wrong.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_LOCK = 0x48450008
"""`locks.Space.COUNTED_DAY`."""

_COUNTED = {
    "incidents": (
        "state",
        "cause",
        "severity",
        "runbook",
        "worked",
        "dry_run",
        "judged",
        "began_at",
        "acknowledged_at",
        "restored_at",
    ),
    "intents": (
        "undoes",
        "started_at",
        "dry_run",
        "environment",
        "service",
        "namespace",
        "cause",
        "action",
        "decision",
        "decided_at",
        "reason",
        "result",
    ),
    "approvals": ("state", "answered_at", "answered_by"),
}
"""What is counted by or filtered by, and may change."""

_MOMENTS = {
    "incidents": ("opened_at",),
    "intents": ("decided_at", "started_at"),
    "approvals": ("requested_at",),
}
"""The times whose days count a row."""

_FILTERED = ("cause", "severity")
"""What filters an incident's approvals and intents by a column of the incident."""


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "statistics_spans",
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("days", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("start", "days", name="pk_statistics_spans"),
    )
    op.create_table(
        "statistics_parts",
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("days", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slice", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("start", "days", "slice", "part", name="pk_statistics_parts"),
    )
    op.create_table(
        "statistics_stale",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_statistics_stale"),
    )
    op.create_index("ix_statistics_stale_day", "statistics_stale", ["day"])
    op.create_index("ix_intents_service", "intents", ["service"])
    if op.get_bind().dialect.name == "postgresql":
        _postgresql()
    else:
        _sqlite()


def downgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    for table in _COUNTED:
        for name in _names(table):
            op.execute(f"DROP TRIGGER {name}{f' ON {table}' if postgresql else ''}")
    if postgresql:
        op.execute("DROP FUNCTION statistics_note_change()")
    else:
        op.execute("DROP TRIGGER statistics_incidents_filtered")
    op.drop_index("ix_intents_service", "intents")
    for name in ("statistics_stale", "statistics_parts", "statistics_spans"):
        op.drop_table(name)


def _names(table: str) -> tuple[str, str]:
    return f"statistics_{table}_insert", f"statistics_{table}_update"


def _postgresql() -> None:
    """A shared lock on the day: it is not counted while a change of it is on the way."""
    op.execute(
        "CREATE FUNCTION statistics_note_change() RETURNS trigger LANGUAGE plpgsql AS $$ "  # noqa: S608 - constants
        "DECLARE moments timestamptz[]; touched bigint; BEGIN "
        "IF TG_TABLE_NAME = 'incidents' THEN moments := ARRAY[NEW.opened_at]; "
        "IF TG_OP = 'UPDATE' THEN "
        "IF OLD.cause IS DISTINCT FROM NEW.cause OR OLD.severity IS DISTINCT FROM NEW.severity THEN "
        "moments := moments || ARRAY(SELECT requested_at FROM approvals WHERE incident_id = NEW.id) "
        "|| ARRAY(SELECT decided_at FROM intents WHERE incident_id = NEW.id) "
        "|| ARRAY(SELECT started_at FROM intents WHERE incident_id = NEW.id); "
        "END IF; END IF; "
        "ELSIF TG_TABLE_NAME = 'intents' THEN moments := ARRAY[NEW.decided_at, NEW.started_at]; "
        "ELSE moments := ARRAY[NEW.requested_at]; END IF; "
        "FOR touched IN SELECT DISTINCT CAST(floor(date_part('epoch', moment) / 86400) AS bigint) "
        "FROM unnest(moments) AS moment WHERE moment IS NOT NULL ORDER BY 1 LOOP "
        f"PERFORM pg_advisory_xact_lock_shared({_LOCK}, CAST(touched AS int)); "
        "INSERT INTO statistics_stale (day) "
        "SELECT start FROM statistics_spans WHERE start = touched AND days = 1; "
        "END LOOP; RETURN NULL; END $$"
    )
    for table, columns in _COUNTED.items():
        insert, update = _names(table)
        changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in columns)
        call = "FOR EACH ROW {}EXECUTE FUNCTION statistics_note_change()"
        op.execute(f"CREATE TRIGGER {insert} AFTER INSERT ON {table} {call.format('')}")
        op.execute(f"CREATE TRIGGER {update} AFTER UPDATE ON {table} {call.format(f'WHEN ({changed}) ')}")


def _sqlite() -> None:
    for table, columns in _COUNTED.items():
        insert, update = _names(table)
        days = " UNION ".join(f"SELECT {_day(f'NEW.{name}')}" for name in _MOMENTS[table])
        changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in columns)
        op.execute(f"CREATE TRIGGER {insert} AFTER INSERT ON {table} BEGIN {_noted(days)}; END")
        op.execute(
            f"CREATE TRIGGER {update} AFTER UPDATE ON {table} WHEN {changed} BEGIN {_noted(days)}; END"
        )
    filtered = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _FILTERED)
    days = " UNION ".join(
        f"SELECT {_day(name)} FROM {table} WHERE incident_id = NEW.id"  # noqa: S608 - constants
        for table in ("intents", "approvals")
        for name in _MOMENTS[table]
    )
    op.execute(
        f"CREATE TRIGGER statistics_incidents_filtered AFTER UPDATE ON incidents WHEN {filtered} "
        f"BEGIN {_noted(days)}; END"
    )


def _day(moment: str) -> str:
    return f"CAST(strftime('%s', {moment}) AS INTEGER) / 86400"


def _noted(days: str) -> str:
    return (
        "INSERT INTO statistics_stale (day) "  # noqa: S608 - constants
        f"SELECT start FROM statistics_spans WHERE days = 1 AND start IN ({days})"
    )

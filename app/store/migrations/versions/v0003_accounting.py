"""Accounting: how many signals were accepted, what was forgotten, and indexes for millions of them.

Programs of the version before go on while this is applied and afterwards. What
they accept shows as not yet in the ledger, and is entered there by the sweep;
what they would forget without accounting for it, the database keeps.

Takes the table of signals for as long as it takes to count and index its rows,
some seconds for a million; intake waits meanwhile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_FORGETTABLE = "disposition IN ('ignored', 'deduplicated', 'expired')"
_KEPT = "disposition IN ('opened', 'joined', 'pending')"
_ADRIFT = (
    "(disposition IN ('opened', 'joined') AND incident_id IS NULL)"
    " OR (disposition = 'deduplicated' AND duplicate_of IS NULL)"
)
SEEDED = -1
"""The shard of what was there before the ledger."""


def upgrade() -> None:
    _tables()
    _ledgered()
    _seed()
    _indexes()
    _protect_signals()


def downgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute("DROP TRIGGER signals_kept" + (" ON signals" if on_postgresql else ""))
    if on_postgresql:
        op.execute("DROP FUNCTION signals_are_accounted_for()")
    op.drop_index("ix_timeline_at", "timeline")
    op.drop_index("ix_intents_executing", "intents")
    for name in ("unledgered", "adrift", "duplicates", "waiting", "kept", "forgettable"):
        op.drop_index(f"ix_signals_{name}", "signals")
    op.drop_column("signals", "ledgered")
    for table in ("schema_compatibility", "mendings", "signal_tally", "intake_ledger"):
        op.drop_table(table)


def _tables() -> None:
    op.create_table(
        "intake_ledger",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "shard", name="pk_intake_ledger"),
    )
    op.create_table(
        "signal_tally",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("disposition", sa.Text(), nullable=False),
        sa.Column("forgotten", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "disposition", name="pk_signal_tally"),
    )
    op.create_table(
        "mendings",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("mended", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", name="pk_mendings"),
    )
    op.create_table(
        "schema_compatibility",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_schema_compatibility"),
    )


def _ledgered() -> None:
    """Rows that are there count as entered; rows that a program without a ledger adds do not."""
    op.add_column("signals", sa.Column("ledgered", sa.Boolean(), nullable=False, server_default=sa.true()))
    if op.get_bind().dialect.name == "postgresql":
        # On SQLite one program at a time uses the file.
        op.alter_column("signals", "ledgered", server_default=sa.false())


def _seed() -> None:
    """Nothing can be accepted between the column and this: it holds the table."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    day = "CAST(received_at AT TIME ZONE 'UTC' AS date)" if on_postgresql else "date(received_at)"
    op.execute(
        f"INSERT INTO intake_ledger (day, shard, accepted) SELECT {day}, {SEEDED}, count(*)"  # noqa: S608 - constants
        f" FROM signals GROUP BY {day}"
    )


def _indexes() -> None:
    _partial_index("ix_signals_forgettable", "signals", ["received_at", "disposition"], _FORGETTABLE)
    _partial_index("ix_signals_kept", "signals", ["received_at", "disposition"], _KEPT)
    _partial_index("ix_signals_waiting", "signals", ["received_at"], "disposition = 'pending'")
    _partial_index("ix_signals_duplicates", "signals", ["duplicate_of"], "duplicate_of IS NOT NULL")
    # These two are empty as long as all is well.
    _partial_index("ix_signals_adrift", "signals", ["number"], _ADRIFT)
    _partial_index("ix_signals_unledgered", "signals", ["number"], "NOT ledgered")
    _partial_index("ix_intents_executing", "intents", ["incident_id"], "state = 'executing'")
    # Appended in the order of time: a block range index costs next to nothing.
    op.create_index("ix_timeline_at", "timeline", ["at"], postgresql_using="brin")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def _protect_signals() -> None:
    """The database itself keeps what led to something, and what is not accounted for (promise 9)."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION signals_are_accounted_for() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF OLD.disposition IN ('opened', 'joined', 'pending') THEN "
            "RAISE EXCEPTION 'a signal that led to something, or waits, is kept'; END IF; "
            "IF current_setting('heal.forgetting', true) = 'accounted' THEN RETURN OLD; END IF; "
            "RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER signals_kept BEFORE DELETE ON signals "
            "FOR EACH ROW EXECUTE FUNCTION signals_are_accounted_for()"
        )
        return
    op.execute(
        "CREATE TRIGGER signals_kept BEFORE DELETE ON signals "
        "WHEN OLD.disposition IN ('opened', 'joined', 'pending') "
        "BEGIN SELECT RAISE(ABORT, 'a signal that led to something, or waits, is kept'); END"
    )

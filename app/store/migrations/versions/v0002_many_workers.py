"""Many workers: when incidents are due, approvals, the kill switch, who is alive and who leads.

Only additions, each with a default: a worker of the version before goes on while
this is applied, and what it writes afterwards is due at once for every worker.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_Instant = sa.DateTime(timezone=True)
_Json = sa.JSON()
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EPOCH = {"sqlite": "1970-01-01 00:00:00.000000", "postgresql": "1970-01-01 00:00:00+00"}


def upgrade() -> None:
    _columns()
    _tables()


def downgrade() -> None:
    for table in ("leases", "workers", "brakes", "approvals"):
        op.drop_table(table)
    op.drop_index("ix_incidents_due", "incidents")
    op.drop_column("claims", "interruptions")
    op.drop_column("intents", "approval")
    op.drop_column("intents", "attempts")
    op.drop_column("incidents", "nudges")
    op.drop_column("incidents", "joined")
    op.drop_column("incidents", "due_at")


def _columns() -> None:
    epoch = sa.text(f"'{_EPOCH[op.get_bind().dialect.name]}'")
    op.add_column("incidents", sa.Column("due_at", _Instant, nullable=False, server_default=epoch))
    op.add_column("incidents", sa.Column("joined", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("incidents", sa.Column("nudges", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("intents", sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("intents", sa.Column("approval", sa.Text()))
    op.add_column(
        "claims", sa.Column("interruptions", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    open_only = sa.text("closed_at IS NULL")
    op.create_index(
        "ix_incidents_due", "incidents", ["due_at"], sqlite_where=open_only, postgresql_where=open_only
    )


def _tables() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("requested_at", _Instant, nullable=False),
        sa.Column("expires_at", _Instant, nullable=False),
        sa.Column("answered_at", _Instant),
        sa.Column("answered_by", sa.Text()),
        sa.Column("body", _Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_approvals_incident_id"),
    )
    op.create_index("ix_approvals_incident", "approvals", ["incident_id", "requested_at"])
    op.create_index("ix_approvals_state", "approvals", ["state", "requested_at"])
    op.create_index("ix_approvals_requested", "approvals", ["requested_at"])
    brakes = op.create_table(
        "brakes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("engaged", sa.Boolean(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_brakes"),
    )
    # There from the start, so that whoever begins an intent has a row to lock against whoever brakes.
    op.bulk_insert(
        brakes,
        [
            {
                "name": "kill_switch",
                "engaged": False,
                "set_by": "",
                "reason": "",
                "at": datetime(1970, 1, 1, tzinfo=UTC),
            }
        ],
    )
    op.create_table(
        "workers",
        sa.Column("number", _Number, autoincrement=True, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("entered_at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_workers"),
        sa.UniqueConstraint("owner", name="uq_workers_owner"),
    )
    op.create_table(
        "leases",
        sa.Column("duty", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("expires_at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("duty", name="pk_leases"),
    )

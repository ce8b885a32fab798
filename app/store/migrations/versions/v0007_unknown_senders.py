"""Senders: who opened an incident of a service that the agent does not know from its cluster.

What a sender has open is counted by index, so that a limit on it costs the same
however many incidents there are. Only additions: programs of the versions before
leave the column empty, and what they open counts against nobody.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""


def upgrade() -> None:
    op.add_column("incidents", sa.Column("sender", sa.Text()))
    op.create_index(
        "ix_incidents_sender_open",
        "incidents",
        ["sender"],
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_incidents_sender_open", "incidents")
    op.drop_column("incidents", "sender")

"""Senders: who sent a signal, what a token may report about, who opened an incident of an unknown service.

What a sender has open is counted by index, so that a limit on it costs the same
however many incidents there are. Only additions: programs of the versions before go
on while this is applied and afterwards. The signals that they accept name no sender,
what they open counts against none, and they do not hold a token to its limits; so
tokens with limits are for when every process is upgraded.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""


def upgrade() -> None:
    op.add_column("signals", sa.Column("sender", sa.JSON()))
    op.add_column("credentials", sa.Column("reach", sa.JSON()))
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
    op.drop_column("credentials", "reach")
    op.drop_column("signals", "sender")

"""Senders: who sent a signal, and what a token may report about.

Only additions: programs of the versions before go on while this is applied and
afterwards. The signals that they accept name no sender, and they do not hold a
token to its limits; so tokens with limits are for when every process is upgraded.
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


def downgrade() -> None:
    op.drop_column("credentials", "reach")
    op.drop_column("signals", "sender")

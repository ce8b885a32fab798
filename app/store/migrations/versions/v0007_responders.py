"""Responders: who holds an incident instead of the agent, and the text that incidents are searched by.

Only additions: programs of the versions before go on while this is applied and
afterwards. They neither read that a person took an incident over nor know the state
`resolved_by_hand`; so taking over and resolving are for when every process is upgraded.
Incidents that were stored before are found by service, environment and id.
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
    op.add_column("incidents", sa.Column("held_by", sa.Text()))
    op.add_column("incidents", sa.Column("search", sa.Text()))


def downgrade() -> None:
    op.drop_column("incidents", "search")
    op.drop_column("incidents", "held_by")

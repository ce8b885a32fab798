"""Which schema the program of each process knows: rows that older programs do not read wait for them to end.

Only an addition: programs of the versions before leave the column empty.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""


def upgrade() -> None:
    op.add_column("workers", sa.Column("schema", sa.Text(), nullable=True))


def downgrade() -> None:
    """What the processes announced is dropped; they announce it again when they start."""
    op.drop_column("workers", "schema")

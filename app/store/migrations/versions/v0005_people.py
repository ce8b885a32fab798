"""People: credentials, the audit trail of their decisions, nonces, and what channels received.

Only additions: programs of the versions before go on while this is applied and
afterwards. What people decide through those is in the timelines, as before, and
not in the audit trail.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

compatible_since = "0002"
"""The oldest schema whose programs may go on, and start, once this is applied."""

_Instant = sa.DateTime(timezone=True)
_Json = sa.JSON()
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _identity()
    _channels()
    _protect_trail()


def downgrade() -> None:
    for table in ("channels", "postings", "announcements", "nonces", "audit_trail", "credentials"):
        op.drop_table(table)
    op.drop_index("ix_incidents_closed_at", "incidents")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_trail_is_append_only()")
    else:
        op.execute("DROP TRIGGER timeline_no_replace")


def _identity() -> None:
    op.create_table(
        "credentials",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("roles", _Json, nullable=False),
        sa.Column("scopes", _Json, nullable=False),
        sa.Column("created_at", _Instant, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", _Instant),
        sa.Column("revoked_at", _Instant),
        sa.Column("revoked_by", sa.Text()),
        sa.Column("last_used_at", _Instant),
        sa.PrimaryKeyConstraint("id", name="pk_credentials"),
    )
    op.create_index("ix_credentials_kind", "credentials", ["kind", "created_at"])
    op.create_table(
        "audit_trail",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", _Instant, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("door", sa.Text(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", _Json, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_trail"),
    )
    op.create_table(
        "nonces",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("issued_at", _Instant, nullable=False),
        sa.Column("used_at", _Instant),
        sa.PrimaryKeyConstraint("digest", name="pk_nonces"),
    )
    op.create_index("ix_nonces_subject", "nonces", ["subject"])


def _channels() -> None:
    op.create_index("ix_incidents_closed_at", "incidents", ["closed_at"])
    op.create_table(
        "announcements",
        sa.Column("number", _Number, autoincrement=True, nullable=False),
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_announcements"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_announcements_incident_id"),
    )
    op.create_index("ix_announcements_incident", "announcements", ["incident_id", "number"])
    op.create_table(
        "postings",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text()),
        sa.Column("shown", sa.Integer(), nullable=False),
        sa.Column("announced", sa.BigInteger(), nullable=False),
        sa.Column("refreshed", sa.Integer(), nullable=False),
        sa.Column("sending", sa.Text()),
        sa.Column("sending_since", _Instant),
        sa.Column("due_at", _Instant, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "incident_id", name="pk_postings"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_postings_incident_id"),
    )
    op.create_table(
        "channels",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("told_until", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_channels"),
    )


def _protect_trail() -> None:
    """The database itself refuses to change or remove what the trail says (promise 12)."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_trail_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_trail_no_change BEFORE UPDATE OR DELETE ON audit_trail "
            "FOR EACH ROW EXECUTE FUNCTION audit_trail_is_append_only()"
        )
        op.execute(
            "CREATE TRIGGER audit_trail_no_truncate BEFORE TRUNCATE ON audit_trail "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_trail_is_append_only()"
        )
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_trail_no_{event.lower()} BEFORE {event} ON audit_trail "
            "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
        )
    # SQLite's INSERT OR REPLACE deletes without asking the triggers of a deletion.
    op.execute(
        "CREATE TRIGGER audit_trail_no_replace BEFORE INSERT ON audit_trail "
        "WHEN EXISTS (SELECT 1 FROM audit_trail WHERE sequence = NEW.sequence) "
        "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER timeline_no_replace BEFORE INSERT ON timeline "
        "WHEN EXISTS (SELECT 1 FROM timeline "
        "WHERE incident_id = NEW.incident_id AND sequence = NEW.sequence) "
        "BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END"
    )

"""The first tables: signals, incidents, intents, claims, the timeline and what is remembered of services."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Instant = sa.DateTime(timezone=True)
_Json = sa.JSON()
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _incidents()
    _signals()
    _loop()
    _services()
    _history()
    _protect_timeline()


def downgrade() -> None:
    tables = (
        "config_history",
        "revision_history",
        "timeline",
        "claims",
        "intents",
        "changes",
        "service_levels",
    )
    for table in (*tables, "idempotency_keys", "signals", "incidents"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION timeline_is_append_only()")


def _partial_index(
    name: str, table: str, columns: list[str], condition: str, *, unique: bool = False
) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", _Instant, nullable=False),
        sa.Column("closed_at", _Instant),
        sa.Column("wake_at", _Instant),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("triggers", _Json, nullable=False),
        sa.Column("body", _Json, nullable=False),
        sa.Column("timeline_length", sa.Integer(), nullable=False),
        sa.Column("timeline_head", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    _partial_index(
        "ix_incidents_one_open", "incidents", ["environment", "service"], "closed_at IS NULL", unique=True
    )
    op.create_index("ix_incidents_last_closed", "incidents", ["environment", "service", "closed_at"])
    op.create_index("ix_incidents_newest", "incidents", ["opened_at", "id"])
    op.create_index("ix_incidents_service", "incidents", ["service", "opened_at", "id"])
    op.create_index("ix_incidents_state", "incidents", ["state", "opened_at", "id"])


def _signals() -> None:
    op.create_table(
        "signals",
        sa.Column("number", _Number, nullable=False, autoincrement=True),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("observed_at", _Instant, nullable=False),
        sa.Column("received_at", _Instant, nullable=False),
        sa.Column("dedup_key", sa.Text(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("payload", _Json, nullable=False),
        sa.Column("disposition", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("incident_id", sa.Text()),
        sa.Column("duplicate_of", sa.Text()),
        sa.PrimaryKeyConstraint("number", name="pk_signals"),
        sa.UniqueConstraint("id", name="uq_signals_id"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_signals_incident_id"),
    )
    _partial_index("ix_signals_first", "signals", ["dedup_key"], "duplicate_of IS NULL", unique=True)
    _partial_index("ix_signals_pending", "signals", ["service", "environment"], "disposition = 'pending'")
    op.create_index("ix_signals_incident", "signals", ["incident_id", "number"])
    _partial_index(
        "ix_signals_samples", "signals", ["environment", "service", "observed_at"], "kind = 'metric'"
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text()),
        sa.Column("recorded_at", _Instant, nullable=False),
        sa.Column("answer", _Json, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_recorded_at", "idempotency_keys", ["recorded_at"])


def _loop() -> None:
    op.create_table(
        "intents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("undoes", sa.Text()),
        sa.Column("started_at", _Instant),
        sa.Column("applied_token", sa.Text()),
        sa.Column("body", _Json, nullable=False),
        sa.Column("snapshot", _Json),
        sa.Column("outcome", _Json),
        sa.PrimaryKeyConstraint("id", name="pk_intents"),
        sa.UniqueConstraint("incident_id", "sequence", name="uq_intents_incident_id_sequence"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_intents_incident_id"),
        sa.CheckConstraint(
            "state <> 'executing' OR NOT dry_run", name=op.f("ck_intents_dry_run_never_executes")
        ),
    )
    op.create_table(
        "claims",
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("incident_id", name="pk_claims"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_claims_incident_id"),
    )
    op.create_index("ix_claims_owner", "claims", ["owner"])
    op.create_table(
        "timeline",
        sa.Column("incident_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("at", _Instant, nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", _Json, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("incident_id", "sequence", name="pk_timeline"),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name="fk_timeline_incident_id"),
    )


def _services() -> None:
    op.create_table(
        "service_levels",
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("body", _Json, nullable=False),
        sa.PrimaryKeyConstraint("environment", "service", name="pk_service_levels"),
    )
    op.create_index("ix_service_levels_service", "service_levels", ["service"])
    op.create_table(
        "changes",
        sa.Column("number", _Number, nullable=False, autoincrement=True),
        sa.Column("at", _Instant, nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("body", _Json, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_changes"),
    )
    op.create_index("ix_changes_at", "changes", ["at"])


def _history() -> None:
    op.create_table(
        "revision_history",
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("template_hash", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("health", sa.Text(), nullable=False),
        sa.Column("seen_at", _Instant, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "service", "template_hash", name="pk_revision_history"),
    )
    op.create_table(
        "config_history",
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("data", _Json, nullable=False),
        sa.Column("health", sa.Text(), nullable=False),
        sa.Column("seen_at", _Instant, nullable=False),
        sa.PrimaryKeyConstraint("environment", "service", "name", "content_hash", name="pk_config_history"),
    )


def _protect_timeline() -> None:
    """The database itself refuses to change or remove what the timeline says (promise 12)."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION timeline_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the timeline is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER timeline_no_change BEFORE UPDATE OR DELETE ON timeline "
            "FOR EACH ROW EXECUTE FUNCTION timeline_is_append_only()"
        )
        op.execute(
            "CREATE TRIGGER timeline_no_truncate BEFORE TRUNCATE ON timeline "
            "FOR EACH STATEMENT EXECUTE FUNCTION timeline_is_append_only()"
        )
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER timeline_no_{event.lower()} BEFORE {event} ON timeline "
            "BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END"
        )

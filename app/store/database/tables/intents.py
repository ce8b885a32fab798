"""Intents: every attempt at an action."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.store.database.tables.columns import JsonText, UtcDateTime, metadata

intents = Table(
    "intents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("incident_id", Text, ForeignKey("incidents.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("undoes", Text),
    Column("started_at", UtcDateTime),
    Column("applied_token", Text),
    Column("body", JsonText, nullable=False),
    Column("snapshot", JsonText),
    Column("outcome", JsonText),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("approval", Text),
    Column("environment", Text),
    Column("service", Text),
    Column("namespace", Text),
    Column("cause", Text),
    Column("evidence", Text),
    # What statistics are computed by; programs before schema 0008 leave them empty.
    Column("action", Text),
    Column("decision", Text),
    Column("decided_at", UtcDateTime),
    Column("reason", Text),
    Column("result", Text),
    UniqueConstraint("incident_id", "sequence"),
    CheckConstraint("state <> 'executing' OR NOT dry_run", name="dry_run_never_executes"),
)

_PLANNED = text("undoes IS NULL AND decided_at IS NOT NULL")
Index(
    "ix_intents_statistics",
    *(
        intents.c[name]
        for name in (
            "decided_at",
            "environment",
            "service",
            "cause",
            "action",
            "decision",
            "result",
            "dry_run",
            "reason",
        )
    ),
    sqlite_where=_PLANNED,
    postgresql_where=_PLANNED,
)
Index("ix_intents_service", intents.c.service)
Index(
    "ix_intents_executing",
    intents.c.incident_id,
    sqlite_where=text("state = 'executing'"),
    postgresql_where=text("state = 'executing'"),
)
_COUNTED = text("started_at IS NOT NULL AND undoes IS NULL AND namespace IS NOT NULL")
Index(
    "ix_intents_counted",
    intents.c.started_at,
    intents.c.environment,
    intents.c.service,
    intents.c.namespace,
    intents.c.id,
    sqlite_where=_COUNTED,
    postgresql_where=_COUNTED,
)
_TOUCHED = text("started_at IS NOT NULL AND namespace IS NOT NULL")
Index(
    "ix_intents_of_service",
    intents.c.environment,
    intents.c.service,
    intents.c.started_at,
    sqlite_where=_TOUCHED,
    postgresql_where=_TOUCHED,
)

"""Incidents, who works on them, and their timelines."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, Text, text

from app.store.database.tables.columns import JsonText, UtcDateTime, metadata

incidents = Table(
    "incidents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("wake_at", UtcDateTime),
    Column("stale", Boolean, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("triggers", JsonText, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("timeline_length", Integer, nullable=False),
    Column("timeline_head", Text, nullable=False),
    Column("due_at", UtcDateTime, nullable=False, server_default=text("'1970-01-01 00:00:00.000000'")),
    Column("joined", Integer, nullable=False, server_default=text("0")),
    Column("nudges", Integer, nullable=False, server_default=text("0")),
    Column("sender", Text),
    Column("held_by", Text),
    Column("search", Text),
    # What statistics are computed by; programs before schema 0008 leave them empty.
    Column("cause", Text),
    Column("severity", Text),
    Column("runbook", Text),
    Column("worked", Boolean),
    Column("judged", Text),
    Column("began_at", UtcDateTime),
    Column("acknowledged_at", UtcDateTime),
    Column("restored_at", UtcDateTime),
)
Index(
    "ix_incidents_statistics",
    *(
        incidents.c[name]
        for name in (
            "opened_at",
            "environment",
            "service",
            "cause",
            "severity",
            "state",
            "runbook",
            "worked",
            "dry_run",
            "judged",
            "began_at",
            "acknowledged_at",
            "restored_at",
        )
    ),
)
Index(
    "ix_incidents_sender_open",
    incidents.c.sender,
    sqlite_where=text("closed_at IS NULL"),
    postgresql_where=text("closed_at IS NULL"),
)
Index(
    "ix_incidents_due",
    incidents.c.due_at,
    sqlite_where=text("closed_at IS NULL"),
    postgresql_where=text("closed_at IS NULL"),
)
Index(
    "ix_incidents_one_open",
    incidents.c.environment,
    incidents.c.service,
    unique=True,
    sqlite_where=text("closed_at IS NULL"),
    postgresql_where=text("closed_at IS NULL"),
)
Index("ix_incidents_last_closed", incidents.c.environment, incidents.c.service, incidents.c.closed_at)
Index("ix_incidents_closed_at", incidents.c.closed_at)
Index("ix_incidents_newest", incidents.c.opened_at, incidents.c.id)
Index("ix_incidents_service", incidents.c.service, incidents.c.opened_at, incidents.c.id)
Index("ix_incidents_state", incidents.c.state, incidents.c.opened_at, incidents.c.id)

claims = Table(
    "claims",
    metadata,
    Column("incident_id", Text, ForeignKey("incidents.id"), primary_key=True),
    Column("owner", Text),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("interruptions", Integer, nullable=False, server_default=text("0")),
)
Index("ix_claims_owner", claims.c.owner)

timeline = Table(
    "timeline",
    metadata,
    Column("incident_id", Text, ForeignKey("incidents.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("stage", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JsonText, nullable=False),
    Column("hash", Text, nullable=False),
)


Index("ix_timeline_at", timeline.c.at, postgresql_using="brin")

"""What services ran with before: revisions and configuration."""

from __future__ import annotations

from sqlalchemy import Column, Integer, Table, Text

from app.store.database.tables.columns import JsonText, UtcDateTime, metadata

revision_history = Table(
    "revision_history",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("template_hash", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("health", Text, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

config_history = Table(
    "config_history",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("content_hash", Text, primary_key=True),
    Column("data", JsonText, nullable=False),
    Column("health", Text, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)

"""Notifications about incidents, by channel."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text

from app.store.database.tables.columns import RowNumber, UtcDateTime, metadata

announcements = Table(
    "announcements",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("incident_id", Text, ForeignKey("incidents.id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
Index("ix_announcements_incident", announcements.c.incident_id, announcements.c.number)

postings = Table(
    "postings",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("incident_id", Text, ForeignKey("incidents.id"), primary_key=True),
    Column("reference", Text),
    Column("shown", Integer, nullable=False),
    Column("announced", BigInteger, nullable=False),
    Column("refreshed", Integer, nullable=False),
    Column("sending", Text),
    Column("sending_since", UtcDateTime),
    Column("due_at", UtcDateTime, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

channels = Table(
    "channels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("told_until", UtcDateTime, nullable=False),
)

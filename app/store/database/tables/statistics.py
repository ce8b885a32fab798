"""Counts of whole days that are over, and of blocks of them. Triggers write `statistics_stale`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from app.store.database.tables.columns import RowNumber, metadata

statistics_spans = Table(
    "statistics_spans",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("days", Integer, primary_key=True, autoincrement=False),
)
statistics_parts = Table(
    "statistics_parts",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("days", Integer, primary_key=True, autoincrement=False),
    Column("slice", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("body", Text, nullable=False),
)
statistics_stale = Table(
    "statistics_stale",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("day", BigInteger, nullable=False),
)
Index("ix_statistics_stale_day", statistics_stale.c.day)

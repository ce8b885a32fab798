"""The processes over one database: their schema, workers and elected duties."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text, UniqueConstraint

from app.store.database.tables.columns import RowNumber, UtcDateTime, metadata

schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("since", Text, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("owner", Text, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    Column("schema", Text),
    UniqueConstraint("owner"),
)
"""`schema` is the newest one that the program of the process knows; empty for programs before 0011."""

leases = Table(
    "leases",
    metadata,
    Column("duty", Text, primary_key=True),
    Column("owner", Text),
    Column("expires_at", UtcDateTime, nullable=False),
)

"""Signals with the ledger that accounts for them, service levels and changes."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.store.database.tables.columns import JsonText, RowNumber, UtcDateTime, metadata

signals = Table(
    "signals",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("observed_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("dedup_key", Text, nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("payload", JsonText, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("incident_id", Text, ForeignKey("incidents.id")),
    Column("duplicate_of", Text),
    Column("ledgered", Boolean, nullable=False, server_default=text("false")),
    Column("sender", JsonText),
    UniqueConstraint("id"),
)
Index(
    "ix_signals_first",
    signals.c.dedup_key,
    unique=True,
    sqlite_where=text("duplicate_of IS NULL"),
    postgresql_where=text("duplicate_of IS NULL"),
)
Index(
    "ix_signals_pending",
    signals.c.service,
    signals.c.environment,
    sqlite_where=text("disposition = 'pending'"),
    postgresql_where=text("disposition = 'pending'"),
)
Index("ix_signals_incident", signals.c.incident_id, signals.c.number)
Index(
    "ix_signals_samples",
    signals.c.environment,
    signals.c.service,
    signals.c.observed_at,
    sqlite_where=text("kind = 'metric'"),
    postgresql_where=text("kind = 'metric'"),
)


for _name, _columns, _condition in (
    (
        "forgettable",
        (signals.c.received_at, signals.c.disposition),
        "disposition IN ('ignored', 'deduplicated', 'expired')",
    ),
    (
        "kept",
        (signals.c.received_at, signals.c.disposition),
        "disposition IN ('opened', 'joined', 'pending')",
    ),
    ("waiting", (signals.c.received_at,), "disposition = 'pending'"),
    ("duplicates", (signals.c.duplicate_of,), "duplicate_of IS NOT NULL"),
    # The last two are empty in a healthy store.
    (
        "adrift",
        (signals.c.number,),
        "(disposition IN ('opened', 'joined') AND incident_id IS NULL)"
        " OR (disposition = 'deduplicated' AND duplicate_of IS NULL)",
    ),
    ("unledgered", (signals.c.number,), "NOT ledgered"),
):
    Index(f"ix_signals_{_name}", *_columns, sqlite_where=text(_condition), postgresql_where=text(_condition))

samples = Table(
    "samples",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("previous", BigInteger),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("observed_at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("error_rate", Double),
    Column("p95_latency_ms", Double),
    Column("flags", SmallInteger, nullable=False),
    Column("sender", Text),
)
"""Healthy samples of HTTP, newer than every one before of their service, which `previous` names.

Without an index: their signal ids name their rows, and `service_levels.newest_sample` names the
newest row of each service. Times are microseconds since 1970.
"""

sample_ledger = Table(
    "sample_ledger",
    metadata,
    Column("day", Date, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("accepted", BigInteger, nullable=False),
    Column("forgotten", BigInteger, nullable=False),
)
"""As `intake_ledger` and `signal_tally`, for `samples`."""

intake_ledger = Table(
    "intake_ledger",
    metadata,
    Column("day", Date, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("accepted", BigInteger, nullable=False),
)

signal_tally = Table(
    "signal_tally",
    metadata,
    Column("day", Date, primary_key=True),
    Column("disposition", Text, primary_key=True),
    Column("forgotten", BigInteger, nullable=False),
)

# Processes of the version before write `mendings` and `mended` during a rolling upgrade: a new name would
# need both for one release, and the API has the field `mended`.
mendings = Table(
    "mendings",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("mended", BigInteger, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request_hash", Text),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("answer", JsonText, nullable=False),
)
Index("ix_idempotency_keys_recorded_at", idempotency_keys.c.recorded_at)

service_levels = Table(
    "service_levels",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("body", JsonText, nullable=False),
    Column("newest_sample", BigInteger),
)
Index("ix_service_levels_service", service_levels.c.service)

changes = Table(
    "changes",
    metadata,
    Column("number", RowNumber, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("body", JsonText, nullable=False),
)
Index("ix_changes_at", changes.c.at)

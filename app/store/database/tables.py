"""The tables, as the statements of this package see them.

The migrations under `migrations/versions` create them; a contract test holds
the two against each other on both databases. Values that no statement searches
by live in JSON columns, stored as the very text that was written: PostgreSQL's
`jsonb` would rewrite numbers and so break the timeline's hashes.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant, stored and given back in UTC.

    SQLite keeps no zone: there the naive UTC time is stored, in a form whose
    text order is the order of time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"the time {value.isoformat()} has no zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 - the signature is SQLAlchemy's
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_Number = BigInteger().with_variant(Integer(), "sqlite")
"""A growing row number: SQLite numbers by itself only what is called exactly INTEGER."""

_Json = JSON(none_as_null=True)

AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""Due by everybody's clock, however far two of them are apart."""

AFTER_KNOWN = datetime(1970, 1, 2, tzinfo=UTC)
"""Due as well; new incidents of services that no cluster has shown us stand behind those of known ones."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

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
    Column("triggers", _Json, nullable=False),
    Column("body", _Json, nullable=False),
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

signals = Table(
    "signals",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("observed_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("dedup_key", Text, nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("payload", _Json, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("incident_id", Text, ForeignKey("incidents.id")),
    Column("duplicate_of", Text),
    Column("ledgered", Boolean, nullable=False, server_default=text("false")),
    Column("sender", _Json),
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

mendings = Table(
    "mendings",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("mended", BigInteger, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)

schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("revision", Text, primary_key=True),
    Column("since", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("request_hash", Text),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("answer", _Json, nullable=False),
)
Index("ix_idempotency_keys_recorded_at", idempotency_keys.c.recorded_at)

service_levels = Table(
    "service_levels",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("body", _Json, nullable=False),
)
Index("ix_service_levels_service", service_levels.c.service)

changes = Table(
    "changes",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("body", _Json, nullable=False),
)
Index("ix_changes_at", changes.c.at)

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
    Column("body", _Json, nullable=False),
    Column("snapshot", _Json),
    Column("outcome", _Json),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("approval", Text),
    Column("environment", Text),
    Column("service", Text),
    Column("namespace", Text),
    Column("cause", Text),
    Column("evidence", Text),
    # What statistics are computed by, as above.
    Column("action", Text),
    Column("decision", Text),
    Column("decided_at", UtcDateTime),
    Column("reason", Text),
    Column("result", Text),
    UniqueConstraint("incident_id", "sequence"),
    CheckConstraint("state <> 'executing' OR NOT dry_run", name="dry_run_never_executes"),
)

# Counts of whole days that are over, and of blocks of them. Triggers write `statistics_stale`.
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
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("day", BigInteger, nullable=False),
)
Index("ix_statistics_stale_day", statistics_stale.c.day)

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

approvals = Table(
    "approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("incident_id", Text, ForeignKey("incidents.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Column("answered_by", Text),
    Column("body", _Json, nullable=False),
)
Index("ix_approvals_incident", approvals.c.incident_id, approvals.c.requested_at)
Index("ix_approvals_state", approvals.c.state, approvals.c.requested_at)
Index("ix_approvals_requested", approvals.c.requested_at)

brakes = Table(
    "brakes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("engaged", Boolean, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("roles", _Json, nullable=False),
    Column("scopes", _Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("revoked_by", Text),
    Column("last_used_at", UtcDateTime),
    Column("reach", _Json),
)
Index("ix_credentials_kind", credentials.c.kind, credentials.c.created_at)

audit_trail = Table(
    "audit_trail",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("data", _Json, nullable=False),
    Column("hash", Text, nullable=False),
)

nonces = Table(
    "nonces",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
)
Index("ix_nonces_subject", nonces.c.subject)

announcements = Table(
    "announcements",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
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

workers = Table(
    "workers",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("owner", Text, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    UniqueConstraint("owner"),
)

leases = Table(
    "leases",
    metadata,
    Column("duty", Text, primary_key=True),
    Column("owner", Text),
    Column("expires_at", UtcDateTime, nullable=False),
)

timeline = Table(
    "timeline",
    metadata,
    Column("incident_id", Text, ForeignKey("incidents.id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("stage", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", _Json, nullable=False),
    Column("hash", Text, nullable=False),
)

Index("ix_timeline_at", timeline.c.at, postgresql_using="brin")

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
    Column("data", _Json, nullable=False),
    Column("health", Text, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)

"""Approvals, the kill switch, credentials, and the audit trail of people."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Table, Text

from app.store.database.tables.columns import JsonText, UtcDateTime, metadata

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
    Column("body", JsonText, nullable=False),
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
    Column("roles", JsonText, nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("revoked_by", Text),
    Column("last_used_at", UtcDateTime),
    Column("reach", JsonText),
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
    Column("data", JsonText, nullable=False),
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

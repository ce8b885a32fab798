"""The tables, as the statements of this package see them.

The migrations under `migrations/versions` create them; a contract test holds
the two against each other on both databases. Values that no statement searches
by live in JSON columns, stored as the very text that was written: PostgreSQL's
`jsonb` would rewrite numbers and so break the timeline's hashes.
"""

from __future__ import annotations

from app.store.database.tables.columns import AFTER_KNOWN, AT_ONCE, UtcDateTime, metadata
from app.store.database.tables.fleet import leases, schema_compatibility, workers
from app.store.database.tables.history import config_history, revision_history
from app.store.database.tables.incidents import claims, incidents, timeline
from app.store.database.tables.intents import intents
from app.store.database.tables.notifications import announcements, channels, postings
from app.store.database.tables.people import approvals, audit_trail, brakes, credentials, nonces
from app.store.database.tables.signals import (
    changes,
    idempotency_keys,
    intake_ledger,
    mendings,
    sample_ledger,
    samples,
    service_levels,
    signal_tally,
    signals,
)
from app.store.database.tables.statistics import statistics_parts, statistics_spans, statistics_stale

__all__ = [
    "AFTER_KNOWN",
    "AT_ONCE",
    "UtcDateTime",
    "announcements",
    "approvals",
    "audit_trail",
    "brakes",
    "changes",
    "channels",
    "claims",
    "config_history",
    "credentials",
    "idempotency_keys",
    "incidents",
    "intake_ledger",
    "intents",
    "leases",
    "mendings",
    "metadata",
    "nonces",
    "postings",
    "revision_history",
    "sample_ledger",
    "samples",
    "schema_compatibility",
    "service_levels",
    "signal_tally",
    "signals",
    "statistics_parts",
    "statistics_spans",
    "statistics_stale",
    "timeline",
    "workers",
]

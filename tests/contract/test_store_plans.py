"""How PostgreSQL goes about the store's statements in a large database: the real statements, its own words.

The server explains every statement into its log (`auto_explain`). Each one is tried
twice: planned for its values, and planned once for all values, as a long-lived
connection may come to do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from app.agent.audit.accounting import AuditQuestion
from app.agent.guardrails.limits import Limits
from app.agent.ids import ServiceKey
from app.agent.models import DispositionKind, MetricSample
from app.agent.ports.store import Store
from app.store import open_store
from tests.contract.store_values import LEASE, NOW, Deciding, signal

if TYPE_CHECKING:  # at run time pytest loads the plugin, and rewrites its assertions
    from tests.contract.postgres import PostgresCluster

pytest_plugins = ["tests.contract.postgres"]

SIGNALS = 120_000
INCIDENTS = 8_000
_AT = "timestamptz '2026-03-01 12:00:00+00'"

_LARGE = f"""
INSERT INTO incidents (id, environment, service, state, opened_at, closed_at, stale, dry_run, version,
    triggers, body, timeline_length, timeline_head, due_at)
SELECT 'inc_' || n, 'prod', 'service-' || n, CASE WHEN n % 10 = 0 THEN 'verifying' ELSE 'escalated' END,
    {_AT} - n * interval '5 minutes',
    CASE WHEN n % 10 = 0 THEN NULL ELSE {_AT} - n * interval '4 minutes' END,
    false, true, 1, '["crash_loop"]', '{{}}', 10, 'hash 9', {_AT} + (n - 20) * interval '1 second'
FROM generate_series(1, {INCIDENTS}) n;
INSERT INTO claims (incident_id, owner, token, expires_at, interruptions)
SELECT 'inc_' || n, CASE WHEN n % 40 = 0 THEN 'worker' END, n, {_AT} - interval '1 hour', 0
FROM generate_series(1, {INCIDENTS}) n;
INSERT INTO timeline (incident_id, sequence, at, stage, message, data, hash)
SELECT 'inc_' || n, s, {_AT} - n * interval '5 minutes', 'observe', 'looked', '{{"figures": [1, 2, 3]}}',
    'hash ' || s
FROM generate_series(1, {INCIDENTS}) n, generate_series(0, 9) s;
INSERT INTO signals (id, kind, environment, service, source, observed_at, received_at, dedup_key, stale,
    payload, disposition, reason, incident_id, duplicate_of, ledgered)
SELECT 'sig_' || n, 'metric', 'prod', 'service-' || n % 1000, 'http',
    {_AT} - n * interval '10 seconds', {_AT} - n * interval '10 seconds', 'key ' || n, false,
    '{{"error_rate": 0.5}}',
    CASE WHEN n <= 200 THEN 'pending' WHEN n % 10 = 0 AND n / 10 <= {INCIDENTS} THEN 'opened'
        WHEN n % 10 = 0 THEN 'joined' WHEN n % 10 = 1 THEN 'deduplicated' ELSE 'ignored' END,
    'because', CASE WHEN n > 200 AND n % 10 = 0 THEN 'inc_' || 1 + (n / 10 - 1) % {INCIDENTS} END,
    CASE WHEN n > 200 AND n % 10 = 1 THEN 'sig_' || n + 1 END, true
FROM generate_series(1, {SIGNALS}) n;
INSERT INTO changes (at, environment, service, body)
SELECT {_AT} - n * interval '10 seconds', 'prod', 'service-' || n % 1000, '{{}}'
FROM generate_series(1, 40000) n;
INSERT INTO intents (id, incident_id, sequence, state, dry_run, started_at, body, environment, service,
    namespace)
SELECT 'int_' || n, 'inc_' || 1 + n % {INCIDENTS}, n / {INCIDENTS}, 'finished', false,
    {_AT} - (n + 20) * interval '10 minutes',
    json_build_object('figures', repeat('1', 2000)), 'prod', 'service-' || 1 + n % {INCIDENTS}, 'prod'
FROM generate_series(1, 30000) n;
ANALYZE
"""  # noqa: S608 - constants of the test

KEY = ServiceKey(environment="prod", service="service-7")
QUESTION = AuditQuestion(now=NOW, pending_for=timedelta(hours=1), since=(NOW - timedelta(days=1)).date())
SAMPLE = MetricSample(error_rate=0.5)
IGNORING = Deciding(kind=DispositionKind.IGNORED, triggers=())
OLD = NOW - timedelta(days=7)

CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "prune": lambda store: store.signals.prune(OLD),
    "expire": lambda store: store.signals.expire_pending(NOW - timedelta(minutes=20)),
    "same observation": lambda store: store.signals.accept(
        [signal(SAMPLE, key=KEY, dedup_key="key 77")], IGNORING, dry_run=True
    ),
    "pending": lambda store: store.signals.open_from_pending(KEY, [], dry_run=True, at=NOW),
    "pending services": lambda store: store.signals.pending_services(KEY.service, None),
    "take due": lambda store: store.claims.take_due("worker-2", LEASE, NOW, 5),
    "a new channel": lambda store: store.notifications.due("chat", NOW, 50),
    "what a channel is to be told": lambda store: store.notifications.due("chat", NOW, 50),
    "what a channel was not told for long": lambda store: store.notifications.due(
        "chat", NOW + timedelta(days=1), 50
    ),
    "next due": lambda store: store.claims.next_due(),
    "mend": lambda store: store.accounting.repair(NOW),
    "strays": lambda store: store.accounting.discrepancies(QUESTION),
    "recent actions": lambda store: store.budgets.recent_actions(KEY, Limits(per_cluster=100), NOW),
    "audit of a day": lambda store: store.accounting.audit(QUESTION),
}
_WHOLE = re.compile("Seq Scan on (signals|incidents|claims|timeline|changes|intents)")


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_no_statement_of_the_engine_reads_a_whole_table(
    postgres: PostgresCluster, postgres_url: str, plans: str
) -> None:
    """Prune, expiry, intake, due work and audit find their rows by index, at any size."""
    database = postgres_url.partition("@/")[2].partition("?")[0]
    postgres.execute(_LARGE, database)
    for setting in (
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        f"plan_cache_mode = {plans}",
        "jit = off",
        "random_page_cost = 1.1",  # of an SSD: with the default a table of some hundred pages is read whole
    ):
        postgres.execute(f"ALTER DATABASE {database} SET {setting}")
    store = await open_store(postgres_url)
    try:
        for name, call in CALLS.items():
            before = (postgres.directory / "log").stat().st_size
            await call(store)
            said = (postgres.directory / "log").read_bytes()[before:].decode()
            assert "Index" in said, f"{name} explains nothing"
            whole = [_shortened(plan) for plan in said.split("LOG:  duration") if _WHOLE.search(plan)]
            assert whole == [], f"{name}: {whole[0]}"
    finally:
        await store.close()


def _shortened(plan: str) -> str:
    return "\n".join(line[:200] for line in plan.splitlines())

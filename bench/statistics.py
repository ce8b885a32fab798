"""How long statistics take over a million incidents of a year: `python -m bench.statistics URL [NUMBER]`.

URL names an empty PostgreSQL database. Rows are made by the database; only what
statistics read of them is filled in.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy.engine import make_url

from app.agent.analytics.report import StatsFilter, report
from app.store import open_store, store_over
from app.store.database.postgresql import open_postgresql

NOW = datetime(2026, 6, 1, tzinfo=UTC)
INCIDENTS = 1_000_000
YEAR_SECONDS = 365 * 86400
ROUNDS = 7

_INCIDENTS = """
INSERT INTO incidents (id, environment, service, state, opened_at, closed_at, stale, dry_run, version,
  triggers, body, timeline_length, timeline_head, cause, severity, runbook, worked, began_at,
  acknowledged_at, restored_at)
SELECT 'inc_' || lpad(to_hex(n), 32, '0'), CASE n %% 3 WHEN 0 THEN 'staging' ELSE 'prod' END,
  'service-' || n %% 500,
  (ARRAY['recovered', 'recovered', 'recovered_without_action', 'escalated'])[1 + n %% 4],
  opened, opened + interval '20 min', false, false, 9, '["high_error_rate"]',
  json_build_object('summary', repeat('the service recovered after a rollback ', 30)), 20, 'head',
  (ARRAY['bad_release', 'bad_config', 'memory_leak', 'traffic_surge', 'unknown'])[1 + n %% 5],
  (ARRAY['critical', 'major', 'minor'])[1 + n %% 3],
  (ARRAY['roll-back-bad-release@1', 'restart-leak@1', 'scale-for-surge@2'])[1 + n %% 3],
  n %% 4 < 2, opened - make_interval(secs => n %% 600), opened + make_interval(secs => n %% 3600),
  CASE WHEN n %% 4 < 3 THEN opened + make_interval(secs => 60 + (CAST(n AS bigint) * 7919) %% 7200) END
FROM (SELECT n, CAST(%(now)s AS timestamptz) - make_interval(secs => n * %(apart)s) AS opened
  FROM generate_series(1, %(incidents)s) AS n) AS made
"""
_INTENTS = """
INSERT INTO intents (id, incident_id, sequence, state, dry_run, started_at, body, attempts, environment,
  service, namespace, cause, action, decision, decided_at, reason, result)
SELECT 'int_' || right(id, 32), id, 0, 'finished', false, CASE WHEN worked THEN opened_at END,
  json_build_object('action', repeat('rollback of the deployment ', 40)), 1, environment, service,
  environment, cause, 'rollback', CASE WHEN worked THEN 'allow' ELSE 'deny' END, opened_at,
  CASE WHEN NOT worked THEN 'rollback is high risk: blocked unless ALLOW_HIGH_RISK_ACTIONS=true' END,
  CASE WHEN worked THEN 'done' ELSE 'refused' END
FROM incidents
"""


def _fill(url: str, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_INCIDENTS, {"now": NOW, "incidents": number, "apart": YEAR_SECONDS / number})
        connection.execute(_INTENTS)
        connection.execute("VACUUM ANALYZE incidents")
        connection.execute("VACUUM ANALYZE intents")


async def main(url: str, number: int = INCIDENTS) -> None:
    """Fill the database and print the times of each view."""
    await (await open_store(url)).close()
    _fill(url, number)
    database = await open_postgresql(make_url(url))
    store = store_over(database)
    year = StatsFilter(since=NOW - timedelta(days=366), until=NOW, weekly=True)
    for name, where in (
        ("a year", year),
        ("a year of one service", replace(year, service="service-7")),
        ("a year of one severity", replace(year, severity="critical")),
        ("30 days", replace(year, since=NOW - timedelta(days=30), weekly=False)),
    ):
        took = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            report(where, await store.statistics.counted(where))
            took.append((time.perf_counter() - begun) * 1000)
        print(f"{name}: median {statistics.median(took):.0f} ms, longest {max(took):.0f} ms")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else INCIDENTS))

"""How long statistics take over a million incidents of a year: `python -m bench.statistics URL [NUMBER]`.

URL names an empty database, SQLite or PostgreSQL. The database makes the rows itself; only what
statistics read of them is filled in.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text

from app.agent.analytics.report import StatsFilter, report
from app.store import open_store

NOW = datetime(2026, 6, 1, 15, tzinfo=UTC)
INCIDENTS = 1_000_000
YEAR_SECONDS = 365 * 86400
ROUNDS = 7

_POSTGRESQL = {
    "numbers": "SELECT n FROM generate_series(1, :incidents) AS n",
    "at": "TIMESTAMPTZ '2026-06-01 15:00:00+00' + make_interval(secs => {})",
    "hex": "lpad(to_hex(n), 32, '0')",
    "long": "to_json(repeat('the service recovered after a rollback ', 30))",
}
_SQLITE = {
    "numbers": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :incidents)"
    " SELECT n FROM c",
    "at": "strftime('%Y-%m-%d %H:%M:%f', '2026-06-01 15:00:00', printf('%+.3f seconds', {})) || '000'",
    "hex": "printf('%032x', n)",
    "long": "'\"' || replace(hex(zeroblob(15)), '00', 'the service recovered after a rollback ') || '\"'",
}


def _statements(sql: dict[str, str], apart: float) -> list[str]:
    """Incidents of 500 services, one intent for each, and an approval for each tenth."""

    def at(later: str) -> str:
        return sql["at"].format(f"{later} - n * {apart}")

    # A time after the opening, in seconds, that looks like chance.
    took = "(60 + (CAST(n AS bigint) * 7919) % 7200)"
    made = f"FROM ({sql['numbers']}) AS made"
    return [
        "INSERT INTO incidents (id, environment, service, state, opened_at, closed_at, stale, dry_run,"
        " version, triggers, body, timeline_length, timeline_head, cause, severity, runbook, worked,"
        " began_at, acknowledged_at, restored_at)"
        f" SELECT 'inc_' || {sql['hex']}, CASE n % 3 WHEN 0 THEN 'staging' ELSE 'prod' END,"
        " 'service-' || (n % 500),"
        " CASE n % 4 WHEN 3 THEN 'escalated' WHEN 2 THEN 'recovered_without_action' ELSE 'recovered' END,"
        f" {at('0')}, {at('1200')}, false, false, 9, '[\"high_error_rate\"]', {sql['long']}, 20, 'head',"
        " CASE n % 5 WHEN 0 THEN 'bad_release' WHEN 1 THEN 'bad_config' WHEN 2 THEN 'memory_leak'"
        " WHEN 3 THEN 'traffic_surge' ELSE 'unknown' END,"
        " CASE n % 7 WHEN 0 THEN 'critical' WHEN 1 THEN 'minor' ELSE 'major' END,"
        " CASE n % 5 WHEN 0 THEN 'roll-back-bad-release@2' WHEN 2 THEN 'restart-leak@1'"
        f" WHEN 3 THEN 'scale-for-surge@2' END, n % 4 < 2, {at('-(n % 600)')}, {at('n % 3600')},"
        f" CASE WHEN n % 4 < 3 THEN {at(took)} END {made}",
        "INSERT INTO intents (id, incident_id, sequence, state, dry_run, started_at, body, attempts,"
        " environment, service, namespace, cause, action, decision, decided_at, reason, result)"
        f" SELECT 'int_' || {sql['hex']}, 'inc_' || {sql['hex']}, 0, 'finished', false,"
        f" CASE WHEN n % 4 < 2 THEN {at('30')} END, {sql['long']}, 1,"
        " CASE n % 3 WHEN 0 THEN 'staging' ELSE 'prod' END, 'service-' || (n % 500),"
        " CASE n % 3 WHEN 0 THEN 'staging' ELSE 'prod' END,"
        " CASE n % 5 WHEN 0 THEN 'bad_release' WHEN 1 THEN 'bad_config' WHEN 2 THEN 'memory_leak'"
        " WHEN 3 THEN 'traffic_surge' ELSE 'unknown' END, 'rollback',"
        f" CASE WHEN n % 4 < 2 THEN 'allow' ELSE 'deny' END, {at('30')},"
        " CASE WHEN n % 4 >= 2 THEN 'error budget of the service spent: ' || (n % 40) END,"
        f" CASE WHEN n % 4 < 2 THEN 'done' ELSE 'refused' END {made}",
        "INSERT INTO approvals (id, incident_id, state, requested_at, expires_at, answered_at,"
        " answered_by, body)"
        f" SELECT 'apr_' || {sql['hex']}, 'inc_' || {sql['hex']}, 'used', {at('40')}, {at('900')},"
        f" {at('40 + n % 800')}, 'ann', {sql['long']} {made} WHERE n % 10 = 0",
    ]


def _fill(url: str, number: int) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    sql = _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL
    with engine.begin() as connection:
        for statement in _statements(sql, YEAR_SECONDS / number):
            connection.execute(text(statement.replace(":00", r"\:00")), {"incidents": number})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE"))
    engine.dispose()


async def main(url: str, number: int = INCIDENTS) -> None:
    """Fill the database, roll it up, and print the times of each view."""
    begun = time.perf_counter()
    await (await open_store(url)).close()
    _fill(url, number)
    print(f"{number} incidents filled in {time.perf_counter() - begun:.0f} s", flush=True)
    store = await open_store(url)
    begun, days = time.perf_counter(), 0
    while done := await store.statistics.roll_up(NOW):
        days += done
    took = time.perf_counter() - begun
    print(f"{days} days rolled up in {took:.0f} s, {took * 1000 / max(1, days):.0f} ms each", flush=True)
    year = StatsFilter(since=NOW - timedelta(days=365), until=NOW, weekly=True)
    for name, where in (
        ("a year", year),
        ("a year of one environment", replace(year, environment="prod")),
        ("a year of one severity", replace(year, severity="critical")),
        ("a year of one service", replace(year, service="service-7")),
        ("a year of one service in one environment", replace(year, service="service-7", environment="prod")),
        ("30 days", replace(year, since=NOW - timedelta(days=30), weekly=False)),
        ("a year of two filters", replace(year, environment="prod", severity="critical")),
    ):
        times, busy = [], []
        for _ in range(ROUNDS):
            begun, worked = time.perf_counter(), time.process_time()
            report(where, await store.statistics.counted(where))
            times.append((time.perf_counter() - begun) * 1000)
            busy.append((time.process_time() - worked) * 1000)
        print(
            f"{name}: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms,"
            f" {statistics.median(busy):.0f} ms of this process",
            flush=True,
        )
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else INCIDENTS))

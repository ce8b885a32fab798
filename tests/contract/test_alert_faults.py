"""The shipped alert rules on a running agent, scraped by a real Prometheus: faults are made, and rules fire.

Only the time that a rule waits (`for`) is cut; expressions and thresholds are as shipped.
`test_monitoring.py` has every rule over expositions.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from testbed.postgres import THROWAWAY, postgres_server
from testbed.redis import RedisServer
from testbed.supervisor import Supervisor
from testbed.waiting import NotYet, wait_for
from tests.contract.metric_worlds import prometheus
from tests.contract.test_monitoring import RULES
from tests.soak.accounts import engine_of
from tests.unit.heal_command import REPOSITORY, agent_process, free_port

pytestmark = pytest.mark.real

ANSWER = b'{"result": {"decision": "deny", "reasons": ["as asked"]}}'
SERIES = b'{"status": "success", "data": {"resultType": "vector", "result": []}}'
EVENT = {"service": "shop", "environment": "prod", "version": "2", "status": "failed"}
STREAM = "signals"


@contextmanager
def _server(body: bytes) -> Iterator[tuple[str, Callable[[], None]]]:
    """A peer that answers every request the same; its address, and what takes it away."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def take_away() -> None:
        server.shutdown()
        server.server_close()

    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", take_away
    finally:
        take_away()


def _config(folder: Path, target: str) -> str:
    rules = folder / "alerts.yaml"
    rules.write_text(re.sub(r"for: \S+", "for: 0s", RULES.read_text()))
    return (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{rules}]\n"
        "scrape_configs:\n"
        f"  - {{job_name: heal, static_configs: [{{targets: ['{target}']}}]}}\n"
    )


def _firing(url: str) -> set[str]:
    """The alerts that fire, each with the peer that it is about."""
    answer = httpx2.get(f"{url}/api/v1/alerts", trust_env=False).json()
    labels = [one["labels"] for one in answer["data"]["alerts"] if one["state"] == "firing"]
    return {" ".join(filter(None, (one["alertname"], one.get("peer")))) for one in labels}


def test_each_fault_of_a_running_agent_fires_its_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics lost, policy engine down, no worker, database down, agent killed; before, none fires."""
    supervisor = Supervisor()
    port = free_port()
    try:
        with (
            postgres_server(supervisor, settings=THROWAWAY) as postgres,
            _server(SERIES) as (metrics_url, stop_metrics),
            prometheus(tmp_path / "ours", config=_config(tmp_path, f"127.0.0.1:{port}")) as ours,
            _server(ANSWER) as (policy_url, stop_policy),
        ):
            database = postgres.tcp_url(postgres.create())
            for name, value in {
                "DATABASE_URL": database,
                "RUNBOOKS_DIR": str(REPOSITORY / "runbooks"),
                "OPA_URL": policy_url,
                "PROMETHEUS_URL": metrics_url,
                "INCIDENT_SETTLE_SECONDS": "0",
            }.items():
                monkeypatch.setenv(name, value)
            with agent_process(tmp_path, "run", "--role", "api", port=port) as (url, agent):
                fires = _Alerts(url, ours)
                fires.wait(set(), ask=True)
                stop_policy()
                fires.wait({"HealConnectorDown the policy engine"}, ask=True)
                stop_metrics()
                connectors = {"HealConnectorDown the policy engine", "HealConnectorDown Prometheus"}
                fires.wait(connectors, ask=True)
                event = {**EVENT, "timestamp": datetime.now(UTC).isoformat()}
                httpx2.post(f"{url}/events/deploy", json=event, trust_env=False).raise_for_status()
                with engine_of(database).begin() as connection:  # as if it had been due for a while
                    connection.execute(text("UPDATE incidents SET due_at = now() - interval '10 minutes'"))
                fires.wait({*connectors, "HealNoWorker"})
                postgres.kill()
                fires.wait({*connectors, "HealDatabaseDown"})
                agent.send_signal(signal.SIGKILL)
                fires.wait({"HealAgentDown"})
    finally:
        supervisor.close()


async def _publish(url: str, entries: int) -> None:
    client: Redis = Redis.from_url(url)
    body = json.dumps({"type": "deploy", **EVENT, "timestamp": datetime.now(UTC).isoformat()})
    async with client, client.pipeline(transaction=False) as pipeline:
        for _ in range(entries):
            pipeline.xadd(STREAM, {"body": body})
        await pipeline.execute()


def test_a_stream_that_is_not_read_fires_its_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is down, so that nothing is acknowledged, while more than 10,000 messages arrive."""
    supervisor = Supervisor()
    redis = RedisServer(supervisor=supervisor, directory=tmp_path)
    port = free_port()
    try:
        redis.start()
        with (
            postgres_server(supervisor, settings=THROWAWAY) as postgres,
            prometheus(tmp_path / "ours", config=_config(tmp_path, f"127.0.0.1:{port}")) as ours,
        ):
            monkeypatch.setenv("DATABASE_URL", postgres.tcp_url(postgres.create()))
            monkeypatch.setenv("RUNBOOKS_DIR", str(REPOSITORY / "runbooks"))
            monkeypatch.setenv("INTAKE_FROM", f"{redis.url}?stream={STREAM}")
            with agent_process(tmp_path, "run", "--role", "worker", port=port) as (url, _):
                fires = _Alerts(url, ours)
                fires.wait(set())
                postgres.kill()
                fires.wait({"HealDatabaseDown"})
                asyncio.run(_publish(redis.url, 10_100))
                fires.wait({"HealDatabaseDown", "HealStreamLag"})
    finally:
        redis.stop()
        supervisor.close()


class _Alerts:
    """Waits for exactly these alerts."""

    def __init__(self, agent: str, monitoring: str) -> None:
        self.agent, self.monitoring = agent, monitoring

    def wait(self, wanted: set[str], *, ask: bool = False) -> None:
        def reached() -> bool | NotYet:
            if ask:  # so that peers are called
                with suppress(httpx2.HTTPError):
                    httpx2.get(f"{self.agent}/readyz", timeout=60, trust_env=False)
            scraped = httpx2.get(
                f"{self.monitoring}/api/v1/query", params={"query": "heal_build_info"}, trust_env=False
            ).json()
            seen = _firing(self.monitoring)
            return True if seen == wanted and (scraped["data"]["result"] or wanted) else NotYet(str(seen))

        wait_for(f"exactly {wanted or 'no alert'}", reached, timeout_seconds=12)

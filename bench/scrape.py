"""How long `GET /metrics` takes when many services have reported.

`python -m bench.scrape` starts an agent on SQLite, or with `--postgresql` on a server of its own,
sends healthy samples of `--services` services and failed deploys of `--failing` of them, waits
until the agent is idle, and scrapes. `read` is a scrape that reads the database, `reused` one within
the 5 seconds for which its figures are reused. Processor time is that of the agent, without what it
uses meanwhile for incidents: this is measured before, and subtracted.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from app.api.routes.metrics import REMEMBERED_SECONDS
from bench.serving import failed_deploy, start_server
from testbed.postgres import postgres_server
from testbed.supervisor import Supervisor

_BODY = 500
_QUIET_SECONDS = 3.0


def samples(services: int) -> Iterator[list[dict[str, object]]]:
    """Bodies of healthy samples, one sample for each service."""
    now = datetime.now(UTC).isoformat()
    for start in range(0, services, _BODY):
        yield [
            {
                "service": f"service-{number}",
                "environment": "prod",
                "error_rate": 0.001,
                "p95_latency_ms": 120,
                "timestamp": now,
            }
            for number in range(start, min(start + _BODY, services))
        ]


def main() -> None:
    """Print the times of the scrapes in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--failing", type=int, default=100)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--postgresql", action="store_true")
    given = parser.parse_args()
    program = [sys.executable, "-c", "from app.cli import main; main()", "run"]
    supervisor = Supervisor()
    with ExitStack() as stack:
        stack.callback(supervisor.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        url = f"sqlite:///{folder}/heal.db"
        if given.postgresql:
            url = stack.enter_context(postgres_server(supervisor)).url()
        settings = {"DATABASE_URL": url, "LOG_LEVEL": "warning"}
        server = start_server(supervisor, folder, program, settings, "agent")
        client = stack.enter_context(httpx2.Client(base_url=server.url, trust_env=False, timeout=60))
        for body in samples(given.services):
            client.post("/events/metric", json=body).raise_for_status()
        deploys = [failed_deploy(f"service-{number}") for number in range(given.failing)]
        for start in range(0, len(deploys), _BODY):
            client.post("/events/deploy", json=deploys[start : start + _BODY]).raise_for_status()
        while _passes(client) != (before := _passes(client)) or before < given.failing:
            time.sleep(_QUIET_SECONDS)
        _scrape(client, server.process.pid, given.scrapes)


def _passes(client: httpx2.Client) -> float:
    """Passes over incidents so far, `_QUIET_SECONDS` later."""
    time.sleep(_QUIET_SECONDS)
    text = client.get("/metrics").raise_for_status().text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("heal_passes_total")
    )


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _scrape(client: httpx2.Client, pid: int, scrapes: int) -> None:
    read: list[float] = []
    reused: list[float] = []
    size, cpu, seconds = 0, 0.0, 0.0
    started, cpu_started = time.perf_counter(), _cpu_ms(pid)
    time.sleep(2 * REMEMBERED_SECONDS)
    background = (_cpu_ms(pid) - cpu_started) / (time.perf_counter() - started)
    for _ in range(scrapes):
        time.sleep(REMEMBERED_SECONDS + 0.1)
        cpu_before, before = _cpu_ms(pid), time.perf_counter()
        for times in (read, reused):
            began = time.perf_counter()
            answer = client.get("/metrics")
            times.append((time.perf_counter() - began) * 1000)
            size = len(answer.raise_for_status().content)
        cpu += _cpu_ms(pid) - cpu_before
        seconds += time.perf_counter() - before
    for name, times in (("read", read), ("reused", reused)):
        times.sort()
        median = times[len(times) // 2]
        print(f"{name}: least {times[0]:.1f} ms, median {median:.1f} ms, most {times[-1]:.1f} ms")
    own = (cpu - background * seconds) / scrapes
    print(f"{size} bytes, {own:.1f} ms of processor time for one of each; {background:.0f} ms/s besides")


if __name__ == "__main__":
    main()

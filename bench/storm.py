"""Latency of the kill switch under storms of deliveries: `bench.kill_switch --deliveries`.

A real server, first on SQLite, then on PostgreSQL, takes one delivery of 2 MB, then
twenty of 1 MB at the same time; refused senders retry after the time in
Retry-After, until everything is accepted. Meanwhile an operator engages and releases
the switch over HTTP.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from bench.processes import percentile
from bench.serving import Server, delivery, start_server
from testbed.postgres import postgres_server
from testbed.supervisor import Supervisor

STORMS = {"one of 2 MB": (1, 2_000_000), "20 at once of 1 MB": (20, 1_000_000)}
SERVICES = 50
MAX_BODY_BYTES = 4_194_304
STORM_SECONDS = 1_200.0
"""When senders stop sending again what was refused. A storm takes some two minutes on two quiet cores."""
PATIENCE_SECONDS = 1_200.0
"""For one answer: a bound for a loaded machine, not a figure."""
PAUSE_SECONDS = 0.02
_PROGRAM = [sys.executable, "-c", "from app.cli import main; main()", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one storm cost the operator, and the senders."""

    latencies: list[float]
    accepted: int
    sent: int
    refused: int
    seconds: float
    given_up: int
    """Deliveries that were still refused when the storm ended."""


@dataclass(slots=True, kw_only=True)
class Sender:
    """One delivery, sent until it is accepted."""

    url: str
    body: bytes
    refused: int = 0
    given_up: bool = False

    def deliver(self) -> int:
        """How many signals the server acknowledged; 0 where it refused until the storm ended."""
        headers, deadline = {"Content-Type": "application/json"}, time.monotonic() + STORM_SECONDS
        with httpx2.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while time.monotonic() < deadline:
                answer = client.post(f"{self.url}/webhooks/alertmanager", content=self.body, headers=headers)
                if answer.status_code == 202:
                    return len(answer.json()["items"])
                if answer.status_code not in (429, 503) or "Retry-After" not in answer.headers:
                    raise RuntimeError(f"a delivery was answered {answer.status_code}: {answer.text[:300]}")
                self.refused += 1
                time.sleep(float(answer.headers["Retry-After"]))
        self.given_up = True
        return 0


@contextmanager
def operator(server: Server, latencies: list[float]) -> Iterator[None]:
    """A person who sets the kill switch again and again until the block ends."""
    over = threading.Event()

    def operate() -> None:
        engaged = False
        with httpx2.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while not over.is_set():
                engaged = not engaged
                said = {"engaged": engaged, "by": "bench", "reason": "bench"}
                began = time.monotonic()
                client.put(f"{server.url}/brakes/kill-switch", json=said).raise_for_status()
                latencies.append(time.monotonic() - began)
                time.sleep(PAUSE_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        operating = pool.submit(operate)
        try:
            yield
        finally:
            over.set()
            operating.result()


def storm(server: Server, count: int, size: int, name: str) -> Figures:
    """So many deliveries of that size at once, and an operator beside them."""
    latencies: list[float] = []
    senders = [
        Sender(url=server.url, body=delivery(size, f"{name}-{number}", SERVICES)) for number in range(count)
    ]
    sent = sum(sender.body.count(b'"startsAt"') for sender in senders)
    with ThreadPoolExecutor(count) as pool, operator(server, latencies):
        began = time.monotonic()
        accepted = sum(pool.map(Sender.deliver, senders))
        seconds = time.monotonic() - began
    return Figures(
        latencies=latencies,
        accepted=accepted,
        sent=sent,
        refused=sum(sender.refused for sender in senders),
        seconds=seconds,
        given_up=sum(sender.given_up for sender in senders),
    )


def measure_deliveries(databases: Sequence[str]) -> None:
    """Both storms on each database; each is printed when it is over."""
    supervisor = Supervisor()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, postgres_server(supervisor) as database:
            urls = {
                "sqlite": f"sqlite:///{folder}/heal.db",
                "postgresql": database.url(database.create()),
            }
            for kind, url in ((each, urls[each]) for each in databases):
                settings = {
                    "DATABASE_URL": url,
                    "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
                    "LOG_LEVEL": "error",
                }
                server = start_server(supervisor, Path(folder), _PROGRAM, settings, kind)
                for name, (count, size) in STORMS.items():
                    _print(f"{kind}, {name}", storm(server, count, size, f"{count}-{size}"))
                server.process.stop(grace_seconds=20)
    finally:
        supervisor.close()


def _print(name: str, found: Figures) -> None:
    ordered = [1000 * each for each in found.latencies]
    print(
        f"{name}: kill switch p50 {percentile(ordered, 0.5):.0f} ms, p99 {percentile(ordered, 0.99):.0f} ms, "
        f"most {max(ordered):.0f} ms over {len(ordered)} calls; {found.accepted:,} of {found.sent:,} signals "
        f"accepted in {found.seconds:.0f} s after {found.refused} refusals, "
        f"{found.given_up} deliveries given up; load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )

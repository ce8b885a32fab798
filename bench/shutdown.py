"""Duration of a shutdown: from SIGTERM to the exit, with every peer hanging.

`python -m bench.shutdown`: a real server on SQLite, sixty open incidents whose
passes wait for a Prometheus that never answers, senders whose bodies drip, clients
that do not read. It prints the seconds from SIGTERM to the exit over several rounds,
for `heal run` and for the quickstart's bare uvicorn. Bounded in rounds and time.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.table import Table

from bench.processes import percentile
from bench.serving import Server, failed_deploy, silent_peer, start_server
from testbed.supervisor import Supervisor

INCIDENTS = 60
DRIPPING = 20
UNREAD = 5
SETTLE_SECONDS = 3.0
PATIENCE_SECONDS = 600.0
"""A bound for a loaded machine, not a figure."""
PROGRAMS = {
    "heal run": [sys.executable, "-c", "from app.cli import main; main()", "run"],
    "uvicorn": [sys.executable, "-m", "uvicorn", "app.main:app"],
}


def crowd(server: Server, stack: ExitStack) -> None:
    """Incidents whose passes hang, bodies that drip, and clients that never read."""
    events = [failed_deploy(f"shop-{number}") for number in range(INCIDENTS)]
    httpx2.post(
        f"{server.url}/events/deploy", json=events, timeout=PATIENCE_SECONDS, trust_env=False
    ).raise_for_status()
    address = urlsplit(server.url)
    head = f"POST /events/deploy HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    for _ in range(DRIPPING):
        wire = stack.enter_context(socket.create_connection((address.hostname, address.port)))
        wire.sendall(head.encode() + b"Content-Length: 1000\r\n\r\n{")
    for _ in range(UNREAD):
        wire = stack.enter_context(socket.create_connection((address.hostname, address.port)))
        wire.sendall(f"GET /openapi.json HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode() * 20)


def one_round(supervisor: Supervisor, name: str, number: int, peer: str) -> tuple[float, int]:
    """Seconds from SIGTERM to the exit, and the exit code."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        settings = {
            "DATABASE_URL": f"sqlite:///{folder}/heal.db",
            "PROMETHEUS_URL": peer,
            "INCIDENT_SETTLE_SECONDS": "0",
            "LOG_LEVEL": "warning",
        }
        server = start_server(supervisor, Path(folder), PROGRAMS[name], settings, f"agent-{number}")
        try:
            crowd(server, stack)
            time.sleep(SETTLE_SECONDS)
            os.kill(server.process.pid, signal.SIGTERM)
            began = time.monotonic()
            while (code := server.process.exit_code()) is None:
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise TimeoutError(f"{name} does not end:\n{server.process.log_tail()}")
                time.sleep(0.02)
            return time.monotonic() - began, code
        finally:
            server.process.stop()


def main() -> None:
    """Start, crowd, stop, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    table = Table("seconds from SIGTERM to exit", "p50", "most", "exit codes")
    supervisor = Supervisor()
    try:
        with silent_peer() as peer:
            for name in PROGRAMS:
                found = [one_round(supervisor, name, number, peer) for number in range(given.rounds)]
                seconds = [took for took, _ in found]
                codes = ", ".join(str(code) for code in sorted({code for _, code in found}))
                table.add_row(name, f"{percentile(seconds, 0.5):.1f}", f"{max(seconds):.1f}", codes)
    finally:
        supervisor.close()
    console = Console()
    console.print(table)
    console.print(
        f"{given.rounds} rounds each: {INCIDENTS} incidents, Prometheus silent, {DRIPPING} bodies that drip, "
        f"{UNREAD} clients that do not read"
    )


if __name__ == "__main__":
    main()

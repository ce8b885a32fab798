"""Helpers of the benches over HTTP: a real server of the product, senders, and an unresponsive peer."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from testbed.ports import free_ports
from testbed.supervisor import Process, Supervisor

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 1_200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One running server."""

    process: Process
    url: str


def start_server(
    supervisor: Supervisor, folder: Path, program: Sequence[str], settings: Mapping[str, str], name: str
) -> Server:
    """Start `program` with `--port` of its own and wait until it is ready to serve."""
    [port] = free_ports(1)
    environment = {"RUNBOOKS_DIR": str(ROOT / "runbooks"), "PYTHONPATH": str(ROOT), **settings}
    process = supervisor.start(
        name, [*program, "--port", str(port)], log=folder / f"{name}.log", env=environment
    )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_SECONDS
    while True:
        process.check()
        try:
            if httpx2.get(f"{url}/healthz", timeout=5, trust_env=False).status_code == 200:
                return Server(process=process, url=url)
        except httpx2.TransportError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} did not come up:\n{process.log_tail()}")
        time.sleep(0.1)


@contextmanager
def silent_peer() -> Iterator[str]:
    """The address of a server on loopback that takes every connection and never answers."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:

        def take() -> None:
            while True:
                try:
                    taken.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for each in taken:
                each.close()


def failed_deploy(service: str) -> dict[str, str]:
    """An event that opens an incident now."""
    return {
        "service": service,
        "environment": "prod",
        "version": "1.15.0",
        "status": "failed",
        "timestamp": datetime.now(UTC).isoformat(),
    }


def delivery(size: int, name: str, services: int) -> bytes:
    """A delivery of Alertmanager of about so many bytes: alerts of so many services, all of them new."""
    alerts: list[object] = []
    now = datetime.now(UTC).isoformat()
    one = 0
    while one * max(1, len(alerts)) < size:
        alerts.append(
            {
                "status": "firing",
                "labels": {
                    "alertname": "HighErrorRate",
                    "service": f"{name}-{len(alerts) % services}",
                    "environment": "prod",
                },
                "annotations": {"summary": "the error rate is high"},
                "startsAt": now,
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus/graph",
                "fingerprint": uuid.uuid4().hex[:16],
            }
        )
        one = one or len(json.dumps(alerts[0]))
    document = {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "heal",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": alerts,
    }
    return json.dumps(document).encode()

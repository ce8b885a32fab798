"""The real server process: the quickstart's lines, and bytes on the wire that no HTTP client sends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.api.harness import DEPLOY, METRIC, RUNBOOKS, assert_problem

REPOSITORY = RUNBOOKS.parent
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running `uvicorn app.main:app` in an empty folder."""

    popen: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def exchange(self, raw: bytes, *, finish: bool = False) -> bytes:
        """Send bytes as they are and read until the server closes; `finish` ends our side first."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as wire:
            wire.sendall(raw)
            if finish:
                wire.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionResetError):  # closed on a sender that was not done
                while chunk := wire.recv(65_536):
                    received += chunk
        return received


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Started as the quickstart does, with the example settings and a folder of its own."""
    folder: Path = tmp_path_factory.mktemp("server")
    shutil.copy(REPOSITORY / ".env.example", folder / ".env")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    popen = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(REPOSITORY), "RUNBOOKS_DIR": str(RUNBOOKS), "MAX_BODY_BYTES": "65536"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert popen.stderr is not None
    said: list[str] = []
    for line in popen.stderr:
        said.append(line)
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            yield Process(popen=popen, port=int(found[1]))
            break
    else:
        pytest.fail("".join(said))
    popen.send_signal(signal.SIGTERM)
    _, rest = popen.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in rest
    assert "Application shutdown complete" in rest


def test_the_quickstart_gives_a_decided_incident(process: Process) -> None:
    """A failed deploy, a bad metric and one pass: diagnosis, plan, decisions, dry run and timeline."""
    with httpx2.Client(base_url=process.url, timeout=PATIENCE_SECONDS) as client:
        opened = client.post("/events/deploy", json=DEPLOY).json()
        client.post("/events/metric", json=METRIC)
        answer = client.post("/agent/run-once?service=payments-api").json()
        incident = client.get(f"/incidents/{opened['incident_id']}").json()
    assert answer["service"] == "payments-api"
    assert incident["stale"] is True
    assert incident["dry_run"] is True
    assert incident["diagnosis"]["cause"]
    assert incident["plan"]["hash"]
    assert {entry["stage"] for entry in incident["timeline"]} >= {"observe", "diagnose", "plan"}


def test_health_readiness_and_documentation_answer(process: Process) -> None:
    """What a person or an orchestrator asks first."""
    with httpx2.Client(base_url=process.url, timeout=PATIENCE_SECONDS) as client:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/dashboard", "/incidents"):
            assert client.get(path).status_code == 200


def _request(*headers: str, body: bytes = b"") -> bytes:
    head = ["POST /events/metric HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


_BODY = json.dumps(METRIC).encode()
_JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        (_request(_JSON, f"Content-Length: {len(_BODY) + 100}", body=_BODY), True),
        (_request(_JSON, f"Content-Length: {len(_BODY) - 10}", body=_BODY), True),
        (_request(_JSON, "Content-Length: -5", body=_BODY), True),
        (_request(_JSON, "Content-Length: 99999999999999999999", body=_BODY), True),
        (_request(_JSON, "Content-Length: 5", "Content-Length: 6", body=_BODY), True),
        (_request(_JSON, "Transfer-Encoding: chunked", body=b"zz\r\n"), True),
        (_request(_JSON, "Transfer-Encoding: chunked", body=b'5\r\n{"a":\r\n'), True),
        (_request(_JSON, "Transfer-Encoding: chunked", body=b"FFFFF\r\n" + b" " * 200_000), False),
        (b"POST /events/m\xffetric HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", True),
        (b"GET /incidents/\x01 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", True),
        (b"GET /incidents?limit=%zz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", True),
        (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", True),
        (
            b"GET http://evil.example/incidents HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            True,
        ),
        (b"\x16\x03\x01\x02\x00", True),
    ],
)
def test_odd_bytes_are_refused_and_survived(process: Process, raw: bytes, finish: bool) -> None:
    """A 4xx or a closed connection, never a 5xx, and the next request is answered."""
    answer = process.exchange(raw, finish=finish)
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:200]
    assert httpx2.get(f"{process.url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200


def test_a_body_without_end_is_cut_at_the_limit(process: Process) -> None:
    """The server answers 413 while the sender still sends."""

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    response = httpx2.post(
        f"{process.url}/events/metric",
        content=endless(),
        headers={"Content-Type": "application/json"},
        timeout=PATIENCE_SECONDS,
    )
    assert_problem(response, 413)

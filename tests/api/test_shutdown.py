"""SIGTERM to a real process: it claims nothing more and ends in order, whatever hangs around it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from app.stopping import HARD_SECONDS
from tests.api.harness import DEPLOY, RUNBOOKS

REPOSITORY = RUNBOOKS.parent
PATIENCE_SECONDS = 120.0
INCIDENTS = 60
PROGRAMS = {
    "heal run": [sys.executable, "-c", "from app.cli import main; main()", "run", "--port", "0"],
    "uvicorn": [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"],
}


@contextmanager
def silent_peer() -> Iterator[str]:
    """A Prometheus that takes every connection and never answers."""
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


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_a_process_ends_in_time_whatever_hangs(tmp_path: Path, program: str) -> None:
    """Sixty incidents wait for a silent Prometheus, and bodies drip: it ends in order all the same."""
    shutil.copy(REPOSITORY / ".env.example", tmp_path / ".env")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with silent_peer() as peer, ExitStack() as stack:
        settings = {"PROMETHEUS_URL": peer, "INCIDENT_SETTLE_SECONDS": "0", "RUNBOOKS_DIR": str(RUNBOOKS)}
        popen = subprocess.Popen(
            PROGRAMS[program],
            cwd=tmp_path,
            env={**kept, **settings, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        stack.callback(popen.kill)
        port = _port(popen)
        now = datetime.now(UTC).isoformat()
        events = [{**DEPLOY, "service": f"shop-{number}", "timestamp": now} for number in range(INCIDENTS)]
        url = f"http://127.0.0.1:{port}/events/deploy"
        assert httpx2.post(url, json=events, timeout=PATIENCE_SECONDS).status_code == 202
        for _ in range(5):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            wire.sendall(
                b"POST /events/deploy HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
        began = time.monotonic()
        popen.send_signal(signal.SIGTERM)
        _, said = popen.communicate(timeout=PATIENCE_SECONDS)
        took = time.monotonic() - began
    assert "Application shutdown complete" in said
    assert "is terminated" not in said
    assert popen.returncode in (0, -signal.SIGTERM)
    assert took < HARD_SECONDS + 1


def _port(popen: subprocess.Popen[str]) -> int:
    assert popen.stderr is not None
    said: list[str] = []
    for line in popen.stderr:
        said.append(line)
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    pytest.fail("".join(said))

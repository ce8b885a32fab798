"""`python -m testbed`: one command brings a bed up for people, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from dotenv import dotenv_values

from testbed.waiting import NotYet, wait_for
from testbed.workloads import Workloads

pytestmark = pytest.mark.real
NO_AGENT = "http://127.0.0.1:9"
"""It has no listener: a test's alerts must not reach an agent that a person runs."""

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path, testbed_world: object) -> Path:
    """An empty working folder; the session's bed stands for the programs being at hand."""
    return tmp_path


def _command(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "testbed", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_AGENT_URL": NO_AGENT}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A bed in the foreground of another process, up and furnished."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed", "up"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder),
                "TESTBED_AGENT_URL": NO_AGENT,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(
            ".testbed/env",
            lambda: (folder / ".testbed" / "env").exists() or NotYet((folder / "log").read_text()),
            timeout_seconds=90,
        )
        yield process
    finally:
        process.kill()
        process.wait()


def _using(folder: Path) -> list[int]:
    """Processes whose command line names the bed's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{folder}/heal-testbed-".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


def test_up_status_down(running: subprocess.Popen[bytes], folder: Path) -> None:
    """The settings it leaves are good; a second bed is refused; `down` ends the first."""
    settings = dotenv_values(folder / ".testbed" / "env")
    bed = Workloads.connect(Path(str(settings["KUBECONFIG"])))
    assert bed.image("prod", "payments-api").endswith("payments-api:1.14.2")
    bed.client.close()
    assert httpx2.get(str(settings["TESTBED_SERVICE_URL"])).status_code == 200
    assert httpx2.get(f"{settings['PROMETHEUS_URL']}/-/ready").status_code == 200
    status = _command(folder, "status")
    assert (status.returncode, f"pid {running.pid}" in status.stdout) == (0, True)
    second = _command(folder, "up")
    assert (second.returncode, "runs here already" in second.stderr) == (1, True)
    assert _command(folder, "down").returncode == 0
    assert running.wait(timeout=120) == 0
    assert _using(folder) == []
    assert not (folder / ".testbed" / "env").exists()
    assert _command(folder, "status").returncode == 1


def test_nothing_survives_kill_9(running: subprocess.Popen[bytes], folder: Path) -> None:
    """The owner is killed without a chance to clean up: every part of the bed dies with it."""
    assert len(_using(folder)) >= 8
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    wait_for(
        "all parts to end",
        lambda: NotYet(f"{left} alive") if (left := _using(folder)) else True,
        timeout_seconds=10,
    )
    assert _command(folder, "status").returncode == 1

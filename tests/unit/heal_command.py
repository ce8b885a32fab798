"""The `heal` command in a test: run in an empty folder, or as an agent in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from app.cli import main
from tests.forked import Forked, forked

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person sees of one command."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Output as one line, whatever the terminal's width made of it."""
        return " ".join((self.out + self.err).split())


Heal = Callable[..., Answer]


@pytest.fixture
def heal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Heal:
    """Run `heal` in an empty folder, with settings of its own and no agent around."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runbooks").symlink_to(REPOSITORY / "runbooks")
    for name in ("DRY_RUN", "DATABASE_URL", "KUBECONFIG", "PROMETHEUS_URL", "HOST", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PORT", str(free_port()))

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["heal", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        seen = capsys.readouterr()
        return Answer(code=code, out=seen.out, err=seen.err)

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_agent(folder: Path) -> Iterator[str]:
    """`heal run` on a free port, in a process of its own; its address."""
    with agent_process(folder) as (url, _):
        yield url


@contextmanager
def agent_process(folder: Path, *command_line: str, port: int | None = None) -> Iterator[tuple[str, Forked]]:
    """The same, or another command that serves, with the process itself; its log is `agent.log`."""
    port = port or free_port()
    said = [*(command_line or ("run",)), "--port", str(port)]
    (folder / "agent.log").write_text("")
    agent = forked(said, folder=folder, environment=os.environ, log=folder / "agent.log")
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, agent, folder / "agent.log")
        yield url, agent
    finally:
        agent.send_signal(signal.SIGINT)
        try:
            agent.wait(timeout=120)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()


def wait_until_ready(url: str, agent: Forked, log: Path) -> None:
    """Return once it serves; fail the test with its log if it ends before."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and agent.poll() is None:
        try:
            if httpx2.get(f"{url}/readyz", timeout=20, verify=False).status_code == httpx2.codes.OK:
                return
        except httpx2.HTTPError:
            time.sleep(0.1)
    pytest.fail(f"the agent did not start:\n{log.read_text()}")

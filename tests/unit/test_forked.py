"""A forked process has the arguments, environment, folder, output and group of one that was started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.forked import forked
from tests.unit.heal_command import REPOSITORY, free_port, wait_until_ready


def test_the_application_serves_with_settings_of_its_own_and_is_killed(tmp_path: Path) -> None:
    """As `python -m uvicorn app.main:app`, which reads the settings when it is imported."""
    database, log, port = tmp_path / "own.db", tmp_path / "agent.log", free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{database}",
        "RUNBOOKS_DIR": str(REPOSITORY / "runbooks"),
    }
    arguments = ["app.main:app", "--port", str(port)]
    agent = forked(arguments, module="uvicorn", folder=tmp_path, environment=environment, log=log)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", agent, log)
        assert database.exists()
        assert "Uvicorn running" in log.read_text()
        assert os.getpgid(agent.pid) == agent.pid
        assert Path(f"/proc/{agent.pid}/cwd").resolve() == tmp_path.resolve()
    finally:
        os.killpg(agent.pid, signal.SIGKILL)
    assert agent.wait(120) == -signal.SIGKILL


def test_the_code_of_a_command_is_its_exit_code(tmp_path: Path) -> None:
    """A command that fails says why in its output."""
    log = tmp_path / "heal.log"
    agent = forked(["no-such-command"], folder=tmp_path, environment={}, log=log)
    assert agent.wait(120) == 2
    assert agent.poll() == agent.returncode == 2
    assert "no-such-command" in log.read_text()

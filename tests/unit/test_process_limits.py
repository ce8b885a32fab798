"""What a process sets for itself when it starts to serve: open files, and what collections visit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

_START = """
import asyncio, gc, resource
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], {most})
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
from app.main import create_app
async def start():
    app = create_app()
    async with app.router.lifespan_context(app):
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard, gc.get_freeze_count() > 10_000)
asyncio.run(start())
"""


def _started(folder: Path, most: int) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", _START.format(most=most)],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(REPOSITORY), "RUNBOOKS_DIR": str(REPOSITORY / "runbooks")},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


def test_a_server_may_open_as_many_files_as_the_hard_limit(tmp_path: Path) -> None:
    """The soft limit of a shell would not hold the connections, and collections leave out what was loaded."""
    done = _started(tmp_path, most=4_096)
    assert done.stdout.split() == ["True", "True"]
    assert "the limit of open files" not in done.stderr


def test_a_hard_limit_below_the_connections_is_logged(tmp_path: Path) -> None:
    """With the setting to lower, and where to raise the limit."""
    done = _started(tmp_path, most=800)
    assert "the limit of open files is 800: MAX_CONNECTIONS=768 may exhaust it" in done.stderr

"""kill -9 at each step of a backup and of a restore of SQLite: the database is whole; a repetition works."""

from __future__ import annotations

import shutil
import signal as signals
import subprocess
import sys
from pathlib import Path

import pytest

from app.store.maintenance import back_up, restore
from tests.contract.test_store_backup import fill, fill_more, verified

_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.store.maintenance import back_up, restore

left = int(sys.argv[1])
EVENTS = {"os.rename", "os.link", "os.remove"}


def at_a_step(event, arguments):
    global left
    if event in EVENTS and sys.argv[3] in str(arguments[0]) and os.path.exists(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


what = sys.argv[2]
url, file = f"sqlite:///{sys.argv[4]}", Path(sys.argv[5])
sys.addaudithook(at_a_step)
asyncio.run(back_up(url, file) if what == "backup" else restore(url, file, replace=True))
"""
"""Ends itself before the step of this number: a file that is there is linked, renamed or removed."""


def _killed_at(step: int, what: str, folder: Path) -> bool:
    """Whether the process was killed; False: it has fewer steps and ran to its end."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(step), what, str(folder), folder / "heal.db", folder / "backup"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in (0, -signals.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A database with three decisions, and its backup with two of them."""
    folder = tmp_path / "filled"
    folder.mkdir()
    url = f"sqlite:///{folder / 'heal.db'}"
    await fill(url)
    await back_up(url, folder / "backup")
    await fill_more(url)
    return folder


async def test_a_killed_restore_leaves_the_old_database_or_the_new_one(filled: Path, tmp_path: Path) -> None:
    """Never none, in whose place an agent would create an empty one, and never one that does not verify."""
    found, step = [], 0
    while True:
        folder = tmp_path / f"step-{step}"
        shutil.copytree(filled, folder)
        killed = _killed_at(step, "restore", folder)
        assert (folder / "heal.db").stat().st_size > 0, step
        state = await verified(f"sqlite:///{folder / 'heal.db'}")
        assert state.findings == (), step
        found.append(state.decisions)
        kept = list(folder.glob("heal.db.replaced-*Z"))
        if state.decisions == 2:
            assert [(await verified(f"sqlite:///{one}")).decisions for one in kept] == [3], step
        if not killed:
            break
        await restore(f"sqlite:///{folder / 'heal.db'}", folder / "backup", replace=True)
        again = await verified(f"sqlite:///{folder / 'heal.db'}")
        assert (again.decisions, again.findings) == (2, ()), step
        assert not list(folder.glob("*.restoring*")), step
        step += 1
    assert found == sorted(found, reverse=True)
    assert {2, 3} <= set(found[:-1]), "no process was killed on both sides of the exchange"


async def test_a_killed_backup_leaves_no_file_that_is_not_whole(filled: Path, tmp_path: Path) -> None:
    """The name of a backup stands for a complete one; the command succeeds when it is repeated."""
    (filled / "backup").unlink()
    step = 0
    while True:
        folder = tmp_path / f"step-{step}"
        shutil.copytree(filled, folder)
        killed = _killed_at(step, "backup", folder)
        url = f"sqlite:///{folder / 'heal.db'}"
        if killed:
            assert not (folder / "backup").exists() or not list(folder.glob("backup.part")), step
            if not (folder / "backup").exists():
                await back_up(url, folder / "backup")
        assert (await verified(f"sqlite:///{folder / 'backup'}")).decisions == 3, step
        assert (await verified(url)).findings == (), step
        if not killed:
            break
        step += 1
    assert step >= 1

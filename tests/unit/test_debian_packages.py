"""Missing programs are installed once, also where several processes ask for them at the same time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "debian.sh"

pytestmark = pytest.mark.skipif(not Path("/var/lib/dpkg").is_dir(), reason="this system is not Debian")

APT = """#!/bin/sh
echo "$*" >> {folder}/asked
if [ -n "$APT_SAYS" ] && [ ! -e {folder}/said ]; then
    touch {folder}/said
    echo "$APT_SAYS" >&2
    exit 100
fi
case "$*" in *install*) printf '#!/bin/sh\\n' > {folder}/gizmo; chmod +x {folder}/gizmo;; esac
"""
LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 17 (apt-get)"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder at the front of PATH with an apt-get that installs `gizmo`; the user is root."""
    stand_ins = {
        "apt-get": APT.format(folder=tmp_path),
        "id": "#!/bin/sh\necho 0\n",
        "sleep": "#!/bin/sh\n",
    }
    for name, content in stand_ins.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def _start(programs: Path, says: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, "gizmo=gizmo-tools"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "APT_SAYS": says},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _asked(programs: Path) -> list[str]:
    return [line.split("-qq ")[1] for line in (programs / "asked").read_text().splitlines()]


INSTALL = "install -y --no-install-recommends gizmo-tools"


def test_processes_that_ask_at_the_same_time_install_once(programs: Path) -> None:
    """One installs, the others wait and find the program."""
    running = [_start(programs) for _ in range(6)]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 6, ended
    assert _asked(programs) == ["update", INSTALL]
    assert sum("Installing gizmo-tools" in out for out, _ in ended) == 1


def test_a_lock_of_another_program_is_waited_for(programs: Path) -> None:
    """The same step is tried again."""
    process = _start(programs, LOCKED)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert _asked(programs) == ["update", "update", INSTALL]


def test_any_other_failure_is_reported_at_once(programs: Path) -> None:
    """With what apt-get said."""
    process = _start(programs, "E: Failed to fetch the index")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.strip() == "apt-get update failed: E: Failed to fetch the index"
    assert _asked(programs) == ["update"]

"""The commands of the how-tos, run in order as they stand, on a database with one incident."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.api.stories import awaiting
from tests.unit.heal_command import REPOSITORY, Heal
from tests.unit.test_cli_people import in_file

PAGES = ("first-week", "troubleshoot", "backup", "upgrade", "high-availability")
ELSEWHERE = {
    "heal run --role api": "tests/contract/test_roles.py",
    "heal run --role worker": "tests/contract/test_roles.py",
    "heal run --role watch": "tests/contract/test_roles.py",
    "heal watch": "tests/unit/test_cli_sandbox.py",
    "heal runbooks simulate": "tests/timeline/test_sandbox_scenarios.py",
    "helm upgrade heal": "tests/contract/test_chart.py",
}
"""Commands that do not end, take a minute or need a cluster, and the test that runs them."""

_BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """The lines of its shell blocks."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    lines = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
    return [line for line in lines if not any(line.startswith(one) for one in ELSEWHERE)]


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_how_to_succeeds(
    page: str, heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ids and folders of this machine in place of those of the page."""
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    (tmp_path / "policies").symlink_to(REPOSITORY / "policies")
    (tmp_path / "backups").mkdir()
    approval_id = in_file(tmp_path, awaiting)
    found = commands(page)
    assert found or page == "high-availability"
    for command in found:
        words = shlex.split(command.replace("/backups/", f"{tmp_path}/backups/"), comments=True)
        answering = words[1] in ("approve", "deny")
        own = approval_id if answering else approval_id.replace("apr_", "inc_")
        if words[1:3] == ["db", "restore"]:
            monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
        answer = heal(*(own if word == "ID" else word for word in words[1:]))
        assert answer.code == 0, (command, answer.text)


def test_what_runs_elsewhere_runs_there() -> None:
    """The tests that the exceptions name exist."""
    assert all((REPOSITORY / name).is_file() for name in ELSEWHERE.values())

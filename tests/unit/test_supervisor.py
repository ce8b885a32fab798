"""The supervisor of the test bed ends what it started, and nothing that others started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    found = Supervisor()
    yield found
    found.close()


def _ended(process: Process) -> int:
    def code() -> int | NotYet:
        found = process.exit_code()
        return NotYet("it runs") if found is None else found

    return wait_for("the program to end", code, timeout_seconds=5)


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", -signal.SIGKILL)])
def test_the_number_of_a_program_that_ended_stays_taken_until_its_group_is_killed(
    supervisor: Supervisor, tmp_path: Path, script: str, code: int
) -> None:
    """Another program could be given the number, and would be killed in its place."""
    process = supervisor.start("short", ["sh", "-c", script], log=tmp_path / "log")
    assert [_ended(process), process.exit_code()] == [code, code]
    os.kill(process.pid, 0)  # it is not free
    process.stop()
    assert process.exit_code() == code
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.stop()


def test_a_stop_ends_the_whole_group(supervisor: Supervisor, tmp_path: Path) -> None:
    """The leader and what it started."""
    script = "(echo $BASHPID; exec sleep 600) & wait"
    process = supervisor.start("group", ["bash", "-c", script], log=tmp_path / "log")

    def child() -> int | NotYet:
        told = process.log.read_text().strip()
        return int(told) if told else NotYet("nothing is logged")

    other = wait_for("the child to start", child, timeout_seconds=5)
    process.stop()
    assert process.exit_code() == -signal.SIGKILL

    def gone() -> bool | NotYet:
        try:
            state = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return True if state == "Z" else NotYet(state)

    wait_for("the child to end", gone, timeout_seconds=5)

"""A program that the test bed freezes has stopped whole when `freeze` returns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.freezing import freeze, thaw

THREADS = 6
PROGRAM = f"""
import sys, threading, time, zlib
block = bytes(1 << 20)
def work():
    while True:
        zlib.crc32(block)
for _ in range({THREADS}):
    threading.Thread(target=work, daemon=True).start()
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A program with threads that all want the processor."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        yield child
    finally:
        child.kill()
        child.communicate()


def states(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks]


def test_every_thread_has_stopped_when_freeze_returns(program: subprocess.Popen[str]) -> None:
    for _ in range(20):
        freeze(program.pid)
        assert states(program.pid) == ["T"] * (THREADS + 1)
        thaw(program.pid)


def test_a_program_that_has_ended_counts_as_stopped() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    freeze(ended.pid)
    thaw(ended.pid)

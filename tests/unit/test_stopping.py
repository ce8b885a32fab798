"""What ends a process that was asked to stop and hangs."""

from __future__ import annotations

import subprocess
import sys

_HANGS = """
import asyncio, os, signal, time
from app import stopping

stopping.HARD_SECONDS = 0.1

async def hang() -> None:
    with stopping.Stop().on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

asyncio.run(hang())
"""


def test_a_process_whose_event_loop_hangs_ends_in_time() -> None:
    """Whatever holds the event loop, the process ends once its time is over."""
    done = subprocess.run([sys.executable, "-c", _HANGS], timeout=300, check=False, capture_output=True)
    assert done.returncode == 1
    assert b"did not stop within" in done.stderr

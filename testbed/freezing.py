"""Freezes programs where they stand, as a long garbage collection or a stalled disk does.

`SIGSTOP` is asynchronous: each thread of the program stops when the kernel next schedules
it, and on a busy machine one of them answers a request before that. `freeze` therefore
returns only when every thread has stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from testbed.waiting import NotYet, wait_for

_STOPPED = "T"
_GONE = ("X", "Z")
_STOP_SECONDS = 30.0


def freeze(*pids: int) -> None:
    """Stop every thread of these processes; a process that has ended counts as stopped.

    Their connections stay open and get no answer. Raises `DeadlineExceeded` when a thread
    does not stop, which happens in an uninterruptible system call.
    """
    _signal(pids, signal.SIGSTOP)
    wait_for(
        "every thread to stop",
        lambda: _all_stopped(pids),
        timeout_seconds=_STOP_SECONDS,
        interval_seconds=0.005,
    )


def thaw(*pids: int) -> None:
    """Continue these processes; one that has ended is left out."""
    _signal(pids, signal.SIGCONT)


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _all_stopped(pids: tuple[int, ...]) -> bool | NotYet:
    running = [f"{pid} is {states}" for pid in pids if (states := _running_states(pid))]
    return NotYet(", ".join(running)) if running else True


def _running_states(pid: int) -> str:
    """The states of the threads that still run, one letter each as in proc(5)."""
    states = ""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                if state != _STOPPED and state not in _GONE:
                    states += state
    return states

"""Starts the product in processes of its own, forked from one that has imported it already.

Importing the product takes 2.5 s of processor time, more than most tests that start it
need for the rest. A forked process has the arguments, environment, folder, output and
process group that a started one would have; what starts from the command line is tried by
`tests/api/test_shutdown.py`, `tests/api/test_server.py` and `scripts.check_readme`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from app.cli import main

PRELOADED = ["app.main", "app.cli", "app.simulation.sandbox", "uvicorn.protocols.http.httptools_impl"]
"""Imported once, by the server of forks, where the tests of this process start the product first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A process like `subprocess.Popen`, as far as tests use one."""

    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended. Raises `subprocess.TimeoutExpired` while it runs for longer than `timeout` s."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.process.name), timeout or 0)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal; to none that has ended."""
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def forked(
    arguments: Sequence[str], *, module: str = "", folder: Path, environment: Mapping[str, str], log: Path
) -> Forked:
    """Run `heal` with these arguments, or another module as a program, in a session of its own.

    Its output goes to the end of `log`.
    """
    process = _context().Process(
        target=_run, args=(module, list(arguments), str(folder), dict(environment), str(log))
    )
    process.start()
    return Forked(process=process)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(module: str, arguments: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    """The forked process, from here on what the command line would start."""
    os.setsid()
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.modules.pop("app.main", None)  # it reads the settings when it is imported
    sys.argv = [module or "heal", *arguments]
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        main()

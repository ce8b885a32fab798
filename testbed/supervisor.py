"""Starts the bed's programs so that none of them outlives its owner.

The programs are children of a small process of their own. It ends when the pipe
from its owner closes, which the kernel ensures however the owner dies, and kills
every process group it started; should it be killed itself, the kernel kills its
children (PR_SET_PDEATHSIG). The signal alone is not enough: it fires when the
starting *thread* ends, and test runners start things from threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import TestbedError

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 2000
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """One running program; its output goes to `log`."""

    name: str
    pid: int
    log: Path
    _supervisor: Supervisor

    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        answer = self._supervisor.ask({"op": "poll", "pid": self.pid})
        return None if answer["code"] is None else int(answer["code"])

    def stop(self, grace_seconds: float = 0.0) -> None:
        """End its whole process group; SIGTERM first when there is any grace. Safe to repeat."""
        self._supervisor.ask({"op": "stop", "pid": self.pid, "grace": grace_seconds})

    def check(self) -> None:
        """Raise `TestbedError` with the end of the log when it has ended by itself."""
        code = self.exit_code()
        if code is not None:
            raise TestbedError(f"{self.name} ended with {code}; its log {self.log} ends:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines it wrote."""
        text = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        return text if len(text) < _TAIL_BYTES else text.partition("\n")[2]


class Supervisor:
    """The owner's end: one child process that starts, watches and ends all others. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "testbed.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then stops things in order
            text=True,
        )

    def start(
        self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program in a process group of its own; `env` is added to the environment."""
        answer = self.ask({"op": "start", "argv": list(command), "log": str(log), "env": dict(env or {})})
        if "error" in answer:
            raise TestbedError(f"cannot start {name}: {answer['error']}")
        return Process(name, int(answer["pid"]), log, self)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer; raises `TestbedError` when the supervisor is gone."""
        with self._lock:
            stdin, stdout = self._child.stdin, self._child.stdout
            if stdin is None or stdout is None or stdin.closed:
                raise TestbedError("the test bed's supervisor is closed")
            try:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
                line = stdout.readline()
            except OSError as error:
                raise TestbedError(f"the test bed's supervisor is gone: {error}") from error
            if not line:
                raise TestbedError("the test bed's supervisor is gone")
            answer: dict[str, Any] = json.loads(line)
            return answer

    def close(self) -> None:
        """End everything that was started, and the supervisor. Safe to repeat."""
        with self._lock:
            if self._child.stdin is not None and not self._child.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    self._child.stdin.close()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()


# ------------------------------------------------------------------ the supervising process


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None while it runs.

    A child that ended is not reaped: until then its number is given to no other process,
    so that a later kill of its group cannot hit one that was started elsewhere.
    """
    if child.returncode is not None:
        return child.returncode
    found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _stop(child: subprocess.Popen[bytes], grace: float) -> int:
    if child.returncode is not None:
        return child.returncode
    if _ended(child) is None and grace > 0:
        _kill_group(child, signal.SIGTERM)
        until = time.monotonic() + grace
        while _ended(child) is None and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
    _kill_group(child, signal.SIGKILL)  # the leader may be gone and its children not
    return child.wait()


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(request["log"]).open("ab") as log:
        return subprocess.Popen(
            request["argv"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **request["env"]},
            process_group=0,
            preexec_fn=_die_with_parent,  # safe: this process has one thread
        )


def _serve() -> None:
    """Answer requests, one JSON object a line, until the owner's pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer: dict[str, Any]
            if request["op"] == "start":
                try:
                    child = _start(request)
                except OSError as error:
                    answer = {"error": str(error)}
                else:
                    children[child.pid] = child
                    answer = {"pid": child.pid}
            elif request["op"] == "poll":
                answer = {"code": _ended(children[request["pid"]])}
            else:
                answer = {"code": _stop(children[request["pid"]], request["grace"])}
            print(json.dumps(answer), flush=True)
    finally:
        for child in children.values():
            _stop(child, 0.0)


if __name__ == "__main__":
    _serve()

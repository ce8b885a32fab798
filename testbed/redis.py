"""A private Redis server on a loopback port that keeps its data when killed.

It writes every command to its append-only file before it answers, so that
acknowledged writes survive SIGKILL and a restart.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from testbed import TestbedError
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

_START_SECONDS = 20.0
_ANSWER_SECONDS = 2.0


@dataclass(kw_only=True)
class RedisServer:
    """One server; `port` stays the same over restarts."""

    supervisor: Supervisor
    directory: Path
    port: int = 0
    options: tuple[str, ...] = ()
    """Further command line options, such as `--requirepass`, `secret`."""
    _process: Process | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, on a free port the first time, and return when it serves its data."""
        if self.port:
            self._start((self.port,))
        else:
            start_on_free_ports(1, self._start, self.kill)

    def kill(self) -> None:
        """SIGKILL: no chance to write or say anything. Safe to repeat."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def stop(self) -> None:
        """Shut down regularly. Safe to repeat."""
        if self._process is not None:
            self._process.stop(grace_seconds=_START_SECONDS)
            self._process = None

    def _start(self, ports: tuple[int, ...]) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise TestbedError("redis-server not found: apt-get install --no-install-recommends redis-server")
        (self.port,) = ports
        self._process = process = self.supervisor.start(
            "redis",
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"),
                *self.options,
            ],
            log=self.directory / "redis.log",
        )
        wait_for(
            "Redis to serve its data",
            lambda: self._answers(process),
            timeout_seconds=_START_SECONDS,
            interval_seconds=0.02,
        )

    def _answers(self, process: Process) -> bool | NotYet:
        try:
            process.check()
        except TestbedError as error:
            # The words by which a port that was taken meanwhile is recognised.
            raise TestbedError(
                str(error).replace("Address already in use", "address already in use")
            ) from None
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(256)
        except OSError as error:
            return NotYet(str(error))
        if answer.startswith((b"+PONG", b"-NOAUTH")):
            return True
        return NotYet(answer.decode(errors="replace").strip())

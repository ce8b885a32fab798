"""A real Open Policy Agent, built from its Go module: the reference for the embedded policy engine.

Used by the policy contract and the bench. The version is that of `opa/go.mod`, which
go.sum pins by content; the program is built once into the cache folder of the bed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from testbed import TestbedError
from testbed.go_tool import GoTool
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

OPA = GoTool(
    name="opa",
    module="github.com/open-policy-agent/opa",
    package="github.com/open-policy-agent/opa",
    version_variable="github.com/open-policy-agent/opa/version.Version",
)
_START_SECONDS = 30.0
_ANSWER_SECONDS = 2.0
_TEST_SECONDS = 60.0


def opa_version() -> str:
    """The version that `opa/go.mod` asks for, such as `v1.22.2`."""
    return OPA.version()


def ensure_opa(tell: Callable[[str], None] = print) -> Path:
    """The program: from the cache, else built now (some five minutes). Raises `TestbedError`."""
    return OPA.ensure(tell)


def run_opa_tests(folder: Path) -> str:
    """What `opa test` says of a folder; raises `TestbedError` when a test fails."""
    done = subprocess.run(
        [str(ensure_opa()), "test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TEST_SECONDS,
    )
    if done.returncode != 0:
        raise TestbedError(f"opa test {folder} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(kw_only=True)
class OpaServer:
    """One server on a loopback port, with the policies of a folder; `port` stays the same over restarts."""

    supervisor: Supervisor
    directory: Path
    """Where its log goes."""
    policies: Path
    token: str | None = None
    """The bearer token that it wants, if any."""
    port: int = 0
    _process: Process | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise TestbedError("OPA does not run")
        return self._process.pid

    def start(self) -> None:
        """Start, on a free port the first time, and return when it answers."""
        if self.port:
            self._start((self.port,))
        else:
            start_on_free_ports(1, self._start, self.kill)

    def kill(self) -> None:
        """SIGKILL. Safe to repeat."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def put_data(self, path: str, value: object) -> None:
        """Replace a part of its data."""
        self._put(f"/v1/data/{path}", json=value)

    def put_policy(self, name: str, text: str) -> None:
        """Add or replace a module."""
        self._put(f"/v1/policies/{name}", content=text)

    def delete_policy(self, name: str) -> None:
        """Take a module away again."""
        httpx2.delete(f"{self.url}/v1/policies/{name}", timeout=_ANSWER_SECONDS).raise_for_status()

    def _put(self, path: str, *, json: object = None, content: str | None = None) -> None:
        reply = httpx2.put(self.url + path, json=json, content=content, timeout=_ANSWER_SECONDS)
        if not reply.is_success:
            raise TestbedError(f"OPA refuses {path}: {reply.text}")

    def _start(self, ports: tuple[int, ...]) -> None:
        (self.port,) = ports
        self._process = process = self.supervisor.start(
            "opa",
            [
                *(str(ensure_opa()), "run", "--server", "--addr", f"127.0.0.1:{self.port}"),
                *("--log-level", "error", "--ignore", "*_test.rego", "--disable-telemetry"),
                *(("--authentication=token", "--authorization=basic") if self.token else ()),
                str(self.policies),
                *self._system_policy(),
            ],
            log=self.directory / "opa.log",
        )
        wait_for(
            "OPA to answer",
            lambda: self._answers(process),
            timeout_seconds=_START_SECONDS,
            interval_seconds=0.05,
        )

    def _system_policy(self) -> tuple[str, ...]:
        """A rule that accepts requests with the token, and probes."""
        if self.token is None:
            return ()
        file = self.directory / "system.rego"
        file.write_text(
            "package system.authz\n\ndefault allow := false\n\n"
            f'allow if input.identity == "{self.token}"\n\nallow if input.path == ["health"]\n'
        )
        return (str(file),)

    def _answers(self, process: Process) -> bool | NotYet:
        process.check()
        try:
            reply = httpx2.get(f"{self.url}/health", timeout=_ANSWER_SECONDS)
        except httpx2.TransportError as error:
            return NotYet(str(error))
        return True if reply.is_success else NotYet(reply.text)

"""A real OpenID Connect provider, built from Go modules: the peer of the sign-in tests.

Used by the contract tests of sign-in. `oidc/main.go` is a small program around a certified
library of the version in `oidc/go.mod`, which go.sum pins by content; it is built
once into the cache folder of the bed, and again when its source changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from testbed import TestbedError
from testbed.binaries import go_program, locked
from testbed.ports import start_on_free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

MODULE = Path(__file__).parent / "oidc"
_SOURCES = ("go.mod", "go.sum", "main.go")
_START_SECONDS = 30.0
_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcUser:
    """A person with an account at the provider."""

    username: str
    password: str = field(repr=False)
    email: str
    email_verified: bool = True
    groups: tuple[str, ...] | None = None
    """None: the provider says nothing about groups."""

    @property
    def subject(self) -> str:
        return f"id-{self.username}"


def ensure_oidc(tell: Callable[[str], None] = print) -> Path:
    """The program: from the cache, else built now (under a minute). Raises `TestbedError`."""
    root = os.environ.get("HEAL_TESTBED_CACHE")
    sources = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in _SOURCES)).hexdigest()
    folder = (Path(root) if root else Path.home() / ".cache" / "heal-testbed") / f"oidc-{sources[:16]}"
    program = folder / "oidc"
    if not os.access(program, os.X_OK):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            if not os.access(program, os.X_OK):  # again: another process may have built it meanwhile
                _build(program, tell)
    return program


def _build(program: Path, tell: Callable[[str], None]) -> None:
    tell(f"building an OpenID Connect provider into {program.parent}; this happens once")
    unfinished = program.with_name(".oidc.building")
    try:
        done = subprocess.run(
            [go_program(), "build", "-p=1", "-trimpath", "-ldflags", "-s -w", "-o", str(unfinished), "."],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TestbedError(f"go build of {MODULE} failed:\n{done.stdout[-4000:]}")
        unfinished.replace(program)
    finally:
        unfinished.unlink(missing_ok=True)


@dataclass(kw_only=True)
class OidcServer:
    """One provider on a loopback port; `port` stays the same over restarts, its keys do not."""

    supervisor: Supervisor
    directory: Path
    """Where its users and its log go."""
    users: Sequence[OidcUser]
    client_id: str
    client_secret: str | None
    redirect_uri: str
    port: int = 0
    _process: Process | None = field(default=None, init=False)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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

    def _start(self, ports: tuple[int, ...]) -> None:
        (self.port,) = ports
        users = self.directory / "users.json"
        users.write_text(json.dumps({user.subject: _as_kept(user) for user in self.users}))
        secret = () if self.client_secret is None else ("-client-secret", self.client_secret)
        self._process = process = self.supervisor.start(
            "oidc",
            [
                *(str(ensure_oidc()), "-listen", f"127.0.0.1:{self.port}", "-users", str(users)),
                *("-client-id", self.client_id, *secret, "-redirect-uri", self.redirect_uri),
            ],
            log=self.directory / "oidc.log",
        )
        wait_for(
            "the OpenID Connect provider to answer",
            lambda: self._answers(process),
            timeout_seconds=_START_SECONDS,
            interval_seconds=0.05,
        )

    def _answers(self, process: Process) -> bool | NotYet:
        process.check()
        try:
            reply = httpx2.get(
                f"{self.issuer}/.well-known/openid-configuration", timeout=_ANSWER_SECONDS, trust_env=False
            )
        except httpx2.TransportError as error:
            return NotYet(str(error))
        return True if reply.is_success else NotYet(reply.text)


def _as_kept(user: OidcUser) -> dict[str, object]:
    """As `oidc/main.go` reads it."""
    return {
        "ID": user.subject,
        "Username": user.username,
        "Password": user.password,
        "FirstName": user.username,
        "LastName": "Example",
        "Email": user.email,
        "EmailVerified": user.email_verified,
        "PreferredLanguage": "en",
        "Groups": None if user.groups is None else list(user.groups),
    }

"""The agent's processes in a soak: started, killed without warning, and started again.

A process that ends by itself (its database was away while it started) is
started again too, as a supervisor in production would; that is counted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from testbed.ports import free_ports
from testbed.supervisor import Process, Supervisor

ROOT = Path(__file__).parent.parent.parent

SHORT: Mapping[str, str] = {
    "DRY_RUN": "false",
    "ALLOW_HIGH_RISK_ACTIONS": "true",
    "INCIDENT_SETTLE_SECONDS": "0.5",
    "VERIFY_SOAK_SECONDS": "1",
    "VERIFY_TIMEOUT_SECONDS": "8",
    "VERIFY_INTERVAL_SECONDS": "0.3",
    "VERIFY_MAX_SAMPLE_AGE_SECONDS": "5",
    "CLAIM_LEASE_SECONDS": "5",
    "BREACH_FOR_SECONDS": "1",
    "TRUST_REVISION_AFTER_SECONDS": "2",
    "TRUST_MIN_REQUESTS": "0",
    "PROMETHEUS_POLL_SECONDS": "20",
    "LOG_LEVEL": "warning",
    # Of what takes days elsewhere, budgets as well come in seconds.
    "BUDGET_WINDOW_SECONDS": "1",
    "MAX_FLEET_SHARE": "1",
    "ACTION_MEMORY_SECONDS": "0",
}
"""Minutes become seconds; otherwise the agent runs as in production."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killing:
    """One kill -9, with the names under which the process held claims."""

    process: str
    at: datetime
    owners: tuple[str, ...]


@dataclass(kw_only=True)
class Agent:
    """One place in the deployment; the process in it changes."""

    name: str
    arguments: tuple[str, ...]
    """Of the `heal` command."""
    port: int | None
    """Where it serves HTTP, if it does."""
    environment: Mapping[str, str]
    supervisor: Supervisor
    folder: Path
    ended_alone: list[str] = field(default_factory=list)
    """What each process that ended by itself said last."""
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """The killer and the restarter are different threads: one process at a time is started."""
    _process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        port = () if self.port is None else ("--port", str(self.port))
        self._process = self.supervisor.start(
            self.name,
            [sys.executable, "-m", "tests.soak.agent", *self.arguments, *port],
            log=self.log,
            env=self.environment,
        )

    def kill(self) -> Killing:
        """No warning, no clean-up; started again at once."""
        with self._turn:
            process = self._process
            if process is None:
                raise RuntimeError(f"{self.name} does not run")
            owners = self.owners()
            at = datetime.now(UTC)
            process.stop()
            self.start()
            return Killing(process=self.name, at=at, owners=owners)

    def stop(self, grace_seconds: float = 20) -> None:
        """As an operator would."""
        with self._turn:
            process, self._process = self._process, None
            if process is not None:
                process.stop(grace_seconds)

    def restart(self, grace_seconds: float) -> int:
        """As a rolling deploy does: SIGTERM, then the next process; how the first one ended."""
        with self._turn:
            process = self._process
            if process is None:
                raise RuntimeError(f"{self.name} does not run")
            process.stop(grace_seconds)
            code = process.exit_code()
            self.start()
            return -1 if code is None else code

    def keep(self) -> None:
        """Start it again if it ended by itself."""
        with self._turn:
            if self._process is not None and (code := self._process.exit_code()) is not None:
                self.ended_alone.append(f"{self.name} ended with {code}: {self._process.log_tail()[-400:]}")
                self.start()

    def ready(self) -> bool:
        """Whether it serves, if it has anything to serve."""
        if self.port is None:
            return True
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=20, verify=False).status_code == 200
        except httpx2.TransportError:
            return False

    def owners(self) -> tuple[str, ...]:
        """The names under which its present process holds claims; none before it has come that far."""
        if self._process is None:
            return ()
        pid = str(self._process.pid)
        folder = Path(self.environment["SOAK_OWNERS"])
        return tuple(file.name for file in folder.iterdir() if file.read_text() == pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every process of one soak shares."""

    supervisor: Supervisor
    folder: Path
    target_url: str
    database_url: str

    def agent(
        self, name: str, *arguments: str, serves: bool, extra: Mapping[str, str] | None = None
    ) -> Agent:
        """A process to be, with the soak's settings and nothing of this machine's."""
        owners = self.folder / "owners"
        owners.mkdir(exist_ok=True)
        return Agent(
            name=name,
            arguments=arguments,
            port=free_ports(1)[0] if serves else None,
            supervisor=self.supervisor,
            folder=self.folder,
            environment={
                **SHORT,
                "DATABASE_URL": self.database_url,
                "RUNBOOKS_DIR": str(ROOT / "runbooks"),
                "SOAK_TARGET": self.target_url,
                "SOAK_OWNERS": str(owners),
                "PYTHONPATH": str(ROOT),
                **(extra or {}),
            },
        )

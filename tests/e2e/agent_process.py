"""The agent as its users run it: a process of its own, spoken to over HTTP, killed without warning."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from testbed.ports import free_ports
from testbed.waiting import PATIENCE, NotYet, wait_for
from tests.forked import Forked, forked

ENVIRONMENT = "prod"
TOKEN = "a-token-of-the-test"
ROOT = Path(__file__).parent.parent.parent

FAST = {
    "BREACH_FOR_SECONDS": "3",
    "INCIDENT_SETTLE_SECONDS": "1",
    "VERIFY_SOAK_SECONDS": "4",
    "VERIFY_TIMEOUT_SECONDS": "600",
    "VERIFY_INTERVAL_SECONDS": "0.5",
    "VERIFY_MAX_SAMPLE_AGE_SECONDS": "5",
    "TRUST_REVISION_AFTER_SECONDS": "3",
    "TRUST_MIN_REQUESTS": "0",
    "PROMETHEUS_POLL_SECONDS": "1",
    "PROMETHEUS_WINDOW": "5s",
}
"""Minutes become seconds; otherwise the agent runs as in production."""

ACTING = {"DRY_RUN": "false", "ALLOW_HIGH_RISK_ACTIONS": "true"}


@dataclass(kw_only=True)
class AgentProcess:
    """One agent over one namespace, which can be started again on the same database."""

    folder: Path
    namespace: str
    kubeconfig: Path
    prometheus_url: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    module: str = "uvicorn"
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _process: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    def start(self, extra: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it is ready."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DATABASE_URL": f"sqlite:///{self.folder / 'heal.db'}",
            "KUBECONFIG": str(self.kubeconfig),
            "ENVIRONMENT_NAMESPACES": json.dumps({ENVIRONMENT: self.namespace}),
            "ALERTMANAGER_TOKEN": TOKEN,
            "PORT": str(self.port),
            **({"PROMETHEUS_URL": self.prometheus_url} if self.prometheus_url else {}),
            **FAST,
            **self.settings,
            **(extra or {}),
        }
        arguments = ["app.main:app"] if self.module == "uvicorn" else []
        self._process = forked(
            [*arguments, "--port", str(self.port)],
            module=self.module,
            folder=ROOT,
            environment=environment,
            log=self.log,
        )
        if wait:
            wait_for("the agent to be ready", self._ready, timeout_seconds=300)

    def kill(self) -> None:
        """As a power cut would: no warning, no clean-up. Safe to repeat."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(120)

    def stop(self) -> None:
        """As an operator would."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(120)

    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return None if self._process is None else self._process.poll()

    def wait_killed(self, *, timeout_seconds: float) -> bool:
        """Whether it died in time (as `wait_for` counts it); a test that plants a crash waits for it."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_seconds * PATIENCE) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    # ---------------------------------------------------------------- asking it

    def get(self, path: str, **parameters: str) -> Any:
        try:
            answer = httpx2.get(f"{self.url}{path}", params=parameters, timeout=120, verify=False)
        except httpx2.TransportError as error:
            raise AssertionError(
                f"{error!r} from port {self.port}; process ended: {self.exit_code()}; {self.log_tail()}"
            ) from error
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None, **parameters: str) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"} if path.startswith("/webhooks/") else {}
        answer = httpx2.post(
            f"{self.url}{path}", json=body, params=parameters, headers=headers, timeout=300, verify=False
        )
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def incidents(self, service: str) -> list[dict[str, Any]]:
        """Of a service, newest first, with their timelines."""
        items = self.get("/incidents", service=service)["items"]
        return [self.get(f"/incidents/{item['id']}") for item in items]

    def wait_incident(self, service: str, *states: str, timeout_seconds: float = 90) -> dict[str, Any]:
        """Until the service's newest incident is in one of the states."""

        def check() -> dict[str, Any] | NotYet:
            if self.exit_code() is not None:
                raise AssertionError(f"the agent ended with {self.exit_code()}: {self.log_tail()}")
            found = self.incidents(service)
            if found and found[0]["state"] in states:
                return found[0]
            return NotYet(story(found[0]) if found else "no incident")

        return wait_for(f"an incident of {service} to be {states}", check, timeout_seconds=timeout_seconds)

    def wait_trusted(self, service: str, revisions: int = 1, *, timeout_seconds: float = 45) -> None:
        """Until the agent has seen that many revisions of the service serve well."""

        def check() -> bool | NotYet:
            with sqlite3.connect(f"file:{self.folder / 'heal.db'}?mode=ro", uri=True) as database:
                (count,) = database.execute(
                    "SELECT count(*) FROM revision_history WHERE service = ? AND health = 'served_well'",
                    (service,),
                ).fetchone()
            return True if count >= revisions else NotYet(f"{count} revisions; {self.log_tail()}")

        wait_for(f"{revisions} trusted revisions of {service}", check, timeout_seconds=timeout_seconds)

    def trusted(self, service: str) -> set[int]:
        """The numbers of the revisions that the agent takes for ones that served well."""
        with sqlite3.connect(f"file:{self.folder / 'heal.db'}?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT number FROM revision_history WHERE service = ? AND health = 'served_well'", (service,)
            ).fetchall()
        return {number for (number,) in rows}

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _ready(self) -> bool | NotYet:
        if self.exit_code() is not None:
            raise AssertionError(f"the agent ended with {self.exit_code()}: {self.log_tail()}")
        try:
            answer = httpx2.get(f"{self.url}/readyz", timeout=20)
        except httpx2.TransportError as error:
            return NotYet(repr(error))
        return True if answer.status_code == 200 else NotYet(answer.text)


def story(incident: Mapping[str, Any]) -> str:
    """An incident as a few lines, for a failure's message."""
    lines = [f"{e['stage']}: {e['message']}" for e in incident["timeline"]]
    return f"{incident['state']}: {incident['summary']}\n" + "\n".join(lines)

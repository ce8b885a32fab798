"""The application over a real store, driven from plain functions so that hypothesis can drive it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from fastapi import FastAPI
from pydantic import SecretStr

from app.bootstrap import Adapters, Container, assemble
from app.config import Settings
from app.main import create_app
from app.store import open_store
from app.testing import VirtualClock
from tests.sqlite_template import migrated

T = TypeVar("T")

NOW = datetime(2026, 2, 20, 17, 2, tzinfo=UTC)
RUNBOOKS = Path(__file__).parents[2] / "runbooks"
PROBLEM_JSON = "application/problem+json"

DEPLOY = {
    "service": "payments-api",
    "environment": "prod",
    "version": "1.15.0",
    "commit_sha": "d1e2f3a",
    "status": "failed",
    "timestamp": "2026-02-20T17:00:00Z",
}
METRIC = {
    "service": "payments-api",
    "environment": "prod",
    "error_rate": 0.13,
    "p95_latency_ms": 1450,
    "crash_looping": True,
    "timestamp": "2026-02-20T17:01:00Z",
}


def make_settings(folder: Path, **changes: Any) -> Settings:
    """Defaults, with a database of this test's own and nothing read from the machine's environment."""
    values: dict[str, Any] = {
        "database_url": SecretStr(migrated(folder / "heal.db")),
        "runbooks_dir": RUNBOOKS,
        "max_body_bytes": 65_536,
    }
    return Settings(_env_file=None, **{**values, **changes})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Harness:
    """One application with its container, and a client on this machine."""

    container: Container
    clock: VirtualClock
    transport: httpx2.ASGITransport
    runner: asyncio.Runner
    app: FastAPI

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run something on the application's event loop."""

        async def wrapped() -> T:
            return await awaitable

        return self.runner.run(wrapped())

    def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        """One request; what the application raises reaches the test."""
        return self.run(self._request(method, path, **kwargs))

    async def _request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=self.transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **kwargs)

    def get(self, path: str, **kwargs: Any) -> httpx2.Response:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> httpx2.Response:
        return self.request("POST", path, **kwargs)

    def incidents(self) -> int:
        """How many incidents exist; none after requests that were refused."""
        return len(self.get("/incidents?limit=200").json()["items"])


@contextmanager
def harness(
    settings: Settings, *, world: Adapters | None = None, client: tuple[str, int] = ("127.0.0.1", 50000)
) -> Iterator[Harness]:
    """An application whose container is assembled over a fresh store and closed at the end."""
    clock = VirtualClock(NOW)
    with asyncio.Runner() as runner:
        store = runner.run(open_store(settings.database_url.get_secret_value()))
        container = assemble(settings, clock=clock, store=store, world=world or Adapters())
        app = create_app(settings)
        app.state.container = container
        try:
            yield Harness(
                container=container,
                clock=clock,
                transport=httpx2.ASGITransport(app=app, client=client),
                runner=runner,
                app=app,
            )
        finally:
            runner.run(container.close())


def assert_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The answer is a well-formed problem document with that status; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_JSON
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:self-healing-devops-agent:problem:")
    assert document["title"]
    assert document["detail"]
    for error in document.get("errors", []):
        assert set(error) == {"field", "value", "message", "fix", "mend"}
        assert error["field"]
        assert error["message"]
        assert error["fix"]
        assert error["mend"] == error["fix"]
    return document

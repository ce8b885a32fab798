"""Errors of the agent reach the caller as what to do next, and never as internals."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.api import problems
from app.errors import (
    AgentError,
    ClaimLost,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PartlyRecorded,
    PermanentError,
    TransientError,
    UnknownOutcome,
)
from app.main import create_app
from app.store.signals.deliveries import PART, PART_SERVICES
from tests.api.harness import DEPLOY, assert_problem, harness, make_settings


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (TransientError("busy", retry_after=timedelta(seconds=2.2)), 503, "3"),
        (TransientError("busy"), 503, "1"),
        (Conflict("moved on"), 503, "1"),
        (PartlyRecorded("busy", recorded=20, total=45), 503, "1"),
        (ClaimLost("held by another worker"), 409, "1"),
        (NotFound("gone"), 404, None),
        (Invalid("two workloads"), 422, None),
        (Forbidden("patch deployments"), 502, None),
        (PermanentError("no"), 502, None),
        (UnknownOutcome("no answer"), 502, None),
    ],
)
async def test_every_error_of_the_agent_has_its_status(
    error: AgentError, status: int, retry_after: str | None
) -> None:
    """What may be repeated says when; what may not does not."""
    app = FastAPI()
    problems.install(app)

    @app.get("/raise")
    async def route() -> None:
        raise error

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1"
    ) as client:
        response = await client.get("/raise")
    document = assert_problem(response, status)
    assert str(error) in document["detail"]
    assert response.headers.get("retry-after") == retry_after


def test_a_fault_of_the_agent_shows_a_reference_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the error under the reference that the caller sees."""

    async def breaks() -> None:
        raise RuntimeError("password=hunter2")

    with harness(make_settings(tmp_path)) as api:
        app = create_app(api.container.settings)
        app.state.container = replace(api.container, checks=(("broken", breaks),))
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)

        async def ask() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.get("/readyz")

        response = api.run(ask())
    document = assert_problem(response, 500)
    assert "hunter2" not in response.text
    assert document["detail"].rsplit(" ", 1)[1].rstrip(".") in caplog.text


async def test_before_the_start_is_over_everything_may_be_tried_again(tmp_path: Path) -> None:
    """An application without its container answers 503, not an error."""
    transport = httpx2.ASGITransport(app=create_app(make_settings(tmp_path)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert_problem(await client.get("/incidents"), 503)
        assert (await client.get("/healthz")).status_code == 200


def test_a_rejected_value_is_cut_short() -> None:
    """A megabyte sent is not a megabyte answered, and no value breaks the answer."""
    assert len(str(problems.shown("x" * 10_000))) < 300
    assert len(str(problems.shown({"a": ["x" * 10_000]}))) < 300
    assert problems.shown(float("inf")) == "inf"
    assert problems.shown(True) is True


class Breaking:
    """A database that stops answering once, after so many writes."""

    def __init__(self, inner: Any, after: int) -> None:
        self._inner = inner
        self._left = after

    async def write(self, work: Any, *, urgent: bool = False) -> Any:
        self._left -= 1
        if self._left == -1:
            raise TransientError("the database does not answer")
        return await self._inner.write(work, urgent=urgent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(("after", "recorded"), [(0, 0), (1, 0), (2, PART), (3, 2 * PART), (4, 2 * PART + 5)])
def test_a_delivery_that_broke_off_says_how_much_was_recorded(
    tmp_path: Path, after: int, recorded: int
) -> None:
    """What was recorded is on record, and the same request again records the rest of it, once."""
    total = 2 * PART + 5
    events = [
        {**DEPLOY, "service": f"svc-{number % PART_SERVICES}", "version": f"v{number}"}
        for number in range(total)
    ]
    with harness(make_settings(tmp_path)) as api:
        signals: Any = api.container.store.signals
        sound, signals.database = signals.database, Breaking(signals.database, after)
        document = assert_problem(api.post("/events/deploy", json=events), 503)
        signals.database = sound
        if recorded:
            assert f"{recorded} of {total} entries of this delivery were recorded." in document["detail"]
            assert "Nothing was recorded" not in document["detail"]
        else:
            assert "Nothing was recorded or changed" in document["detail"]
        items = api.post("/events/deploy", json=events).json()["items"]
        before = [one for one in items if one["disposition"] == "deduplicated"]
        assert (len(items), len(before)) == (total, recorded)

"""What is let in at once: bounded requests and deliveries, and a reserve for operators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.api import admission
from app.api.admission import LARGE_BYTES, RESERVED, Deliveries
from app.stopping import Stop
from tests.api.harness import DEPLOY, Harness, assert_problem, harness, make_settings

CONNECTIONS = 32
PATIENCE_SECONDS = 60.0


@contextmanager
def small(tmp_path: Path) -> Iterator[Harness]:
    """An application that lets sixteen requests of strangers in, and one large delivery."""
    settings = make_settings(tmp_path, max_connections=CONNECTIONS, max_body_bytes=4 * LARGE_BYTES)
    with harness(settings) as one:
        yield one


class Drip:
    """A body whose end arrives only when the test says so."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.arriving = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body[:1]
        self.arriving.set()
        await self.go_on.wait()
        yield self._body[1:]


async def send(one: Harness, method: str, path: str, **kwargs: Any) -> httpx2.Response:
    """One request on a task of its own, as a server has it."""

    async def request() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=one.transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, **kwargs)

    return await asyncio.create_task(request())


def post(one: Harness, body: Drip) -> asyncio.Task[httpx2.Response]:
    headers = {"Content-Type": "application/json"}
    return asyncio.create_task(send(one, "POST", "/events/deploy", content=body, headers=headers))


def large(count: int = 1) -> bytes:
    """A delivery that is counted as large: one entry and much white space."""
    return json.dumps([DEPLOY] * count).encode() + b" " * LARGE_BYTES


def test_operators_and_probes_have_a_reserve(tmp_path: Path) -> None:
    """With every other place taken by senders that drip, the kill switch and the probes answer."""

    async def story(one: Harness) -> None:
        dripping = [Drip(json.dumps(DEPLOY).encode()) for _ in range(CONNECTIONS - RESERVED)]
        posting = [post(one, each) for each in dripping]
        for each in dripping:
            await asyncio.wait_for(each.arriving.wait(), PATIENCE_SECONDS)
        refused = await send(one, "GET", "/incidents")
        assert_problem(refused, 503)
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await send(one, "GET", "/healthz")).status_code == 200
        assert (await send(one, "GET", "/readyz")).status_code == 200
        brake = {"engaged": True, "by": "ann", "reason": "storm"}
        assert (await send(one, "PUT", "/brakes/kill-switch", json=brake)).status_code == 200
        for each in dripping:
            each.go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*posting)} == {202}

    with small(tmp_path) as one:
        one.run(story(one))


def test_a_large_delivery_beside_others_is_refused_before_any_work_and_taken_later(tmp_path: Path) -> None:
    """503 with Retry-After and nothing recorded while there is no room; 202 once there is."""

    async def story(one: Harness) -> None:
        first, working = Drip(large() + b" " * LARGE_BYTES), asyncio.Event()
        hold = _held(one, working)
        posting = post(one, first)
        first.go_on.set()
        await asyncio.wait_for(working.wait(), PATIENCE_SECONDS)
        content = large() + b" " * 2 * LARGE_BYTES
        headers = {"Content-Type": "application/json"}
        refused = await send(one, "POST", "/events/deploy", content=content, headers=headers)
        assert_problem(refused, 503)
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await send(one, "POST", "/events/deploy", json=DEPLOY)).status_code == 202
        hold.set()
        assert (await posting).status_code == 202
        again = await send(one, "POST", "/events/deploy", content=content, headers=headers)
        assert again.status_code == 202

    with small(tmp_path) as one:
        one.run(story(one))


def _held(one: Harness, working: asyncio.Event) -> asyncio.Event:
    """The next intake waits until the event that this returns is set."""
    hold, store = asyncio.Event(), one.container.store
    real = store.signals.accept

    async def accept(*args: Any, **kwargs: Any) -> Any:
        if not working.is_set():
            working.set()
            await hold.wait()
        return await real(*args, **kwargs)

    store.signals.accept = accept  # type: ignore[method-assign]  # the one way to stop between body and record
    return hold


def test_a_body_that_drips_does_not_delay_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the process was asked to stop, the sender is answered at once, and may send it again."""
    monkeypatch.setattr(admission, "DRAIN_SECONDS", 10 * PATIENCE_SECONDS)

    async def story(one: Harness) -> None:
        drip = Drip(json.dumps(DEPLOY).encode())
        posting = post(one, drip)
        await asyncio.wait_for(drip.arriving.wait(), PATIENCE_SECONDS)
        stop: Stop = one.app.state.stop
        stop.request()
        answer = await asyncio.wait_for(posting, PATIENCE_SECONDS)
        assert_problem(answer, 503)
        assert answer.headers["Connection"] == "close"
        assert_problem(await send(one, "POST", "/events/deploy", json=DEPLOY), 503)
        assert (await send(one, "GET", "/healthz")).status_code == 200

    with small(tmp_path) as one:
        one.run(story(one))


@pytest.mark.parametrize("size", [1, LARGE_BYTES])
def test_small_deliveries_are_never_refused(size: int) -> None:
    """They cost little, and are what most senders send."""
    deliveries = Deliveries(most=LARGE_BYTES)
    deliveries.enter(10 * LARGE_BYTES)
    assert deliveries.has_room(size)


def test_the_largest_delivery_gets_its_turn() -> None:
    """One that is larger than the bound is let in alone; what it held is given back."""
    deliveries = Deliveries(most=LARGE_BYTES)
    held = deliveries.enter(5 * LARGE_BYTES)
    assert not deliveries.has_room(LARGE_BYTES + 1)
    deliveries.leave(held)
    assert deliveries.has_room(5 * LARGE_BYTES)

"""The sandbox in a browser: a person starts a bad release, approves the rollback, and watches it heal."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from playwright.sync_api import expect

from app.config import Settings
from app.main import create_app
from tests.api.harness import RUNBOOKS
from tests.browser.axe import violations
from tests.browser.conftest import START_SECONDS, Watched

pytestmark = pytest.mark.browser

SPEED = 30.0


@pytest.fixture
def sandbox() -> Iterator[str]:
    """The address of a sandbox with its whole lifespan."""
    settings = Settings(_env_file=None, runbooks_dir=RUNBOOKS, sandbox=True, sandbox_speed=SPEED)
    bound = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[bound])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="sandbox")
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        loops[0].call_soon_threadsafe(app.state.stop.request)  # as a signal does: live pages are let go
        thread.join(timeout=START_SECONDS)
        assert not thread.is_alive()


def test_a_rollback_is_approved_and_the_service_recovers(watched: Watched, sandbox: str) -> None:
    """Without a sign-in, without a reload, and with the name of a person on record."""
    page = watched.page
    page.goto(sandbox)
    expect(page.get_by_text("Simulated cluster")).to_be_visible()
    page.get_by_role("link", name="Start a scenario").first.click()
    expect(page.get_by_role("button", name="Start bad-release", exact=True)).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Start bad-release", exact=True).click()
    expect(page.get_by_role("heading", name="A bad release sandbox")).to_be_visible()
    page.get_by_role("link", name="awaiting your approval").click()
    page.get_by_role("region", name="Approve the rollback").get_by_label("Your name").fill("Kim")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("h1 .state")).to_have_text("recovered")
    expect(page.get_by_text("approved by Kim").first).to_be_visible()
    page.get_by_role("link", name="Sandbox", exact=True).click()
    expect(page.get_by_role("row", name="payments-api")).to_contain_text("1.14.2")
    faults = [fault for fault in watched.faults if fault != f"failed: {sandbox}/sandbox"]
    assert faults == []  # a refresh that a click cut short is none

"""A real server on a free port, and a real Chromium in front of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, Dialog, Page, Request, expect, sync_playwright

from app.bootstrap import Adapters, Container, assemble
from app.clock import SystemClock
from app.main import create_app
from app.store import open_store
from tests.api.harness import make_settings

T = TypeVar("T")

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 120.0

expect.set_options(timeout=60_000)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Served:
    """An application that answers on a socket, with its container within reach of the test."""

    url: str
    container: Container
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=120)


@contextmanager
def serving(folder: Path, *, listening: socket.socket | None = None, **changes: Any) -> Iterator[Served]:
    """Serve in a thread of its own until the context ends, on a port that the system chooses.

    `listening` is a socket whose address had to be known before.
    """
    bound = listening or socket.create_server(("127.0.0.1", 0))
    ready: Future[Served] = Future()
    stop = threading.Event()

    async def serve() -> None:
        settings = make_settings(folder, **changes)
        store = await open_store(settings.database_url.get_secret_value())
        container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
        app = create_app(settings)
        app.state.container = container
        config = uvicorn.Config(app, lifespan="off", log_level="warning")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        ready.set_result(Served(url=url, container=container, loop=asyncio.get_running_loop()))
        await asyncio.to_thread(stop.wait)
        app.state.stop.request()
        server.should_exit = True
        await task
        await container.close()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=work, name="server")
    thread.start()
    try:
        yield ready.result(timeout=START_SECONDS)
    finally:
        stop.set()
        thread.join(timeout=START_SECONDS)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium, or deselect with -m 'not browser'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A page with everything that went wrong on it."""

    page: Page
    faults: list[str]


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    """A fresh page that records script errors, blocked loads and failed requests."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("console", lambda said: faults.append(f"console: {said.text}") if said.type == "error" else None)

    def note_failure(request: Request) -> None:
        if "ERR_ABORTED" not in str(request.failure):  # the page itself was left
            faults.append(f"failed: {request.url}")

    page.on("requestfailed", note_failure)

    def refuse(dialog: Dialog) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    yield Watched(page=page, faults=faults)
    context.close()

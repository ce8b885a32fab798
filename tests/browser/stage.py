"""The whole console over the simulated cluster: pages in a browser, time that the test lets pass."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from app.bootstrap import Container
from app.main import create_app
from tests.browser.conftest import START_SECONDS, Served
from tests.stories import Story, story


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Staged(Served):
    """The served application of a story."""

    story: Story


@contextmanager
def staged(folder: Path, **settings: Any) -> Iterator[Staged]:
    """Serve a story in a thread of its own until the context ends."""
    bound = socket.create_server(("127.0.0.1", 0))
    ready: Future[Staged] = Future()
    ended = asyncio.Event()

    async def serve() -> None:
        async with story(folder, **settings) as stage:
            container: Container = stage.agent
            app = create_app(container.settings)
            app.state.container = container
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
            task = asyncio.create_task(server.serve(sockets=[bound]))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            loop = asyncio.get_running_loop()
            ready.set_result(Staged(url=url, container=container, loop=loop, story=stage))
            # No thread waits here: the virtual clock waits for those that do.
            await ended.wait()
            app.state.stop.request()
            server.should_exit = True
            await task

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=work, name="stage")
    thread.start()
    try:
        stage = ready.result(timeout=START_SECONDS)
        try:
            yield stage
        finally:
            stage.loop.call_soon_threadsafe(ended.set)
    finally:
        thread.join(timeout=START_SECONDS)

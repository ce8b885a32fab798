"""SIGHUP reloads the policies and the files that settings name; installed around the work of one process."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from app.bootstrap import Container

log = logging.getLogger(__name__)


@contextmanager
def policies_on_hangup(container: Container) -> Iterator[None]:
    """While the context lasts; not where signals are unavailable (another thread, another platform)."""
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(container.reload_policies(), name="reload policies")
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    try:
        loop.add_signal_handler(signal.SIGHUP, reload)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        log.debug("policies are loaded at start only: %s", error)
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)

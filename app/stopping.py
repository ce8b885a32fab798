"""Graceful shutdown: SIGTERM and SIGINT reach every part of the process at once.

The driver claims nothing more, request bodies are read no further, and whatever
hangs, the process ends within `HARD_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

HARD_SECONDS = 14.0
"""When the process ends whatever still hangs; orchestrators allow thirty seconds or more."""


class Stop:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._then: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether it was asked already."""
        return self._event.is_set()

    def request(self) -> None:
        """Ask it to stop; may be called more than once, on the event loop."""
        if not self._event.is_set():
            self._event.set()
            for call in self._then:
                call()

    def then(self, call: Callable[[], None]) -> None:
        """Have something called on the event loop once it was asked."""
        self._then.append(call)

    async def wait(self) -> None:
        """Return once it was asked."""
        await self._event.wait()

    @contextmanager
    def on_signals(self, *, and_before: bool = False) -> Iterator[None]:
        """Until the block ends SIGTERM and SIGINT request the stop.

        With `and_before` they then do what they did before, which is how a server
        around this program receives them too. Outside the main thread, where no
        signal arrives, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def asked(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.request)
            _end_in_time()
            previous = before[signal.Signals(number)]
            if and_before and callable(previous):
                previous(number, frame)

        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)


def _end_in_time() -> None:
    """A thread of its own, because whatever hangs may hold the event loop."""
    timer = threading.Timer(HARD_SECONDS, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    log.error("the process did not stop within %g s and is terminated", HARD_SECONDS)
    os._exit(1)

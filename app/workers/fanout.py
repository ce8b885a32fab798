"""Work for each service, side by side within a bound, and never twice at a time for the same one.

What is asked for while it is under way is done once more afterwards, so that the
last look always began after the last request. Requests never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.agent.ids import ServiceKey


@dataclass(kw_only=True)
class Fanout:
    """A line of services, each with one place in it; `work` must not raise."""

    work: Callable[[ServiceKey], Awaitable[None]]
    at_once: int
    _line: deque[ServiceKey] = field(default_factory=deque)
    _waiting: set[ServiceKey] = field(default_factory=set)
    _under_way: set[ServiceKey] = field(default_factory=set)
    _again: set[ServiceKey] = field(default_factory=set)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, key: ServiceKey) -> None:
        """Have the service's work done soon."""
        if key in self._under_way:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._line.append(key)
            self._arrived.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.at_once):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            while not self._line:
                self._arrived.clear()
                await self._arrived.wait()
            key = self._line.popleft()
            self._waiting.discard(key)
            self._under_way.add(key)
            try:
                await self.work(key)
            finally:
                self._under_way.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.ask(key)

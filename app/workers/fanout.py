"""Work for each service, concurrently within a bound, and never twice at the same time for the same service.

A request during the work leads to one more run afterwards, so that the last run always began after the last
request. Requests never wait.
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
    _urgent: deque[ServiceKey] = field(default_factory=deque)
    _line: deque[ServiceKey] = field(default_factory=deque)
    _waiting: dict[ServiceKey, bool] = field(default_factory=dict)
    """Whether each waiting service is urgent; one that became urgent also has a void place."""
    _under_way: set[ServiceKey] = field(default_factory=set)
    _again: dict[ServiceKey, bool] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, key: ServiceKey, *, urgent: bool = False) -> None:
        """Have the service's work done soon; an urgent one before all that are not."""
        if key in self._under_way:
            self._again[key] = self._again.get(key, False) or urgent
            return
        waits = self._waiting.get(key)
        if waits is None or (urgent and not waits):
            self._waiting[key] = urgent
            (self._urgent if urgent else self._line).append(key)
            self._arrived.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.at_once):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            key = await self._next()
            self._under_way.add(key)
            try:
                await self.work(key)
            finally:
                self._under_way.discard(key)
            urgent = self._again.pop(key, None)
            if urgent is not None:
                self.ask(key, urgent=urgent)

    async def _next(self) -> ServiceKey:
        while True:
            for urgent, line in ((True, self._urgent), (False, self._line)):
                while line:
                    key = line.popleft()
                    if self._waiting.get(key) is urgent:
                        del self._waiting[key]
                        return key
            self._arrived.clear()
            await self._arrived.wait()

"""An engine without durability, for simulations: it moves incidents on in tasks of this process.

The demo and tests use it where the durable engine would bring real time with
it. What it forgets in a crash the sweep of a real agent finds again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.agent.ids import IncidentId
from app.clock import Clock

if TYPE_CHECKING:  # the fakes of `app.testing` stay light to import
    from app.agent.loop import Loop, Rest

_SHORTEST_REST_SECONDS = 0.05


class InlineRunner:
    """A `Runner` that follows a clock: one task per incident, until the incident ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop: Loop | None = None
        self._nudges: dict[IncidentId, asyncio.Event] = {}
        self._tasks: dict[IncidentId, asyncio.Task[None]] = {}

    def attach(self, loop: Loop) -> None:
        """Give it the loop to drive; incidents woken before stay where they are."""
        self._loop = loop

    @property
    def woken(self) -> tuple[IncidentId, ...]:
        """Every incident it was asked to move, in that order."""
        return tuple(self._tasks)

    async def wake(self, incident_id: IncidentId) -> None:
        task = self._tasks.get(incident_id)
        if task is not None and not task.done():
            self._nudges[incident_id].set()
        elif self._loop is not None:
            self._nudges[incident_id] = asyncio.Event()
            self._tasks[incident_id] = asyncio.create_task(self._drive(self._loop, incident_id))

    def check(self) -> None:
        """Raise what ended a task, if anything but the end of its incident did."""
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.result()

    async def close(self) -> None:
        """Stop driving; unfinished incidents stay open."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _drive(self, loop: Loop, incident_id: IncidentId) -> None:
        while True:
            rest = await loop.advance(incident_id)
            if rest.closed:
                return
            await self._wait(incident_id, rest)

    async def _wait(self, incident_id: IncidentId, rest: Rest) -> None:
        """Until the time to look again, or a new signal."""
        nudge = self._nudges[incident_id]
        due = rest.wake_at or self._clock.now()
        seconds = max(_SHORTEST_REST_SECONDS, (due - self._clock.now()).total_seconds())
        waiting = {
            asyncio.create_task(self._clock.sleep(seconds)),
            asyncio.create_task(nudge.wait()),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        nudge.clear()

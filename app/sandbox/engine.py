"""The event list of the simulated world: what happens next, and when.

Nothing runs in the background. A reader of the world first lets it catch
up with its clock; every transition then happens at its own moment, in order, so
that what is read at a time depends on that time and the seed alone.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from datetime import datetime, timedelta

from app.clock import Clock

Happening = Callable[[], None]

_MAX_HAPPENINGS = 1_000_000


class Engine:
    """A discrete-event simulation that follows a clock it does not drive."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self._clock = clock
        self.random = random.Random(seed)  # noqa: S311 - a reproducible world, no secret
        self._now = clock.now()
        self._sequence = 0
        self._agenda: list[tuple[datetime, int, Happening]] = []

    @property
    def now(self) -> datetime:
        """The moment that the world has reached: inside a happening, that happening's time."""
        return self._now

    @property
    def next_due(self) -> datetime | None:
        """When the next happening is due."""
        return self._agenda[0][0] if self._agenda else None

    def after(self, seconds: float, happening: Happening) -> None:
        """Let something happen `seconds` from the moment the world has reached."""
        self._sequence += 1
        due = self._now + timedelta(seconds=max(0.0, seconds))
        heapq.heappush(self._agenda, (due, self._sequence, happening))

    def catch_up(self) -> datetime:
        """Let everything happen that is due by the clock; the time reached."""
        present = self._clock.now()
        for _ in range(_MAX_HAPPENINGS):
            if not self._agenda or self._agenda[0][0] > present:
                self._now = max(self._now, present)
                return self._now
            due, _, happening = heapq.heappop(self._agenda)
            self._now = max(self._now, due)
            happening()
        raise RuntimeError("the simulation does not settle; this is a defect of the sandbox")

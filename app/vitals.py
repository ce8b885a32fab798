"""Liveness of background tasks, measured by a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.errors import TransientError

STILL_SECONDS = 60.0
"""A part that did nothing for so long is stuck: the driver looks for due work every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """When each part last moved. A part that never reported is not monitored."""

    monotonic: Callable[[], float] = time.monotonic
    _moved_at: dict[str, float] = field(default_factory=dict)

    def moved(self, part: str) -> None:
        """The part did something just now."""
        self._moved_at[part] = self.monotonic()

    def gone(self, part: str) -> None:
        """The part was stopped and is no longer expected to make progress."""
        self._moved_at.pop(part, None)

    def idle_seconds(self) -> dict[str, float]:
        """How long ago each part that runs last moved."""
        now = self.monotonic()
        return {part: now - moved_at for part, moved_at in self._moved_at.items()}

    async def check(self) -> None:
        """`TransientError`, naming the part, when one that runs has not moved for too long."""
        for part, idle in self.idle_seconds().items():
            if idle > STILL_SECONDS:
                raise TransientError(f"the {part} has not moved for {idle:.0f} s")

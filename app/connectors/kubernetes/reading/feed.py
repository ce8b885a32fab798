"""The services that changed and are not reported yet; each is listed once, however often it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from app.agent.ids import ServiceKey


class Feed:
    """What one listener of a watch has not been given yet."""

    def __init__(self) -> None:
        self.takes_changes = False
        """Whether changes are added: not before the first lists of what runs are complete."""
        self._pending: dict[ServiceKey, bool] = {}
        self._failed: BaseException | None = None
        self._something = asyncio.Event()

    def add(self, keys: Iterable[ServiceKey], *, urgent: bool = True) -> None:
        """Report the services in this order; one that was added as not urgent may become urgent."""
        for key in keys:
            self._pending[key] = self._pending.get(key, False) or urgent
            self._something.set()

    def wake(self) -> None:
        """Something changed; which services it belongs to is added before the next `take`."""
        self._something.set()

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""
        self._failed = error
        self._something.set()

    async def wait(self) -> None:
        """Return once there is a change to report; raises the error that ended the watch."""
        await self._something.wait()
        if self._failed is not None:
            raise self._failed

    def take(self) -> list[tuple[ServiceKey, bool]]:
        """Everything not reported yet, each with whether it is urgent, these first."""
        taken = sorted(self._pending.items(), key=lambda pair: not pair[1])
        self._pending.clear()
        if self._failed is None:
            self._something.clear()
        return taken

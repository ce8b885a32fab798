"""A value that many requests need and that is expensive to read: read once, reused for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.api.dependencies import ApiDependencies

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Recent(Generic[T]):
    """The last value and its age; concurrent requests share one read."""

    read: Callable[[ApiDependencies], Awaitable[T]]
    seconds: float
    """How long a value is reused."""
    monotonic: Callable[[], float] = time.monotonic
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: tuple[float, ApiDependencies, T] | None = None
    """When it was read, of which container, and the value."""

    async def of(self, container: ApiDependencies) -> T:
        """The value, at most `seconds` old; a failed read raises and is not reused."""
        async with self._reading:
            if self._last is not None:
                read_at, known, value = self._last
                if known is container and self.monotonic() - read_at < self.seconds:
                    return value
            value = await self.read(container)
            self._last = (self.monotonic(), container, value)
            return value

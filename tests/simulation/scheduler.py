"""Virtual time: an event loop on which waiting costs nothing and every order follows from the seed.

`SimulatedLoop` is asyncio's own loop over a selector that, instead of waiting
for sockets, moves a virtual clock to the moment the next timer is due. One
thread, no real input or output: events, conditions and timeouts of asyncio work
as ever, and two runs with equal inputs take equal turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
"""What every clock shows, skew aside, when a simulation begins."""


class Stuck(AssertionError):
    """Nothing is ready and no timer is pending: time could bring no change."""


class _Time:
    """Seconds since the simulation began."""

    def __init__(self) -> None:
        self.seconds = 0.0


class _Passing(selectors.BaseSelector):
    """A selector on which nothing ever becomes readable: being asked to wait, it lets time pass."""

    def __init__(self, time: _Time) -> None:
        self._time = time
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, number, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("the simulation came to a standstill: no task waits for time to pass")
        if timeout > 0:
            self._time.seconds += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, beginning at zero seconds."""

    def __init__(self) -> None:
        self._virtual = _Time()
        super().__init__(_Passing(self._virtual))

    def time(self) -> float:
        return self._virtual.seconds


def moment(seconds: float) -> datetime:
    """A point of virtual time as a true clock shows it."""
    return START + timedelta(seconds=seconds)


@contextlib.contextmanager
def seeded_entropy(seed: int) -> Iterator[None]:
    """Draw what the product takes for random (`uuid4` reads `os.urandom`) from the seed meanwhile."""
    dice = random.Random(f"entropy/{seed}")  # noqa: S311 - a seed, no secret
    real, state = os.urandom, random.getstate()
    os.urandom = dice.randbytes
    random.seed(seed)
    try:
        yield
    finally:
        os.urandom = real
        random.setstate(state)

"""The one backoff of the product: a wait that doubles with each failure in a row, up to a longest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_MOST_DOUBLINGS = 32
"""Bounds the arithmetic; the longest wait is reached long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt."""

    first: timedelta
    longest: timedelta

    @staticmethod
    def of_seconds(first: float, longest: float) -> Backoff:
        return Backoff(first=timedelta(seconds=first), longest=timedelta(seconds=longest))

    def after(self, failures: int) -> timedelta:
        """The wait after so many failures in a row; zero after none."""
        if failures < 1:
            return timedelta(0)
        return min(self.first * (1 << min(failures - 1, _MOST_DOUBLINGS)), self.longest)

    def seconds_after(self, failures: int, retry_after: timedelta | None = None) -> float:
        """The same in seconds; at least the wait that the other side asked for."""
        return max(self.after(failures), retry_after or timedelta(0)).total_seconds()

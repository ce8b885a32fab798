"""Whether SQLite's commits are quick enough for the thread of the event loop.

Everything else on the loop waits while it commits: probes, and the kill switch too. After
a slow commit the writer's thread takes them all, and shows when the disk is quick again.
"""

from __future__ import annotations

from dataclasses import dataclass

QUICK_SECONDS = 0.02
"""A commit that takes longer is slow."""
SLOW_FOR = 20
"""The loop commits nothing for this multiple of the duration of a slow commit: they take 5 % of its time."""
QUICK_COMMITS = 20
"""So many quick ones in a row on the writer's thread come before the next one on the loop."""


@dataclass(slots=True)
class CommitPace:
    """The durations of the commits so far. All times are seconds of the monotonic clock."""

    _slow_until: float = 0.0
    _missing: int = 0
    """Quick commits that must come first."""

    def is_quick(self, now: float) -> bool:
        """Whether the loop may commit."""
        return self._missing == 0 and now >= self._slow_until

    def note(self, seconds: float, now: float) -> None:
        """A commit that took `seconds` has ended, on either thread."""
        if seconds > QUICK_SECONDS:
            self._slow_until = max(self._slow_until, now + SLOW_FOR * seconds)
            self._missing = QUICK_COMMITS
        elif self._missing:
            self._missing -= 1

"""State dated in the future, written while a clock was ahead: ignored, with a note.

Pure. Every stored time was the current time of some clock when it was written. One
that is later than now, by more than clocks of a fleet differ, was written before
the clock went back: measured against it nothing new would count until the clock
arrives there again. Each caller that sets something aside records a note.
"""

from __future__ import annotations

from datetime import datetime, timedelta

SKEW = timedelta(minutes=5)
"""The allowed difference between clocks of one fleet; a record further ahead comes from a wrong clock."""
LONGEST_REST = timedelta(hours=2)
"""An open incident that waits for no person is looked at within this time."""
FAR_AHEAD = timedelta(days=1)
"""Leases and actions dated further ahead than this are not of this time. Nearer ones count: a clock that
goes back by less must not make room for more actions."""


def ahead(at: datetime | None, now: datetime, by: timedelta = SKEW) -> bool:
    """Whether a time on record is in the future, by more than `by`."""
    return at is not None and at - now > by

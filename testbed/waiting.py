"""Waiting for a condition with a deadline; every failure reports the last observation.

Used throughout the test bed to wait for another process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from testbed import TestbedError

T = TypeVar("T")

PATIENCE = float(os.environ.get("TESTBED_PATIENCE", "5"))
"""How many times as long as a quiet machine a busy one may take for anything."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """A condition that does not hold yet, with what was seen instead."""

    seen: str


class DeadlineExceeded(TestbedError):
    """A condition did not come true in time."""


def wait_for(
    what: str, check: Callable[[], T | NotYet], *, timeout_seconds: float, interval_seconds: float = 0.1
) -> T:
    """Call `check` until it answers something else than `NotYet`, and return that.

    `timeout_seconds` is what a quiet machine may take at most; the deadline is
    `PATIENCE` times as long. Raises `DeadlineExceeded`, which names `what` and
    what was seen last. The check runs at least once, however short the time.
    """
    timeout_seconds *= PATIENCE
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = check()
        if not isinstance(answer, NotYet):
            return answer
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(
                f"timed out after {timeout_seconds:g} s waiting for {what}; seen last: {answer.seen}"
            )
        time.sleep(interval_seconds)

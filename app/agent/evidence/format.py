"""Formats of numbers in messages; shared by all rules."""

from __future__ import annotations

import math
from datetime import datetime

from app.durations import span


def relative(at: datetime, reference: datetime, what: str = "it") -> str:
    """`3 m 20 s after it` or `3 m 20 s before it`."""
    return f"{span(at - reference)} {'before' if at < reference else 'after'} {what}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 signal`, `2 signals`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def in_words(name: str) -> str:
    """A cause, state or trigger in words: `bad release`."""
    return name.replace("_", " ")


def confidence(value: float) -> str:
    """`75%`, `59.9%`: rounded down, so that a value below a limit never looks equal to it."""
    return f"{math.floor(value * 1000 + 1e-6) / 10:g}%"


def share(value: float) -> str:
    """`13.0%`, `0.4%`: the format of error rates and of shares of requests or replicas."""
    return f"{value:.1%}"


def milliseconds(value: float) -> str:
    """`1450 ms`."""
    return f"{value:.0f} ms"


def rate(value: float) -> str:
    """`12.5 requests/s`."""
    return f"{value:.1f} requests/s"

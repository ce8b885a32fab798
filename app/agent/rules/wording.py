"""Figures and ages as people say them, so that every rule speaks alike."""

from __future__ import annotations

from datetime import datetime, timedelta


def span(length: timedelta) -> str:
    """`45 s`, `3 min`, `2.5 h`, `4 days`; the sign does not count."""
    seconds = abs(length.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def relative(at: datetime, reference: datetime, what: str = "it") -> str:
    """`3 min after it` for a time after the reference, `3 min before it` for one ahead of it."""
    return f"{span(at - reference)} {'before' if at < reference else 'after'} {what}"


def share(value: float) -> str:
    """`13 %`, `0.4 %`."""
    return (
        f"{value:.0%}".replace("%", " %") if value >= 0.1 or value == 0 else f"{value:.1%}".replace("%", " %")
    )


def milliseconds(value: float) -> str:
    """`1450 ms`."""
    return f"{value:.0f} ms"


def rate(value: float) -> str:
    """`12.5 requests/s`."""
    return f"{value:.1f} requests/s"

"""How a length of time is written: one format in every message, page and list. Pure."""

from __future__ import annotations

from datetime import timedelta


def span(length: timedelta) -> str:
    """`45 s`, `3 m 20 s`, `2 h 30 m`, `4 days`; the sign is ignored.

    `app/web/static/console.js` repeats the format for ages that run on in the browser.
    """
    seconds = round(abs(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} m" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} m" if minutes else "")
    return f"{hours // 24} days"


def age(length: timedelta) -> str:
    """As `span`; `0 s` for a length that a clock set back made negative."""
    return span(max(length, timedelta()))

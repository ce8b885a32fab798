"""Text that others wrote, made safe to show in a message, a log line or a timeline. Pure."""

from __future__ import annotations


def shorten(text: str, limit: int = 500) -> str:
    """One printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

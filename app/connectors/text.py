"""Text that others wrote, made safe to show in a message, a log line or a timeline. Pure."""

from __future__ import annotations

from app.redaction import redacted

_AHEAD = 4096
"""Read beyond what is shown, so that a credential at the cut is recognised whole."""


def shorten(text: str, limit: int = 500) -> str:
    """One printable line of at most `limit` characters, without credentials."""
    clean = redacted(text[: limit * 4 + _AHEAD])
    line = " ".join("".join(c if c.isprintable() else " " for c in clean[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

"""Where somebody goes after signing on: a path of this agent, whatever the address said."""

from __future__ import annotations

from urllib.parse import urlsplit

_HOME = "/dashboard"


def local_path(to: str | None) -> str:
    """`to` where it is a path of this agent; the dashboard for everything else, other sites above all."""
    if not to or not to.startswith("/") or to.startswith(("//", "/\\")) or not to.isascii():
        return _HOME
    if "\\" in to or not to.isprintable():
        return _HOME
    try:
        parts = urlsplit(to)
    except ValueError:
        return _HOME
    return to if not parts.scheme and not parts.netloc else _HOME

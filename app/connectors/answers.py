"""Maps response statuses to the agent's errors: one table for all connectors.

Used by `app.connectors.http` and by the Kubernetes connector, so that the same
status leads to the same decision everywhere. Each connector adds only what its
protocol says beyond HTTP. An answer with a good status and a bad body is never a
value either: not JSON, another shape, too long, compressed or cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from app.errors import AgentError, Forbidden, Invalid, NotFound, PermanentError, TransientError

MEANING: Final[Mapping[int, type[AgentError]]] = MappingProxyType(
    {
        401: Forbidden,
        403: Forbidden,
        404: NotFound,
        408: TransientError,
        425: TransientError,
        429: TransientError,
        499: TransientError,  # of proxies and of monitoring: the request was cancelled before it was answered
    }
)
"""Statuses whose meaning differs from that of their class."""

_LONGEST_RETRY_AFTER_SECONDS = 3_600


def meaning_of(status: int) -> type[AgentError]:
    """The error that an answer of this status stands for; 2xx included, where it was not expected."""
    if status in MEANING:
        return MEANING[status]
    if 300 <= status < 400:
        return PermanentError  # redirects are not followed: they lead a credential elsewhere
    if 400 <= status < 500:
        return Invalid
    return TransientError


def error_for(status: int, message: str, retry_after: timedelta | None) -> AgentError:
    """That error with a message; a wait that the other side named is kept where it makes sense."""
    kind = meaning_of(status)
    if issubclass(kind, TransientError):
        return kind(message, retry_after=retry_after)
    return kind(message)


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """The wait that `Retry-After` names in whole seconds; the date form and nonsense count as not said."""
    text = headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return timedelta(seconds=min(int(text), _LONGEST_RETRY_AFTER_SECONDS))

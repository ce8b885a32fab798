"""Errors name what the caller should do next, not what went wrong underneath.

Denial, failed verification and escalation are values of the domain, never
exceptions. Adapters translate their library's errors into these classes in one
place each, so that no caller matches an error by its text.
"""

from __future__ import annotations

from datetime import timedelta

from app.redaction import redacted


class AgentError(Exception):
    """Root of every error raised on purpose by this product.

    Its message may repeat an upstream's words: credentials are taken out of it.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(redacted(each) if isinstance(each, str) else each for each in said))


class TransientError(AgentError):
    """Nothing was changed; the same call may succeed later.

    `retry_after` is the shortest wait that makes sense, where the other side
    named one.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(TransientError):
    """Nothing was changed: the target is no longer in the state it was read in.

    The caller reads it again and decides again.
    """


class PartlyRecorded(TransientError):
    """A delivery that is recorded in parts broke off: the same call again records the rest of it.

    What was recorded is recognised as a duplicate then.
    """

    def __init__(
        self, message: str, *, recorded: int = 0, total: int = 0, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.recorded = recorded
        self.total = total


class PermanentError(AgentError):
    """Nothing was changed, and repeating the same call will not help."""


class Forbidden(PermanentError):
    """The agent's identity lacks the right; the message names verb and object."""


class NotEntitled(PermanentError):
    """The person who asks may not do this; the message says who may."""


class NotFound(PermanentError):
    """The object named by the call does not exist."""


class Invalid(PermanentError):
    """The other side understood the request and rejected its content."""


class UnknownOutcome(AgentError):
    """A write was sent and its answer never arrived: it may have happened.

    The caller must read the actual state before it does anything else.
    """


class ClaimLost(AgentError):
    """Another worker holds the incident now; this one must stop at once."""


class ConfigurationError(AgentError):
    """The agent cannot start as configured; the message names the fix."""

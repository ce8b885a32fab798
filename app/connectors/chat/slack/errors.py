"""Maps Slack responses and timeouts to the agent's errors. Pure.

Called by `slack_client`. Slack answers 200 and says in the body that it refused,
by a code; only codes of its form are repeated in a message, so that nothing that
an answer echoes, a token least of all, enters an error (promise 12).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from app.agent.ids import JsonObject
from app.errors import (
    AgentError,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
    UnknownOutcome,
)

_CODE = re.compile(r"[a-z_]{1,60}")
_SCOPES = re.compile(r"[a-z:._,]{1,200}")
_MOST_SECONDS = 3_600
_LIMIT_SECONDS = 30
"""How long to wait at a limit of Slack's that names no time."""

_TOKEN = frozenset(
    {
        "account_inactive",
        "invalid_auth",
        "not_allowed_token_type",
        "not_authed",
        "token_expired",
        "token_revoked",
    }
)
_LIMITS = frozenset({"rate_limited", "ratelimited", "message_limit_exceeded"})
_BUSY = frozenset({"request_timeout", "service_unavailable", "team_added_to_org"})
_MAYBE = frozenset({"fatal_error", "internal_error"})
"""Of these Slack itself says that a part may have been done."""


class MessageGone(NotFound):
    """The message, or the thread, is not there any more, or is not the app's own to change."""


class MissingScope(Forbidden):
    """The app may do other things, but not this."""


_GONE = frozenset({"cant_update_message", "message_not_found", "thread_not_found"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackCall:
    """One request, as its errors name it."""

    method: str
    effect: bool
    """Whether people see something of it."""
    token_setting: str = "SLACK_BOT_TOKEN"  # noqa: S105 - the name of a setting

    def __str__(self) -> str:
        return f"Slack's {self.method}"


def unreachable(call: SlackCall) -> AgentError:
    """The error when nothing was sent."""
    return TransientError(f"{call} cannot be reached (SLACK_API_URL)")


def unanswered(call: SlackCall, why: str) -> AgentError:
    """The error for a request that was sent and whose answer is missing, or is not one."""
    if call.effect:
        return UnknownOutcome(f"{call} was called and {why}: it may have taken effect")
    return TransientError(f"{call} was called and {why}")


def refusal(call: SlackCall, status: int, headers: Mapping[str, str], body: JsonObject | None) -> AgentError:
    """The error for an answer that is no success; `body` is None where it was no JSON object."""
    said = body.get("error") if body is not None else None
    code = said if isinstance(said, str) and _CODE.fullmatch(said) else None
    if status == 429 or code in _LIMITS:
        return TransientError(f"{call} is rate limited", retry_after=_retry_after(headers))
    if status >= 500 or code in _MAYBE or code is None:
        return unanswered(call, f"answered {code or status} with an unknown outcome")
    if code in _BUSY:
        return TransientError(f"{call} answered {code}")
    if code in _TOKEN:
        return Forbidden(f"{call} answered {code}: {call.token_setting} is invalid or was revoked")
    return _refused(call, code, body or {})


def _refused(call: SlackCall, code: str, body: JsonObject) -> AgentError:
    if code == "missing_scope":
        needed = body.get("needed")
        scope = needed if isinstance(needed, str) and _SCOPES.fullmatch(needed) else "a scope"
        return MissingScope(f"{call} needs {scope}: add it to the app's scopes and reinstall the app")
    if code in ("not_in_channel", "access_denied", "no_permission", "restricted_action"):
        return Forbidden(f"{call} answered {code}: invite the app to the channel of SLACK_CHANNEL")
    if code == "channel_not_found":
        return NotFound(
            f"{call} answered {code}: SLACK_CHANNEL must be the id of a channel the app has joined"
        )
    if code == "is_archived":
        return PermanentError(f"{call} answered {code}: SLACK_CHANNEL is an archived channel")
    if code in _GONE:
        return MessageGone(f"{call} answered {code}")
    return Invalid(f"{call} answered {code}")


def _retry_after(headers: Mapping[str, str]) -> timedelta:
    """The wait in whole seconds; a limit without a number is given a moderate one."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    known = text.isascii() and text.isdigit() and len(text) < 10
    return timedelta(seconds=min(max(1, int(text)), _MOST_SECONDS) if known else _LIMIT_SECONDS)

"""Maps API server responses and timeouts to the agent's errors.

Called by `k8s_api`. Promise 2 rests on the distinction made here: a write that
was certainly refused may be decided again, a write without an answer may have
happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import httpx2
from lightkube.core.exceptions import ConfigError

from app.agent.ids import JsonObject
from app.connectors.answers import error_for, meaning_of
from app.connectors.kubernetes.fields import number, objects, text
from app.errors import (
    AgentError,
    Conflict,
    NotFound,
    TransientError,
    UnknownOutcome,
)
from app.redaction import redacted

_MESSAGE_LIMIT = 400
"""Characters of a server's message that are passed on."""
_RETRY_AFTER_LIMIT_SECONDS = 600
_NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    ConfigError,
)


class Expired(TransientError):
    """The resourceVersion or continue token is too old (410): list again."""


class Absent(NotFound):
    """The API server itself says that the object does not exist; a gateway's 404 says no such thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesCall:
    """One request, as its errors name it."""

    verb: str
    """The verb as RBAC knows it: get, list, watch, patch."""
    what: str
    """Resource and object, for example `deployments payments/shop`."""
    effect: bool
    """Whether the request can change anything; a dry run cannot."""

    def __str__(self) -> str:
        return f"{self.verb} {self.what}"


def rejection(call: KubernetesCall, code: int, headers: Mapping[str, str], status: JsonObject) -> AgentError:
    """The error for an answer that is no success; `status` is the server's Status object, or empty."""
    message = f"{call}: {redacted(text(status, 'message') or f'HTTP {code}')[:_MESSAGE_LIMIT]}"
    if code == 401:
        message = f"forbidden: the API server does not know the agent's identity, cannot {message}"
    if code == 403:
        message = f"forbidden: cannot {message}"
    if code == 404 and text(status, "kind") == "Status":
        return Absent(message)
    if code == 409 or _names_another_object(code, status) or _budget_holds(code, status):
        return Conflict(message)
    if code == 410:
        return Expired(message)
    wait = _retry_after(headers, status)
    kind = meaning_of(code)
    unanswered = issubclass(kind, TransientError) and code != 429 and not (code == 503 and wait is not None)
    if call.effect and unanswered:
        return UnknownOutcome(f"{message} (the write may have happened)")
    return error_for(code, message, wait)


def failure(call: KubernetesCall, error: Exception) -> AgentError:
    """The error for a request that got no usable answer."""
    message = f"{call}: {type(error).__name__}: {redacted(str(error))[:_MESSAGE_LIMIT]}".rstrip(": ")
    if isinstance(error, ConfigError):
        # Its text may quote what a credential plugin printed.
        message = f"{call}: the credentials of the kubeconfig cannot be obtained"
    if call.effect and not isinstance(error, _NEVER_SENT):
        return UnknownOutcome(f"{message} (the write may have happened)")
    return TransientError(message)


def status_of(body: bytes) -> JsonObject:
    """The Status object of an answer; empty when a proxy or gateway answered something else."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _names_another_object(code: int, status: JsonObject) -> bool:
    """Whether a patch was rejected because the object of that name has another uid."""
    return code == 422 and any(
        text(cause, "field") == "metadata.uid" for cause in objects(status, "details", "causes")
    )


def _budget_holds(code: int, status: JsonObject) -> bool:
    """Whether an eviction was refused because a disruption budget allows none now."""
    return code == 429 and any(
        text(cause, "reason") == "DisruptionBudget" for cause in objects(status, "details", "causes")
    )


def _retry_after(headers: Mapping[str, str], status: JsonObject) -> timedelta | None:
    named = headers.get("Retry-After", "")
    seconds = (
        int(named) if named.isascii() and named.isdigit() else number(status, "details", "retryAfterSeconds")
    )
    if seconds is None or seconds < 0:
        return None
    return timedelta(seconds=min(seconds, _RETRY_AFTER_LIMIT_SECONDS))

"""Requests to Argo CD's API server, and the one place that maps its errors.

Argo CD answers an error with a gRPC code: a refused precondition is status 400 with code
9, and an application that does not exist is code 7 (permission denied), not 404.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from app.agent.gitops.application import ApplicationRef
from app.agent.ids import Json, JsonObject
from app.config import Settings
from app.connectors.http import HttpPeer, HttpReply
from app.connectors.peer_breaker import PeerBreaker
from app.connectors.text import shorten
from app.errors import (
    AgentError,
    ConfigurationError,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
    UnknownOutcome,
)

TITLE = "Argo CD"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_RESOURCE_EXHAUSTED = 8
_CODES: Mapping[int, type[AgentError]] = {
    1: TransientError,
    3: Invalid,
    4: TransientError,
    5: NotFound,
    6: Invalid,
    7: Forbidden,
    _RESOURCE_EXHAUSTED: TransientError,
    9: Invalid,
    10: TransientError,
    12: Invalid,
    13: TransientError,
    14: TransientError,
    16: Forbidden,
}
"""gRPC codes as the agent's errors; others are mapped by the HTTP status."""
_HINTS = {
    7: "the application does not exist, or the account of ARGOCD_TOKEN may not do this",
    16: "ARGOCD_TOKEN is missing, wrong or expired",
}


class _Refusal(msgspec.Struct):
    code: int = 0
    message: str = ""
    error: str = ""


class ArgoClient:
    """One API server. Reads go through a circuit breaker; writes say when their outcome is unknown."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer
        self._breaker = PeerBreaker(name=TITLE)

    @staticmethod
    def from_settings(settings: Settings) -> ArgoClient:
        """Raises `ConfigurationError` for settings that cannot work."""
        if settings.argocd_url is None:
            raise ConfigurationError("ARGOCD_URL is not set")
        return ArgoClient(
            HttpPeer(
                name=TITLE,
                setting="ARGOCD_URL",
                url=settings.argocd_url,
                timeout_seconds=settings.argocd_timeout_seconds,
                bearer_token=settings.argocd_token,
            )
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> JsonObject:
        """The answer to a read, as a JSON object; raises like every port."""

        async def ask() -> JsonObject:
            reply = await self._peer.send("GET", path, params=params)
            if not reply.ok:
                raise self._refused(reply)
            return _decoded(reply.body)

        return await self._breaker.ask(ask)

    async def write(self, method: str, path: str, body: JsonObject) -> JsonObject:
        """The answer to a write; `UnknownOutcome` where it may have taken effect without an answer."""
        try:
            reply = await self._peer.send(method, path, json_body=json.dumps(body).encode())
        except TransientError as error:
            raise UnknownOutcome(str(error)) from None
        if reply.ok:
            return _decoded(reply.body)
        refused = self._refused(reply)
        limited = reply.status == 429 or _code(reply.body) == _RESOURCE_EXHAUSTED
        if isinstance(refused, TransientError) and not limited:
            raise UnknownOutcome(str(refused))
        raise refused

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    def _refused(self, reply: HttpReply) -> AgentError:
        """The agent's error for an answer other than 2xx."""
        try:
            said = msgspec.json.decode(reply.body, type=_Refusal)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self._peer.refusal(reply)
        kind = _CODES.get(said.code)
        words = shorten(said.message or said.error)
        if kind is None:
            return self._peer.refusal(reply, words)
        hint = _HINTS.get(said.code)
        detail = f"{hint} ({words})" if hint else words
        return kind(f"{TITLE} (ARGOCD_URL) refused, code {said.code}: {detail}")


def application_path(ref: ApplicationRef | str, *parts: str) -> str:
    """The path of an application; `Invalid` for what cannot be its name."""
    name = ref if isinstance(ref, str) else ref.name
    if not _NAME.fullmatch(name):
        raise Invalid(f"{shorten(name, 80)!r} is not the name of an application")
    return "/".join(("/api/v1/applications", name, *parts))


def in_namespace(ref: ApplicationRef) -> dict[str, str]:
    """The parameter that names an application's namespace."""
    return {"appNamespace": ref.namespace} if ref.namespace else {}


def _code(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Refusal).code
    except (msgspec.DecodeError, ValueError, RecursionError):
        return 0


def _decoded(body: bytes) -> JsonObject:
    try:
        found: Json = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PermanentError(
            f"unexpected response from {TITLE} (not a JSON object); is ARGOCD_URL its API server's address?"
        )
    return found

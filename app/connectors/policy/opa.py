"""Asks a remote OPA server before an action and accepts only a complete decision.

Called by policy, besides the built-in guardrails. Keeps promise 7: whatever goes
wrong between the question and a well-formed decision is a deny with its reason.
OPA itself answers 200 with no `result` when a decision is undefined, and hides
failing builtins unless asked not to, so neither status nor shape is taken on trust.
"""

from __future__ import annotations

import json

from pydantic import SecretStr

from app.agent.ids import JsonObject
from app.agent.ports.policy import PolicyAnswer
from app.config import Settings
from app.connectors.http import HttpPeer
from app.connectors.peer_breaker import PeerBreaker
from app.connectors.policy.answers import deny, read_decision
from app.errors import AgentError, ConfigurationError

_PATH = "/v1/data/heal/decision"
_STRICT = {"strict-builtin-errors": "true"}
_TIMEOUT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 256 * 1024


class OpaPolicy:
    """`PolicyEngine` over `POST /v1/data/heal/decision`."""

    def __init__(
        self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS, token: SecretStr | None = None
    ) -> None:
        """Raises `ConfigurationError` for an address or a token that cannot be used."""
        self._peer = HttpPeer(
            name="the policy engine",
            setting="OPA_URL",
            url=url,
            timeout_seconds=timeout_seconds,
            bearer_token=token,
            max_bytes=_MAX_ANSWER_BYTES,
        )
        self.breaker = PeerBreaker(name=self._peer.name)

    @staticmethod
    def from_settings(settings: Settings) -> OpaPolicy:
        """Raises `ConfigurationError` when `OPA_URL` is not set or cannot be used."""
        if settings.opa_url is None:
            raise ConfigurationError("OPA_URL is not set")
        return OpaPolicy(
            settings.opa_url, timeout_seconds=settings.opa_timeout_seconds, token=settings.opa_token
        )

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        """OPA's decision on the document as its `input`; anything incomplete is a deny. Never raises."""
        try:
            body = json.dumps({"input": document}, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return deny(f"the policy input cannot be encoded as JSON: {error}")
        try:
            reply = await self.breaker.ask(
                lambda: self._peer.send("POST", _PATH, params=_STRICT, json_body=body)
            )
        except AgentError as error:
            return deny(str(error))
        if reply.status != 200:
            return deny(str(self._peer.refusal(reply)))
        return read_decision(reply.body)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

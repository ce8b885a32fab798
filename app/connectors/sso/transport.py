"""How the agent speaks to an issuer: one deadline, one size bound, no redirects, no proxies.

A transport that `app.connectors.sso.oidc` gives to authlib's client, whose own HTTP
has none of these. The issuer cannot exhaust the agent's memory or time.
"""

from __future__ import annotations

import ipaddress
import json

import httpx2

from app.bounds.body import read_bounded
from app.bounds.deadline import deadline
from app.connectors.http import system_trust
from app.errors import PermanentError, TransientError

_MAX_BYTES = 512 * 1024
_MAX_PORT = 65_535
_HEADERS = {"Accept-Encoding": "identity"}


class IssuerTransport(httpx2.AsyncBaseTransport):
    """Every answer whole and bounded, or an `AgentError`; each request has a connection of its own."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._tls = system_trust()

    def options(self) -> dict[str, object]:
        """What a client over this transport is made with."""
        return {
            "transport": self,
            "trust_env": False,
            "follow_redirects": False,
            "timeout": self._timeout,
            "headers": dict(_HEADERS),
        }

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises `TransientError` when no complete answer arrives in time, `PermanentError` for a bad one."""
        try:
            async with (
                deadline(self._timeout, self._incomplete),
                httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as wire,
            ):
                answer = await wire.handle_async_request(request)
                body = await _read(answer)
        except httpx2.TimeoutException:
            raise self._incomplete() from None
        except httpx2.TransportError as error:
            raise TransientError(
                f"it cannot be reached or closed the connection: {type(error).__name__}"
            ) from None
        if answer.status_code >= 500 or answer.status_code == 429:
            raise TransientError(f"it answered {answer.status_code}")
        return httpx2.Response(answer.status_code, headers=answer.headers, content=body, request=request)

    def _incomplete(self) -> TransientError:
        return TransientError(f"it gave no complete answer within {self._timeout:g} s")

    async def get_json(self, url: str) -> object:
        """A document of the issuer's."""
        async with httpx2.AsyncClient(
            transport=self, trust_env=False, follow_redirects=False, headers=_HEADERS
        ) as client:
            answer = await client.get(url)
        if answer.status_code != 200:
            raise PermanentError(f"it answered {answer.status_code} where a document should be")
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError):
            raise PermanentError("it sent a document that is not JSON") from None


def reachable_safely(url: str) -> bool:
    """Whether what is said there stays between the two: https, or http that never leaves this machine."""
    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return False
    if not address.host or address.userinfo or address.fragment or (address.port or 0) > _MAX_PORT:
        return False
    return address.scheme == "https" or (address.scheme == "http" and _loopback(address.host))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _read(answer: httpx2.Response) -> bytes:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PermanentError("it sent a compressed answer that was not asked for")
    return await read_bounded(
        answer.aiter_raw(), _MAX_BYTES, lambda: PermanentError(f"it sent more than {_MAX_BYTES:,} bytes")
    )

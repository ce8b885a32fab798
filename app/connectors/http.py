"""HTTP client of every connector: one deadline, one size limit, one mapping to the agent's errors.

Used by the connectors that speak plain HTTP (metrics, policy, webhooks). The
other side is not trusted: an answer that drips for ever, is too long, is
compressed or redirects elsewhere is an error, and no error carries the address
or a credential, because both may be secrets (promise 12). The process
environment is not consulted for proxies: `app.config` is its only reader.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from weakref import WeakKeyDictionary

import httpx2
from pydantic import SecretStr

from app.bounds.body import read_bounded
from app.bounds.deadline import deadline
from app.connectors.answers import error_for, retry_after
from app.connectors.text import shorten
from app.errors import AgentError, ConfigurationError, PermanentError, TransientError, UnknownOutcome
from app.redaction import remember

_MAX_BYTES = 8 * 1024 * 1024
_MAX_CONNECTIONS = 16
_PERHAPS_TAKEN = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Said by something in between, which cannot know what the server behind it has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """A complete answer of any status, its body bounded."""

    status: int
    headers: httpx2.Headers
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def excerpt(self) -> str:
        """The start of the body as one printable line, for a message."""
        text = self.body[:8_000].decode("utf-8", errors="replace")
        return shorten(text)


@cache
def system_trust() -> ssl.SSLContext:
    """TLS with the certificate authorities of the system, read once for all peers of the process."""
    return ssl.create_default_context()


class HttpPeer:
    """One server that a connector talks to, named in errors by its setting instead of its address."""

    def __init__(
        self,
        *,
        name: str,
        setting: str,
        url: str,
        timeout_seconds: float,
        bearer_token: SecretStr | None = None,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """Raises `ConfigurationError`, naming `setting`, for an address or token that cannot be used."""
        self.name = name
        self._setting = setting
        self._url = _checked_url(url, setting)
        remember([self._url.password] if self._url.password else ())
        self._timeout = timeout_seconds
        self._max_bytes = max_bytes
        own = {"User-Agent": "self-healing-devops-agent", "Accept-Encoding": "identity"}
        self._headers = {**(headers or {}), **own}
        if bearer_token is not None:
            token = _checked_token(bearer_token, setting)
            self._headers["Authorization"] = f"Bearer {token}"
            remember([token])
        self._tls = system_trust() if self._url.scheme == "https" else False
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = WeakKeyDictionary()
        # They log URLs and headers, and a webhook's URL is its password.
        for library in ("httpx2", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)

    async def send(
        self,
        method: str,
        path: str = "",
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json_body: bytes | None = None,
    ) -> HttpReply:
        """The answer, whatever its status.

        `path` is appended to the configured address. Raises `TransientError`
        when no complete answer arrives in time, and `PermanentError` when the
        answer is longer than allowed or encoded in a way that was not asked for.
        """
        url = self._at(path, params)
        headers = {"Content-Type": "application/json"} if json_body is not None else {}
        try:
            async with (
                deadline(self._timeout, self._incomplete),
                self._client().stream(method, url, data=form, content=json_body, headers=headers) as response,
            ):
                body = await self._read(response)
                return HttpReply(status=response.status_code, headers=response.headers, body=body)
        except httpx2.TimeoutException:
            raise self._incomplete() from None
        except httpx2.ConnectError:
            raise self._unreachable() from None
        except httpx2.TransportError as error:
            raise TransientError(
                f"{self.name} ({self._setting}) closed the connection: {type(error).__name__}"
            ) from None

    async def deliver(
        self,
        body: bytes,
        *,
        path: str = "",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Post a message as JSON; only a 2xx answer is a delivery, whatever its body says.

        The other side's words are not repeated: they may hold the address. Raises
        `UnknownOutcome` where the message may have been taken although no answer
        says so, and otherwise as `send` and `refusal` do.
        """
        sent = {"Content-Type": "application/json", **(headers or {})}
        url = self._at(path, params)
        try:
            async with (
                deadline(self._timeout, self._unanswered),
                self._client().stream("POST", url, content=body, headers=sent) as response,
            ):
                reply = HttpReply(status=response.status_code, headers=response.headers, body=b"")
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise self._unreachable() from None
        except httpx2.TimeoutException:
            raise self._unanswered() from None
        except httpx2.TransportError as error:
            raise UnknownOutcome(
                f"{self.name} ({self._setting}) closed the connection: {type(error).__name__}"
            ) from None
        if reply.status in _PERHAPS_TAKEN:
            raise UnknownOutcome(f"{self.name} ({self._setting}) answered {reply.status}")
        if not reply.ok:
            raise self.refusal(reply, "")

    async def probe_connection(self) -> None:
        """Check that the peer answers, without writing; raises `TransientError` when it does not."""
        try:
            async with (
                deadline(self._timeout, self._unreachable),
                self._client().stream("HEAD", self._url),
            ):
                pass  # any answer will do: many webhooks take nothing but POST
        except httpx2.TransportError:
            raise self._unreachable() from None

    def refusal(self, reply: HttpReply, said: str | None = None) -> AgentError:
        """The error that an answer other than 2xx stands for.

        `said` are the other side's own words; without it they are the start of
        the body, and an empty text leaves them out.
        """
        words = reply.excerpt() if said is None else said
        message = f"{self.name} ({self._setting}) answered {reply.status}" + (f": {words}" if words else "")
        if 300 <= reply.status < 400:
            message = (
                f"{self.name} ({self._setting}) answered {reply.status}: redirects are not followed; "
                f"set {self._setting} to the final address"
            )
        return error_for(reply.status, message, retry_after(reply.headers))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _at(self, path: str, params: Mapping[str, str] | None) -> httpx2.URL:
        url = self._url
        if path:
            url = url.copy_with(path=url.path.rstrip("/") + path)
        return url.copy_merge_params(dict(params)) if params else url

    def _client(self) -> httpx2.AsyncClient:
        # A connection belongs to the loop that opened it, and the durable engine runs a loop of its own.
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = httpx2.AsyncClient(
                headers=self._headers,
                timeout=self._timeout,
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS),
            )
            self._clients[loop] = client
        return client

    async def _read(self, response: httpx2.Response) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise PermanentError(
                f"{self.name} ({self._setting}) sent a compressed answer that was not asked for"
            )
        return await read_bounded(response.aiter_raw(), self._max_bytes, self._too_long)

    def _too_long(self) -> PermanentError:
        return PermanentError(f"{self.name} ({self._setting}) sent more than {self._max_bytes:,} bytes")

    def _incomplete(self) -> TransientError:
        return TransientError(
            f"{self.name} ({self._setting}) gave no complete answer within {self._timeout:g} s"
        )

    def _unreachable(self) -> TransientError:
        return TransientError(f"{self.name} ({self._setting}) cannot be reached")

    def _unanswered(self) -> UnknownOutcome:
        return UnknownOutcome(f"{self.name} ({self._setting}) gave no answer within {self._timeout:g} s")


def _checked_url(text: str, setting: str) -> httpx2.URL:
    fix = f"{setting} must be an address such as http://host:port"
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ConfigurationError(fix) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(fix)
    return url


def _checked_token(token: SecretStr, setting: str) -> str:
    text = token.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"the bearer token for {setting} is empty or has characters no header may carry"
        )
    return text

"""One Slack workspace over slack-sdk: bounded in time and size, every error one of ours.

Imported only where Slack is configured, by `slack` and `slack_inbound`. Nothing is
sent again behind the caller's back: the announcer waits and decides. The process
environment is not consulted for proxies: `app.config` is its only reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from pydantic import SecretStr
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from app.agent.ids import JsonObject
from app.bounds.body import read_bounded
from app.connectors.chat.slack.errors import (
    SlackCall,
    refusal,
    unanswered,
    unreachable,
)
from app.errors import AgentError, PermanentError, TransientError

QUIET = logging.getLogger("app.connectors.chat.slack.client.library")
"""Given to the libraries, which log requests, addresses and bodies; what matters is logged by us."""
QUIET.setLevel(logging.CRITICAL + 1)

_TIMEOUT_SECONDS = 10.0
_CONNECT_SECONDS = 4.0
_MAX_BYTES = 8 * 1024 * 1024
_SLACKS_OWN = ("slack.com", "slack-gov.com")

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_UNREADABLE = (ValueError, AttributeError, TypeError, RecursionError)
"""What slack-sdk fails with over an answer that is no JSON object."""


class _TooLong(aiohttp.ClientError):
    """The answer is longer than any of Slack's."""


class _BoundedResponse(aiohttp.ClientResponse):
    """Does not read on for ever."""

    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = await read_bounded(self.content.iter_any(), _MAX_BYTES, _TooLong)
            except _TooLong:
                self.close()
                raise
        return self._body


class SlackClient:
    """Calls the Web API, and answers people at the addresses that Slack gives for it."""

    def __init__(
        self, *, token: SecretStr | None, api_url: str, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        self._token = None if token is None else token.get_secret_value()
        self._api_url = api_url
        self._timeout = timeout_seconds
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = (
            WeakKeyDictionary()
        )

    async def call(self, call: SlackCall, arguments: Mapping[str, object]) -> JsonObject:
        """Slack's answer where it says that it did it; raises as `slack_errors` has it."""
        answer, _ = await self.ask(call, arguments)
        return answer

    async def ask(
        self, call: SlackCall, arguments: Mapping[str, object], *, token: SecretStr | None = None
    ) -> tuple[JsonObject, Mapping[str, str]]:
        """As `call`, with the answer's headers, and another token where one is given."""
        web = self.web(token)
        # Raised after the handlers: the library's errors quote whole answers, and none of ours carries one
        # along as its context.
        try:
            async with asyncio.timeout(self._timeout):
                response = await (
                    web.api_call(call.method, json=dict(arguments))
                    if call.effect
                    else web.api_call(call.method, http_verb="GET", params=dict(arguments))
                )
        except SlackApiError as error:
            failed = _refused(call, error.response)
        except _NOT_SENT:
            failed = unreachable(call)
        except TimeoutError:
            failed = unanswered(call, f"gave no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            failed = unanswered(call, f"closed the connection ({type(error).__name__})")
        except _UNREADABLE:
            failed = unanswered(call, "returned an unreadable response")
        else:
            if isinstance(response.data, dict):
                return response.data, response.headers
            failed = unanswered(call, "returned an unreadable response")
        raise failed

    async def respond(self, response_url: str, message: JsonObject) -> None:
        """Say something to one person alone, in answer to what they did.

        The address comes from outside: `PermanentError` for one that is not Slack's.
        """
        if not self.is_slacks(response_url):
            raise PermanentError("the response_url is not a Slack address; nothing was sent")
        try:
            async with (
                asyncio.timeout(self._timeout),
                self.session().post(response_url, json=message, allow_redirects=False) as response,
            ):
                if response.status == 200:
                    return
                said = f"Slack said {response.status}"
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            said = type(error).__name__
        raise TransientError(f"the reply to a Slack user failed ({said})")

    def is_slacks(self, address: str) -> bool:
        """Whether an address is Slack's own, or that of SLACK_API_URL."""
        try:
            there, api = urlsplit(address), urlsplit(self._api_url)
            port = there.port
        except ValueError:
            return False
        if "@" in there.netloc or not there.hostname:
            return False
        if (there.scheme, there.netloc) == (api.scheme, api.netloc):
            return True
        host = there.hostname
        known = any(host == one or host.endswith(f".{one}") for one in _SLACKS_OWN)
        return known and there.scheme == "https" and port in (None, 443)

    def web(self, token: SecretStr | None = None) -> AsyncWebClient:
        """The library's client over this one's connections."""
        web = AsyncWebClient(
            token=self._token if token is None else token.get_secret_value(),
            base_url=self._api_url,
            timeout=int(self._timeout) or 1,
            session=self.session(),
            retry_handlers=[],
            logger=QUIET,
        )
        web.proxy = None  # it has read one from the environment
        return web

    def session(self) -> aiohttp.ClientSession:
        """The running event loop's own."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            session = aiohttp.ClientSession(
                # A connection that the other side has just given up would make every second call one
                # whose arrival is unknown.
                connector=aiohttp.TCPConnector(force_close=True, limit=16),
                timeout=aiohttp.ClientTimeout(
                    total=self._timeout, connect=_CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS
                ),
                response_class=_BoundedResponse,
                trust_env=False,
            )
            self._sessions[loop] = session
        return session

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()


def _refused(call: SlackCall, response: object) -> AgentError:
    """The library gives its own response, or aiohttp's where the body was no JSON."""
    status: int = getattr(response, "status_code", None) or getattr(response, "status", None) or 0
    body = getattr(response, "data", None)
    headers: Mapping[str, str] = getattr(response, "headers", {})
    return refusal(call, status, headers, body if isinstance(body, dict) else None)

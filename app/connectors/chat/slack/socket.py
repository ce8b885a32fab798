"""Socket Mode: buttons and commands over a connection that the agent opens itself.

Used by `slack_inbound`, one for each process. slack-sdk's client reconnects for
ever on its own, with an address that may be spent, and logs addresses that open
the connection: here each connection is opened once, watched, and replaced by a
new one, after a pause that grows while Slack cannot be reached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from pydantic import SecretStr
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient

from app.bounds.backoff import Backoff
from app.bounds.deadline import deadline
from app.clock import Clock
from app.connectors.chat.slack.client import QUIET, SlackClient
from app.connectors.chat.slack.errors import SlackCall, unanswered
from app.errors import AgentError, TransientError

log = logging.getLogger(__name__)

_OPEN = SlackCall(method="apps.connections.open", effect=False, token_setting="SLACK_APP_TOKEN")  # noqa: S106 - a name
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_PING_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_REFRESH_SECONDS = 15.0
"""How long a reconnect that Slack requested may take."""
_BACKOFF = Backoff.of_seconds(1.0, 60.0)
_STEADY = timedelta(minutes=1)
"""After a connection of this length the reconnect delay is reset."""


class SlackSocket:
    """Keeps one connection to Slack."""

    def __init__(self, *, app: AsyncApp, client: SlackClient, token: SecretStr, clock: Clock) -> None:
        self._app = app
        self._client = client
        self._token = SecretStr(token.get_secret_value().strip())
        self._clock = clock
        self._failing = False

    async def run(self) -> None:
        """Be connected until cancelled."""
        failures = 0
        while True:
            began, retry_after = self._clock.now(), None
            try:
                await self._one_connection()
            except AgentError as error:
                if not self._failing:
                    log.warning("Slack socket disconnected, buttons and commands are not received: %s", error)
                self._failing = True
                if isinstance(error, TransientError) and error.retry_after is not None:
                    retry_after = min(error.retry_after, _BACKOFF.longest)
            failures = 1 if self._clock.now() - began >= _STEADY else failures + 1
            await self._clock.sleep(_BACKOFF.seconds_after(failures, retry_after))

    async def _one_connection(self) -> None:
        """Return when it ended; raises when there was none."""
        answer, _ = await self._client.ask(_OPEN, {}, token=self._token)
        address = answer.get("url")
        if not isinstance(address, str) or not address.startswith(("wss://", "ws://")):
            raise unanswered(_OPEN, "returned no address")
        async with self._connected(address) as socket:
            if self._failing:
                log.warning("Slack socket reconnected")
            self._failing = False
            absent = 0.0
            while absent < _REFRESH_SECONDS:
                await self._clock.sleep(_LOOK_SECONDS)
                if await socket.is_connected():
                    absent = 0.0
                elif socket.connect_operation_lock.locked():
                    absent += _LOOK_SECONDS
                else:
                    return

    @asynccontextmanager
    async def _connected(self, address: str) -> AsyncIterator[SocketModeClient]:
        handler = AsyncSocketModeHandler(
            self._app,
            app_token=self._token.get_secret_value(),
            logger=QUIET,
            web_client=self._client.web(self._token),
            ping_interval=_PING_SECONDS,
        )
        socket = handler.client
        socket.proxy = None  # it has read one from the environment
        socket.wss_uri = address
        socket.auto_reconnect_enabled = socket.default_auto_reconnect_enabled = False
        try:
            async with deadline(_CONNECT_SECONDS, _not_opened):
                await socket.connect()  # type: ignore[no-untyped-call]  # slack-sdk leaves it untyped
            yield socket
        finally:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await socket.close()  # type: ignore[no-untyped-call]  # as above
            tasks = [socket.message_processor, socket.current_session_monitor, socket.message_receiver]
            for task in tasks:
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(one for one in tasks if one is not None), return_exceptions=True)
            await socket.aiohttp_client_session.close()


def _not_opened() -> TransientError:
    return TransientError("the Slack socket could not be opened (SLACK_API_URL)")

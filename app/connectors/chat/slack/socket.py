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
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
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
        pause = _FIRST_PAUSE_SECONDS
        while True:
            began, wait = self._clock.now(), pause
            try:
                await self._one_connection()
            except AgentError as error:
                if not self._failing:
                    log.warning("Slack socket disconnected, buttons and commands are not received: %s", error)
                self._failing = True
                if isinstance(error, TransientError) and error.retry_after is not None:
                    wait = max(pause, min(error.retry_after.total_seconds(), _LONGEST_PAUSE_SECONDS))
            if self._clock.now() - began >= _STEADY:
                pause = wait = _FIRST_PAUSE_SECONDS
            else:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            await self._clock.sleep(wait)

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
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await socket.connect()  # type: ignore[no-untyped-call]  # slack-sdk leaves it untyped
            except TimeoutError:
                raise TransientError("the Slack socket could not be opened (SLACK_API_URL)") from None
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

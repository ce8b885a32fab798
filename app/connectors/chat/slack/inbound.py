"""Buttons and commands of Slack, over HTTP and over Socket Mode, through one bolt application.

Built by `app.connectors.chat.slack.channel.inbound_from_settings`; `app.api.routes.chat` brings it
requests, `app.workers` keeps its socket connected. An answer is durable before
Slack gets its acknowledgement. Needs the extra `slack`, and neither the bot
token nor the writing side of Slack: what people do is written to our own database
alone, so that it works in a dry run, too (promise 5).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from slack_bolt.adapter.starlette.async_handler import to_starlette_response
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltRequest
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.response import BoltResponse
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient
from starlette.responses import Response

from app.agent.ids import JsonObject
from app.agent.ports.store import Store
from app.clock import Clock
from app.config import Settings
from app.connectors.chat.slack.blocks import (
    APPROVE,
    DENY,
    MAX_TEXT,
    OPEN,
    escaped,
    private_blocks,
)
from app.connectors.chat.slack.client import QUIET, SlackClient
from app.connectors.chat.slack.commands import (
    Click,
    Command,
    PrivateReply,
    SlackCommands,
)
from app.connectors.chat.slack.socket import SlackSocket
from app.errors import AgentError, Invalid

log = logging.getLogger(__name__)

COMMAND = "/heal"
_MOST_FIELDS = 200
_MOST_REPLIES = 200
_CLOSE_SECONDS = 5.0


class SlackInbound:
    """Receives Slack interactions and passes them to the handler."""

    def __init__(self, *, settings: Settings, client: SlackClient, store: Store, clock: Clock) -> None:
        self._client = client
        self._handler = SlackCommands(settings, store, clock)
        self._replies: set[asyncio.Task[None]] = set()
        secret = settings.slack_signing_secret
        self._verifier = None if secret is None else SignatureVerifier(secret.get_secret_value().strip())
        self._app = self._application(secret.get_secret_value().strip() if secret is not None else None)
        token = settings.slack_app_token
        self._socket = (
            None if token is None else SlackSocket(app=self._app, client=client, token=token, clock=clock)
        )

    @property
    def takes_http(self) -> bool:
        """Whether request signatures can be verified."""
        return self._verifier is not None

    @property
    def takes_socket(self) -> bool:
        return self._socket is not None

    def genuine(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Whether Slack signed exactly this, at most five minutes ago.

        Asked before anything is parsed; bolt asks once more.
        """
        timestamp = headers.get("x-slack-request-timestamp", "")
        signature = headers.get("x-slack-signature", "")
        if self._verifier is None or not (
            timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16
        ):
            return False
        try:
            return signature.isascii() and self._verifier.is_valid(body, timestamp, signature)
        except UnicodeDecodeError:
            return False

    async def handle(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Slack's request, answered; `Invalid` for a body that is none of Slack's forms."""
        text = body.decode()
        request = AsyncBoltRequest(body=_as_json(text), headers=dict(headers))
        request.raw_body = text  # what was signed
        return to_starlette_response(await self._app.async_dispatch(request))

    async def keep_connected(self) -> None:
        """Hold a Socket Mode connection until cancelled."""
        if self._socket is not None:
            await self._socket.run()

    async def aclose(self) -> None:
        """Wait briefly for pending replies, then close every connection."""
        if self._replies:
            await asyncio.wait(self._replies, timeout=_CLOSE_SECONDS)
        for task in self._replies:
            task.cancel()
        await self._client.aclose()

    # ------------------------------------------------------------ bolt

    def _application(self, signing_secret: str | None) -> AsyncApp:
        web = AsyncWebClient(token=None, logger=QUIET, retry_handlers=[])
        web.proxy = None  # it has read one from the environment
        app = AsyncApp(
            name="heal",
            logger=QUIET,
            client=web,
            signing_secret=signing_secret or "",
            process_before_response=True,  # otherwise an answer after 3 s is called an unknown button
            request_verification_enabled=signing_secret is not None,
            authorize=_without_asking,
            ignoring_self_events_enabled=False,
            attaching_function_token_enabled=False,
            attaching_conversation_kwargs_enabled=False,
        )

        async def approve(ack: AsyncAck, body: JsonObject) -> None:
            await self._pressed(ack, body, approve=True)

        async def deny(ack: AsyncAck, body: JsonObject) -> None:
            await self._pressed(ack, body, approve=False)

        async def opened(ack: AsyncAck) -> None:
            await ack()

        async def failed(error: Exception) -> BoltResponse:
            log.error("handling a Slack interaction failed", exc_info=error)
            return BoltResponse(status=500)

        app.action(APPROVE)(approve)
        app.action(DENY)(deny)
        app.action(re.compile(rf"{OPEN}_\d+"))(opened)
        app.command(COMMAND)(self._typed)
        app.error(failed)
        return app

    async def _pressed(self, ack: AsyncAck, body: JsonObject, *, approve: bool) -> None:
        user, actions = body.get("user"), body.get("actions")
        first = actions[0] if isinstance(actions, list) and actions else None
        click = Click(
            user=_text(user, "id"),
            approve=approve,
            value=_text(first, "value"),
        )
        reply = await self._handler.click(click)
        if reply.settled:
            await ack()
        else:  # Slack shows the person that it failed, even if what follows does not reach them
            ack.response = BoltResponse(status=503)
        self._send(_text(body, "response_url"), reply)

    async def _typed(self, ack: AsyncAck, body: JsonObject) -> None:
        """The reply to a command is shown only to the person who typed it."""
        command = Command(
            user=_text(body, "user_id"), text=_text(body, "text"), trigger=_text(body, "trigger_id")
        )
        reply = await self._handler.command(command)
        await ack(_private(reply))

    def _send(self, response_url: str, reply: PrivateReply) -> None:
        """Runs in the background: a failed reply changes nothing that is recorded."""
        if not response_url or len(self._replies) >= _MOST_REPLIES:
            log.warning("cannot report the result of a button to the Slack user")
            return
        task = asyncio.create_task(self._deliver(response_url, reply))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _deliver(self, response_url: str, reply: PrivateReply) -> None:
        try:
            await self._client.respond(response_url, {**_private(reply), "replace_original": False})
        except AgentError as error:
            log.warning("cannot report the result of a button to the Slack user: %s", error)


def _private(reply: PrivateReply) -> JsonObject:
    """A message that one person alone sees; it may quote what others wrote."""
    return {
        "response_type": "ephemeral",
        "text": escaped(reply.text, MAX_TEXT),
        "blocks": [*private_blocks(reply.text, reply.links)],
    }


async def _without_asking(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
    """A signed request, or one over our own socket, is for this app; no second authorization."""
    return AuthorizeResult(enterprise_id=enterprise_id, team_id=team_id)


def _as_json(text: str) -> str:
    """The content of a request as JSON.

    bolt finds it by itself, but for a form with the word "payload" somewhere in
    it: a command that says it would be lost, the kill switch with it.
    """
    if text.startswith("{"):
        content = text
    else:
        try:
            fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
        except ValueError:
            raise Invalid("the form has too many fields") from None
        content = fields.get("payload") or json.dumps(fields)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("the body is neither a JSON object nor a form that contains one")
    if not _complete(found):
        raise Invalid("the body is an interaction without user or action")
    return json.dumps(found)


def _complete(content: JsonObject) -> bool:
    """bolt assumes that every interaction has a user and an action."""
    if "actions" not in content:
        return True
    actions = content["actions"]
    if not isinstance(actions, list) or not isinstance(content.get("user"), dict):
        return False
    return bool(actions) and all(isinstance(one, dict) for one in actions)


def _text(holder: object, name: str) -> str:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, str) else ""

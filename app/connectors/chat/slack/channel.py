"""Slack as a `Channel`: one message for each incident, brought up to date as it goes, with a thread below.

Constructed only when `DRY_RUN=false` (promise 5) and called by the announcer. Each
message carries its key as metadata, by which it is found again after a lost answer.
`inbound_from_settings` builds the other direction, what people press and type. The
libraries are an extra, and imported only where Slack is configured.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.agent.ids import JsonObject
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.agent.ports.store import Store
from app.clock import Clock
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.chat.slack.blocks import (
    Look,
    incident_blocks,
    incident_text,
    reply_blocks,
    reply_text,
)
from app.connectors.chat.slack.errors import (
    MessageGone,
    MissingScope,
    SlackCall,
    unanswered,
)
from app.connectors.kinds import ChannelKind, InboundKind
from app.errors import ConfigurationError, Forbidden, Invalid, NotFound

if TYPE_CHECKING:
    from app.connectors.chat.slack.client import SlackClient
    from app.connectors.chat.slack.inbound import SlackInbound

log = logging.getLogger(__name__)

EVENT_TYPE = "heal_message"
_NEEDED_SCOPE = "chat:write"
_POST = SlackCall(method="chat.postMessage", effect=True)
_UPDATE = SlackCall(method="chat.update", effect=True)
_AUTH = SlackCall(method="auth.test", effect=False)
_HISTORY = SlackCall(method="conversations.history", effect=False)
_REPLIES = SlackCall(method="conversations.replies", effect=False)

_CLOCKS_DIFFER = timedelta(minutes=2)
_PAGE = 200
_MOST_PAGES = 10

_AS_WRITTEN: Mapping[str, object] = {
    "link_names": False,
    "parse": "none",
    "unfurl_links": False,
    "unfurl_media": False,
}


class SlackChannel:
    """`Channel` over Slack's Web API."""

    def __init__(self, client: SlackClient, channel: str, look: Look) -> None:
        self._client = client
        self._channel = channel
        self._look = look
        self._bot_id: str | None = None

    @staticmethod
    def from_settings(settings: Settings) -> SlackChannel:
        """Raises `ConfigurationError`, naming the setting, for what is missing or cannot be used."""
        if settings.slack_bot_token is None:
            raise ConfigurationError("SLACK_BOT_TOKEN is not set")
        channel = (settings.slack_channel or "").strip()
        if not channel:
            raise ConfigurationError("SLACK_CHANNEL is not set: set it to the id of the incident channel")
        heard = settings.slack_signing_secret is not None or settings.slack_app_token is not None
        client = client_from_settings(settings, _checked_token(settings.slack_bot_token, "SLACK_BOT_TOKEN"))
        return SlackChannel(client, channel, Look(links=Links.from_settings(settings), buttons=heard))

    @property
    def name(self) -> str:
        return "slack"

    @property
    def has_buttons(self) -> bool:
        """Only where the agent receives button presses."""
        return self._look.buttons

    async def begin(self, bulletin: Bulletin) -> str:
        return await self._post(self._channel, bulletin.record.incident.id, self._incident(bulletin))

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Repost the message of an open incident once if it was deleted."""
        incident = bulletin.record.incident
        channel, ts = _place(reference)
        try:
            return await self._update(channel, ts, bulletin)
        except MessageGone:
            if incident.state.closed:
                return reference
        # Deleted, and perhaps already reposted by a call whose response was lost.
        newer = await self.find(incident.id, None, _moment(ts) + _CLOCKS_DIFFER)
        if newer is not None and newer != reference:
            channel, ts = _place(newer)
            return await self._update(channel, ts, bulletin)
        return await self.begin(bulletin)

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        channel, ts = _place(reference)
        content: JsonObject = {"text": reply_text(reply), "blocks": [*reply_blocks(reply)]}
        in_thread: JsonObject = {"thread_ts": ts, "reply_broadcast": reply.loud}
        try:
            await self._post(channel, reply.key, {**content, **in_thread})
        except MessageGone:  # the thread is gone: post the reply in the channel
            await self._post(channel, reply.key, content)

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:
        oldest = f"{(since - _CLOCKS_DIFFER).timestamp():.6f}"
        channel, ts = (self._channel, None) if reference is None else _place(reference)
        try:
            found = None
            if ts is not None:
                found = await self._search(_REPLIES, {"channel": channel, "ts": ts, "oldest": oldest}, key)
            if found is None:
                found = await self._search(_HISTORY, {"channel": channel, "oldest": oldest}, key)
        except Forbidden as error:
            log.warning("cannot search Slack for a message that may have been posted: %s", error)
            return None
        return None if found is None else f"{channel}/{found}"

    async def check(self) -> None:
        answer, headers = await self._client.ask(_AUTH, {})
        self._bot_id = _text(answer, "bot_id")
        granted = next((value for name, value in headers.items() if name.lower() == "x-oauth-scopes"), None)
        if granted is not None and _NEEDED_SCOPE not in {scope.strip() for scope in granted.split(",")}:
            raise Forbidden(f"the Slack app lacks the scope {_NEEDED_SCOPE}: add it and reinstall the app")

        await self._may_be_read()

    async def _may_be_read(self) -> None:
        """Whether there is such a channel, and the app in it; that it cannot be searched is no obstacle."""
        try:
            await self._client.call(_HISTORY, {"channel": self._channel, "limit": 1})
        except MissingScope as error:
            log.warning("Slack response lost, the message may be posted twice: %s", error)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._client.aclose()

    def _incident(self, bulletin: Bulletin) -> JsonObject:
        return {"text": incident_text(bulletin), "blocks": [*incident_blocks(bulletin, self._look)]}

    async def _post(self, channel: str, key: str, content: JsonObject) -> str:
        answer = await self._client.call(
            _POST, {**_AS_WRITTEN, "channel": channel, "metadata": _metadata(key), **content}
        )
        # Slack names the channel by its id, without which it takes no update.
        there, ts = _text(answer, "channel"), _text(answer, "ts")
        if there is None or ts is None:
            raise unanswered(_POST, "returned no message timestamp")
        return f"{there}/{ts}"

    async def _update(self, channel: str, ts: str, bulletin: Bulletin) -> str:
        where = {"channel": channel, "ts": ts, "link_names": False, "parse": "none"}
        metadata = _metadata(bulletin.record.incident.id)
        await self._client.call(_UPDATE, {**where, "metadata": metadata, **self._incident(bulletin)})
        return f"{channel}/{ts}"

    async def _search(self, call: SlackCall, where: Mapping[str, object], key: str) -> str | None:
        """The newest message of this app with that key; only so far back as is reasonable."""
        if self._bot_id is None:
            self._bot_id = _text(await self._client.call(_AUTH, {}), "bot_id")
        cursor = ""
        for _ in range(_MOST_PAGES):
            page = {**where, "include_all_metadata": True, "limit": _PAGE}
            try:
                answer = await self._client.call(call, {**page, "cursor": cursor} if cursor else page)
            except NotFound:
                return None
            for message in _objects(answer.get("messages")):
                if self._is(message, key):
                    return _text(message, "ts")
            cursor = _text(_object(answer.get("response_metadata")), "next_cursor") or ""
            if not cursor:
                return None
        return None

    def _is(self, message: JsonObject, key: str) -> bool:
        """Any app in the channel may post the same metadata; only this app's own counts."""
        metadata = _object(message.get("metadata"))
        payload = _object(metadata.get("event_payload"))
        mine = self._bot_id is None or message.get("bot_id") == self._bot_id
        return mine and metadata.get("event_type") == EVENT_TYPE and payload.get("key") == key


def inbound_from_settings(settings: Settings, store: Store, clock: Clock) -> SlackInbound | None:
    """The receiver of buttons and commands; None where Slack is not set up to send them.

    Raises `ConfigurationError`, naming the setting, for what cannot be used.
    """
    if settings.slack_signing_secret is None and settings.slack_app_token is None:
        return None
    client = client_from_settings(settings, None)
    if settings.slack_app_token is not None:
        _checked_token(settings.slack_app_token, "SLACK_APP_TOKEN")
    if settings.slack_signing_secret is not None:
        _checked_token(settings.slack_signing_secret, "SLACK_SIGNING_SECRET")
    try:
        from app.connectors.chat.slack.inbound import SlackInbound  # the extra is optional
    except ImportError:
        raise _extra_is_missing() from None
    return SlackInbound(settings=settings, client=client, store=store, clock=clock)


def client_from_settings(settings: Settings, token: SecretStr | None) -> SlackClient:
    """Raises `ConfigurationError` when the extra is not installed, or the address cannot be used."""
    api_url = _checked_url(settings.slack_api_url, "SLACK_API_URL")
    try:
        from app.connectors.chat.slack.client import SlackClient  # the extra is optional
    except ImportError:
        raise _extra_is_missing() from None
    return SlackClient(token=token, api_url=api_url)


def _extra_is_missing() -> ConfigurationError:
    return ConfigurationError("Slack needs the extra 'slack': pip install '.[slack]'")


def _checked_url(text: str, setting: str) -> str:
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        usable = usable and not parts.query and not parts.fragment and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{setting} must be an address such as https://host/path")
    return text.strip()


def _checked_token(token: SecretStr, setting: str) -> SecretStr:
    text = token.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{setting} is empty or contains characters that no Slack token has")
    return SecretStr(text)


def _metadata(key: str) -> JsonObject:
    return {"event_type": EVENT_TYPE, "event_payload": {"key": key}}


def _place(reference: str) -> tuple[str, str]:
    channel, slash, ts = reference.partition("/")
    if not (channel and slash and ts.replace(".", "", 1).isdecimal() and ts.isascii()):
        raise Invalid(f"{reference!r} is not a Slack message reference")
    return channel, ts


def _moment(ts: str) -> datetime:
    return datetime.fromtimestamp(float(ts), UTC)


def _text(holder: Mapping[str, object], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) and value else None


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[JsonObject]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


KIND = ChannelKind(
    name="slack",
    title="Slack",
    setting="SLACK_BOT_TOKEN",
    configured=lambda settings: settings.slack_bot_token is not None,
    connect=SlackChannel.from_settings,
    inbound=InboundKind(
        setting="SLACK_SIGNING_SECRET",
        media_types=("application/x-www-form-urlencoded", "application/json"),
        connect=inbound_from_settings,
    ),
)

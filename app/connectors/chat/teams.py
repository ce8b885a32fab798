"""Shows incidents in a Microsoft Teams channel, through a Power Automate workflow that takes webhooks.

`Channel` that posts Adaptive Cards: when an incident begins, when its state or what
it waits for changes, and for announcements. Built only when `DRY_RUN=false` and
`TEAMS_WEBHOOK_URL` is set. A workflow posts and forgets: a card cannot be edited or
looked for, and people answer on the agent's own pages, or by command. The URL is a
secret and enters no error (promise 12).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime

from pydantic import SecretStr

from app.agent.ids import Json, JsonObject
from app.agent.models import Approval
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.config import Settings
from app.connectors.chat.last_posted import PostedIncident
from app.connectors.chat.links import Links
from app.connectors.chatops import Message, Severity, describe
from app.connectors.http import HttpPeer
from app.connectors.kinds import ChannelKind
from app.errors import ConfigurationError

_TIMEOUT_SECONDS = 20.0
"""A workflow that has slept takes its time."""
MAX_BYTES = 28_000
"""Teams refuses what is longer than 28 KB."""
_MARKUP = re.compile(r"([\\`*_\[\]<>{}~#|])")
_LIST = re.compile(r"^(\s*)([-+]|[0-9]+[.)])(?=\s)")
_COLOURS = {Severity.INFO: "good", Severity.WARNING: "warning", Severity.CRITICAL: "attention"}


class TeamsChannel:
    """`Channel` over one workflow."""

    name = "teams"
    has_buttons = False

    def __init__(
        self, url: SecretStr, *, links: Links | None = None, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        """Raises `ConfigurationError`, without the address, when it cannot be used."""
        self._peer = HttpPeer(
            name="the Teams workflow",
            setting="TEAMS_WEBHOOK_URL",
            url=url.get_secret_value(),
            timeout_seconds=timeout_seconds,
        )
        self._links = links or Links()

    @staticmethod
    def from_settings(settings: Settings) -> TeamsChannel:
        """Raises `ConfigurationError` when `TEAMS_WEBHOOK_URL` is not set, or anything cannot be used."""
        if settings.teams_webhook_url is None:
            raise ConfigurationError("TEAMS_WEBHOOK_URL is not set")
        return TeamsChannel(settings.teams_webhook_url, links=Links.from_settings(settings))

    async def begin(self, bulletin: Bulletin) -> str:
        """Post the incident as it stands."""
        return await self._show(PostedIncident.first(bulletin), bulletin)

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Post a new card when the state or the pending approval changed since the last one."""
        now = PostedIncident.read(reference).followed_by(bulletin)
        return reference if now is None else await self._show(now, bulletin)

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        """Post an announcement; the timeline is for the incident's page."""
        if not reply.loud:
            return
        posted = PostedIncident.read(reference)
        message = Message(title=posted.title, lines=reply.lines, severity=Severity.WARNING)
        await self._peer.deliver(_bounded(message, [], self._actions(posted, None)))

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:  # noqa: ARG002 - as every channel
        """A workflow cannot be asked what it posted: it is sent again."""
        return None

    async def check(self) -> None:
        """Whether the address answers; only a message shows whether the workflow posts."""
        await self._peer.probe_connection()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    async def _show(self, posted: PostedIncident, bulletin: Bulletin) -> str:
        asked = bulletin.asked
        facts = [
            ("Service", posted.service),
            ("Environment", posted.environment),
            ("State", posted.state.replace("_", " ")),
            ("Opened", f"{bulletin.record.incident.opened_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("Incident", posted.incident_id),
        ]
        if asked is not None and self._links.approval(asked.id) is None:
            facts.append(("Answer with", f"heal approve {asked.id}, or heal deny {asked.id}"))
        actions = self._actions(posted, asked)
        await self._peer.deliver(_bounded(describe(bulletin), facts, actions))
        return posted.written()

    def _actions(self, posted: PostedIncident, asked: Approval | None) -> list[Json]:
        wanted = [
            ("Approve or deny", None if asked is None else self._links.approval(asked.id)),
            ("Open the incident", self._links.incident(posted.id)),
        ]
        return [{"type": "Action.OpenUrl", "title": title, "url": url} for title, url in wanted if url]


def escaped(text: str) -> str:
    """Text from outside as Teams shows it: no markup, no link that says something else, no list."""
    return _LIST.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", _MARKUP.sub(r"\\\1", text))


def _bounded(message: Message, facts: Sequence[tuple[str, str]], actions: list[Json]) -> bytes:
    """The card with as many lines as Teams takes."""
    kept = len(message.lines)
    while True:
        lines = list(message.lines[:kept])
        if kept < len(message.lines):
            lines.append(f"... and {len(message.lines) - kept} more lines")
        body = _payload(_card(message, lines, facts, actions))
        if len(body) <= MAX_BYTES or kept == 0:
            return body
        kept -= max(1, kept // 8)


def _card(
    message: Message, lines: Sequence[str], facts: Sequence[tuple[str, str]], actions: list[Json]
) -> JsonObject:
    title: JsonObject = {
        "type": "TextBlock",
        "text": escaped(message.title),
        "size": "large",
        "weight": "bolder",
        "color": _COLOURS[message.severity],
        "wrap": True,
    }
    body: list[Json] = [title]
    if facts:
        pairs: list[Json] = [{"title": name, "value": escaped(value)} for name, value in facts]
        body.append({"type": "FactSet", "facts": pairs})
    body += [{"type": "TextBlock", "text": escaped(line), "wrap": True, "spacing": "small"} for line in lines]
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": actions,
    }


def _payload(card: JsonObject) -> bytes:
    attachment: JsonObject = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    document: JsonObject = {"type": "message", "attachments": [attachment]}
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


KIND = ChannelKind(
    name=TeamsChannel.name,
    title="Microsoft Teams",
    setting="TEAMS_WEBHOOK_URL",
    configured=lambda settings: settings.teams_webhook_url is not None,
    connect=TeamsChannel.from_settings,
)

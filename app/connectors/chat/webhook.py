"""Notifies a webhook: one signed JSON document for each incident state change and each announcement.

`Channel` for any receiver of JSON; most chats take the `text` as it stands. Built
only when `DRY_RUN=false` and `NOTIFY_WEBHOOK_URL` is set. Delivery is at least
once: a document that is sent again keeps its id, so that the receiver can drop
it. Signed in the manner of Standard Webhooks where `NOTIFY_WEBHOOK_SECRET` is
set. The URL is a secret, and so may be whatever the receiver says about it:
neither enters an error (promise 12). `docs/channels.md` describes the document.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from app.agent.ids import JsonObject
from app.agent.models import Approval
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.clock import Clock, SystemClock
from app.config import Settings
from app.connectors.chat.last_posted import PostedIncident
from app.connectors.chat.links import Links
from app.connectors.chatops import Message, Severity, describe
from app.connectors.http import HttpPeer
from app.connectors.kinds import ChannelKind
from app.errors import ConfigurationError

VERSION = 1
_TIMEOUT_SECONDS = 10.0
_MAX_TEXT = 4_000
_SECRET = "whsec_"  # noqa: S105 - what every such secret begins with
_SECRET_BYTES = range(24, 65)
_CALLS = re.compile(r"<(?=[!@#]|https?:|mailto:)|@(?=(?:here|channel|all|everyone)\b)", re.IGNORECASE)
"""What some chats take for a mention of all members, or for a link that says something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs what is posted, so that the receiver knows whose it is."""

    key: bytes

    @staticmethod
    def of(secret: SecretStr) -> Signer:
        """Raises `ConfigurationError`, without the secret, when it is none."""
        fix = "NOTIFY_WEBHOOK_SECRET must be whsec_ and 24 to 64 bytes in base64"
        text = secret.get_secret_value().strip()
        if not text.startswith(_SECRET):
            raise ConfigurationError(fix)
        try:
            key = base64.b64decode(text.removeprefix(_SECRET), validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(fix) from None
        if len(key) not in _SECRET_BYTES:
            raise ConfigurationError(fix)
        return Signer(key=key)

    def headers(self, identifier: str, at: datetime, body: bytes) -> dict[str, str]:
        """The three headers of Standard Webhooks, for a document that leaves at that time."""
        timestamp = int(at.timestamp())
        signed = f"{identifier}.{timestamp}.".encode() + body
        mac = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        return {
            "webhook-id": identifier,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{mac}",
        }


class WebhookChannel:
    """`Channel` that posts to one address."""

    name = "webhook"
    has_buttons = False

    def __init__(
        self,
        url: SecretStr,
        *,
        secret: SecretStr | None = None,
        links: Links | None = None,
        clock: Clock | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """Raises `ConfigurationError`, without address and secret, when one cannot be used."""
        self._peer = HttpPeer(
            name="the notification webhook",
            setting="NOTIFY_WEBHOOK_URL",
            url=url.get_secret_value(),
            timeout_seconds=timeout_seconds,
        )
        self._signer = None if secret is None else Signer.of(secret)
        self._links = links or Links()
        self._clock = clock or SystemClock()

    @staticmethod
    def from_settings(settings: Settings) -> WebhookChannel:
        """Raises `ConfigurationError` when `NOTIFY_WEBHOOK_URL` is not set, or anything cannot be used."""
        if settings.notify_webhook_url is None:
            raise ConfigurationError("NOTIFY_WEBHOOK_URL is not set")
        return WebhookChannel(
            settings.notify_webhook_url,
            secret=settings.notify_webhook_secret,
            links=Links.from_settings(settings),
        )

    async def begin(self, bulletin: Bulletin) -> str:
        """Post the incident as it stands."""
        return await self._send(PostedIncident.first(bulletin), bulletin)

    async def refresh(self, reference: str, bulletin: Bulletin) -> str:
        """Post again when the state or the pending approval changed since the last document."""
        before = PostedIncident.read(reference)
        now = before.followed_by(bulletin)
        return reference if now is None else await self._send(now, bulletin)

    async def reply(self, reference: str, reply: ThreadReply) -> None:
        """Post an announcement; the timeline is not for a webhook."""
        if not reply.loud:
            return
        posted = PostedIncident.read(reference)
        message = Message(title=posted.title, lines=reply.lines, severity=Severity.WARNING)
        await self._post(reply.key, self._document("announcement", message, posted, None))

    async def find(self, key: str, reference: str | None, since: datetime) -> str | None:  # noqa: ARG002 - as every channel
        """What was posted cannot be asked for; the receiver drops what it gets twice."""
        return None

    async def check(self) -> None:
        """Whether the address answers; whether it takes documents, only a document shows."""
        await self._peer.probe_connection()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    async def _send(self, posted: PostedIncident, bulletin: Bulletin) -> str:
        document = self._document("incident", describe(bulletin), posted, bulletin.asked)
        await self._post(posted.key, document)
        return posted.written()

    def _document(
        self, kind: str, message: Message, posted: PostedIncident, asked: Approval | None
    ) -> JsonObject:
        incident_url = self._links.incident(posted.id)
        approval_url = None if asked is None else self._links.approval(asked.id)
        links = [url for url in (approval_url or incident_url,) if url is not None]
        answer = [] if asked is None else [f"Answer with: heal approve {asked.id}, or heal deny {asked.id}"]
        return {
            "version": VERSION,
            "type": kind,
            "text": _text([message.title, *answer, *links, *message.lines]),
            "title": message.title,
            "lines": [*message.lines],
            "severity": message.severity.value,
            "incident": {
                "id": posted.incident_id,
                "service": posted.service,
                "environment": posted.environment,
                "state": posted.state,
                "opened_at": posted.opened_at,
                "closed_at": posted.closed_at,
                "dry_run": False,
                "url": incident_url,
            },
            "approval": None if asked is None else _approval(asked, approval_url),
        }

    async def _post(self, identifier: str, document: JsonObject) -> None:
        body = json.dumps({**document, "id": identifier}).encode()
        headers = {"webhook-id": identifier}
        if self._signer is not None:
            headers = self._signer.headers(identifier, self._clock.now(), body)
        await self._peer.deliver(body, headers=headers)


def _approval(asked: Approval, url: str | None) -> JsonObject:
    return {
        "id": asked.id,
        "action": asked.action.value,
        "reasons": [*asked.reasons],
        "roles": [*asked.terms.roles],
        "people": asked.terms.people,
        "requested_at": asked.requested_at.isoformat(),
        "expires_at": asked.expires_at.isoformat(),
        "url": url,
    }


def _text(lines: Sequence[str]) -> str:
    """As chats take it, with mentions of all members broken up."""
    calm = _CALLS.sub("\\g<0>\u200b", "\n".join(lines))
    return calm if len(calm) <= _MAX_TEXT else calm[: _MAX_TEXT - 1] + "…"


def unusable(settings: Settings) -> str | None:
    """Why documents could not be signed; None when they can, or need not be."""
    try:
        if settings.notify_webhook_secret is not None:
            Signer.of(settings.notify_webhook_secret)
    except ConfigurationError as error:
        return str(error)
    return None


KIND = ChannelKind(
    name=WebhookChannel.name,
    title="a webhook",
    setting="NOTIFY_WEBHOOK_URL",
    configured=lambda settings: settings.notify_webhook_url is not None,
    connect=WebhookChannel.from_settings,
    unusable=unusable,
)

"""Tells people through a webhook: one JSON document for each message.

`Notifier` for any channel that takes JSON with a `text` (most chats do). Built
only when `DRY_RUN=false` and `NOTIFY_WEBHOOK_URL` is set. The URL is a secret,
and so may be whatever the receiver says about it: neither enters an error
(promise 12). Delivery is at least once: a message may arrive twice, which does
no harm.
"""

from __future__ import annotations

import json

from app.agent.models import Incident
from app.config import Settings
from app.connectors.chatops import render
from app.connectors.http import HttpPeer
from app.connectors.text import shorten
from app.errors import ConfigurationError

_TIMEOUT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_TEXT = 4_000


class WebhookNotifier:
    """`Notifier` that posts to one address."""

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Raises `ConfigurationError`, without the address, when it cannot be used."""
        self._peer = HttpPeer(
            name="the notification webhook",
            setting="NOTIFY_WEBHOOK_URL",
            url=url,
            timeout_seconds=timeout_seconds,
            max_bytes=_MAX_ANSWER_BYTES,
        )

    @staticmethod
    def from_settings(settings: Settings) -> WebhookNotifier:
        """Raises `ConfigurationError` when `NOTIFY_WEBHOOK_URL` is not set or cannot be used."""
        if settings.notify_webhook_url is None:
            raise ConfigurationError("NOTIFY_WEBHOOK_URL is not set")
        return WebhookNotifier(settings.notify_webhook_url.get_secret_value())

    async def send(self, text: str, incident: Incident) -> None:
        """Post the text with what is known about the incident; only a 2xx answer is a delivery."""
        message = render(incident, ())
        said = shorten(text, _MAX_TEXT)
        document = {
            "text": f"{message.title}\n{said}" if said else message.text,
            "title": message.title,
            "lines": list(message.lines),
            "severity": message.severity.value,
            "incident": {
                "id": incident.id,
                "service": incident.key.service,
                "environment": incident.key.environment,
                "state": incident.state.value,
                "opened_at": incident.opened_at.isoformat(),
                "dry_run": incident.dry_run,
            },
        }
        reply = await self._peer.send("POST", json_body=json.dumps(document).encode())
        if not reply.ok:
            raise self._peer.refusal(reply, "")

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

"""Opsgenie, and Jira Service Management Operations, which takes the same alerts at another address.

Alerts are created, noted, acknowledged and closed by the alias, which is the id of the incident. The key is a
header, and enters no error (promise 12).
"""

from __future__ import annotations

import json
from urllib.parse import quote

from pydantic import SecretStr

from app.agent.ids import JsonObject
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.http import HttpPeer
from app.connectors.kinds import ChannelKind
from app.connectors.paging.alert import PagerAlert, PageStep, Urgency
from app.connectors.paging.channel import PagerChannel
from app.connectors.paging.keys import checked_key
from app.connectors.text import shorten
from app.errors import ConfigurationError

SETTING = "OPSGENIE_API_KEY"
_TIMEOUT_SECONDS = 10.0
_MAX_MESSAGE = 130
_MAX_TEXT = 15_000
_SOURCE = "Self-Healing DevOps Agent"
_PRIORITIES = {Urgency.CRITICAL: "P1", Urgency.HIGH: "P2", Urgency.LOW: "P3"}
_VERBS = {PageStep.UPDATE: "notes", PageStep.ACKNOWLEDGE: "acknowledge", PageStep.END: "close"}


class Opsgenie:
    """`PagingService` over one API integration."""

    name = "opsgenie"

    def __init__(self, api_key: SecretStr, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Raises `ConfigurationError`, without the key, when key or address cannot be used."""
        key = checked_key(api_key, SETTING)
        self._peer = HttpPeer(
            name="Opsgenie",
            setting="OPSGENIE_URL",
            url=url,
            timeout_seconds=timeout_seconds,
            headers={"Authorization": f"GenieKey {key}"},
        )

    async def send(self, step: PageStep, alert: PagerAlert) -> None:
        """Send one request; a second one for an open alias is counted, and opens no second alert."""
        if step is PageStep.OPEN:
            await self._peer.deliver(json.dumps(_alert(alert)).encode(), path="/v2/alerts")
            return
        path = f"/v2/alerts/{quote(alert.incident_id, safe='')}/{_VERBS[step]}"
        note: JsonObject = {"source": _SOURCE, "note": _text(alert)}
        await self._peer.deliver(json.dumps(note).encode(), path=path, params={"identifierType": "alias"})

    async def check(self) -> None:
        """Whether the address answers."""
        await self._peer.probe_connection()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()


def _alert(alert: PagerAlert) -> JsonObject:
    return {
        "message": shorten(alert.title, _MAX_MESSAGE),
        "alias": alert.incident_id,
        "description": _text(alert),
        "priority": _PRIORITIES[alert.urgency],
        "source": _SOURCE,
        "entity": alert.service,
        "tags": [],
        "details": {
            "incident": alert.incident_id,
            "service": alert.service,
            "environment": alert.environment,
        },
    }


def _text(alert: PagerAlert) -> str:
    links = (f"{label}: {address}" for address, label in alert.links)
    return "\n".join((alert.title, *links, *alert.details))[:_MAX_TEXT]


def connect(settings: Settings) -> PagerChannel:
    """Raises `ConfigurationError` when `OPSGENIE_API_KEY` is not set, or anything cannot be used."""
    if settings.opsgenie_api_key is None:
        raise ConfigurationError(f"{SETTING} is not set")
    service = Opsgenie(settings.opsgenie_api_key, settings.opsgenie_url)
    return PagerChannel(service, when=settings.page_when, links=Links.from_settings(settings))


def unusable(settings: Settings) -> str | None:
    """Why alerts could not be sent; None when they can."""
    try:
        if settings.opsgenie_api_key is not None:
            Opsgenie(settings.opsgenie_api_key, settings.opsgenie_url)
    except ConfigurationError as error:
        return str(error)
    return None


KIND = ChannelKind(
    name=Opsgenie.name,
    title="Opsgenie or Jira Service Management",
    setting=SETTING,
    configured=lambda settings: settings.opsgenie_api_key is not None,
    connect=connect,
    unusable=unusable,
)

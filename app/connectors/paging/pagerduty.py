"""PagerDuty by its Events API v2: trigger, acknowledge and resolve, keyed by the incident.

The routing key is in the body, and enters no error (promise 12).
"""

from __future__ import annotations

import json

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

SETTING = "PAGERDUTY_ROUTING_KEY"
_TIMEOUT_SECONDS = 10.0
_MAX_SUMMARY = 1024
_MAX_DETAILS = 20_000
"""Far below the 512 KB that an event may have."""
_ACTIONS = {
    PageStep.OPEN: "trigger",
    PageStep.UPDATE: "trigger",
    PageStep.ACKNOWLEDGE: "acknowledge",
    PageStep.END: "resolve",
}
_SEVERITIES = {Urgency.CRITICAL: "critical", Urgency.HIGH: "error", Urgency.LOW: "warning"}


class PagerDuty:
    """`PagingService` over one integration of a service."""

    name = "pagerduty"

    def __init__(
        self, routing_key: SecretStr, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        """Raises `ConfigurationError`, without the key, when key or address cannot be used."""
        self._key = checked_key(routing_key, SETTING)
        self._peer = HttpPeer(
            name="PagerDuty", setting="PAGERDUTY_URL", url=url, timeout_seconds=timeout_seconds
        )

    async def send(self, step: PageStep, alert: PagerAlert) -> None:
        """Send one event; the incident's id is its deduplication key."""
        await self._peer.deliver(json.dumps(self._event(step, alert)).encode())

    async def check(self) -> None:
        """Whether the address answers."""
        await self._peer.probe_connection()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    def _event(self, step: PageStep, alert: PagerAlert) -> JsonObject:
        details = "\n".join(alert.details)[:_MAX_DETAILS]
        page: JsonObject = {"client_url": alert.links[-1][0]} if alert.links else {}
        return {
            "routing_key": self._key,
            "event_action": _ACTIONS[step],
            "dedup_key": alert.incident_id,
            "client": "Self-Healing DevOps Agent",
            **page,
            "links": [{"href": address, "text": label} for address, label in alert.links],
            "payload": {
                "summary": shorten(alert.title, _MAX_SUMMARY),
                "source": f"{alert.service} in {alert.environment}",
                "severity": _SEVERITIES[alert.urgency],
                "component": alert.service,
                "group": alert.environment,
                "custom_details": {"incident": alert.incident_id, "details": details},
            },
        }


def connect(settings: Settings) -> PagerChannel:
    """Raises `ConfigurationError` when `PAGERDUTY_ROUTING_KEY` is not set, or anything cannot be used."""
    if settings.pagerduty_routing_key is None:
        raise ConfigurationError(f"{SETTING} is not set")
    service = PagerDuty(settings.pagerduty_routing_key, settings.pagerduty_url)
    return PagerChannel(service, when=settings.page_when, links=Links.from_settings(settings))


def unusable(settings: Settings) -> str | None:
    """Why alerts could not be sent; None when they can."""
    try:
        if settings.pagerduty_routing_key is not None:
            PagerDuty(settings.pagerduty_routing_key, settings.pagerduty_url)
    except ConfigurationError as error:
        return str(error)
    return None


KIND = ChannelKind(
    name=PagerDuty.name,
    title="PagerDuty",
    setting=SETTING,
    configured=lambda settings: settings.pagerduty_routing_key is not None,
    connect=connect,
    unusable=unusable,
)

"""PagerDuty keeps the channel's contract over a stand-in of its Events API v2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.notifications.channel import Bulletin
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.paging import pagerduty
from app.connectors.paging.channel import PagerChannel
from app.connectors.paging.pagerduty import PagerDuty
from app.errors import ConfigurationError
from app.settings.entries import PageWhen
from tests.contract.channel_suite import PUBLIC_URL, ChannelContract, asked
from tests.contract.webhook_worlds import TIMEOUT_SECONDS, TOKEN, WebhookWorld, webhook_world

_ACTIONS = {"trigger", "acknowledge", "resolve"}
_SEVERITIES = {"critical", "error", "warning", "info"}


def channel(url: str) -> PagerChannel:
    service = PagerDuty(SecretStr(TOKEN), url, timeout_seconds=TIMEOUT_SECONDS)
    return PagerChannel(service, when=PageWhen.OPENED, links=Links(base=PUBLIC_URL))


def readable(event: dict[str, Any]) -> str:
    """Summary and details of an event, checked for what the API insists on."""
    assert event["routing_key"] == TOKEN
    assert event["event_action"] in _ACTIONS
    assert 0 < len(event["dedup_key"]) <= 255
    payload = event["payload"]
    assert 0 < len(payload["summary"]) <= 1024
    assert payload["source"]
    assert payload["severity"] in _SEVERITIES
    assert all(link["href"].startswith(PUBLIC_URL) for link in event["links"])
    return f"{payload['summary']}\n{payload['custom_details']['details']}"


@pytest.fixture
async def world() -> AsyncIterator[WebhookWorld]:
    async with webhook_world(channel, readable) as made:
        yield made


class TestPagerDutyChannel(ChannelContract):
    """With an alert from the start of an incident to its end."""


async def test_an_event_names_service_and_pages_to_open(world: WebhookWorld) -> None:
    """A pending approval is an error, so that it calls a person; its page comes first."""
    await (await world.open()).begin(Bulletin(record=asked()))
    event = json.loads(world.taken[0].body)
    assert (event["event_action"], event["dedup_key"]) == ("trigger", "inc_1")
    assert event["payload"]["severity"] == "error"
    assert (event["payload"]["component"], event["payload"]["group"]) == ("payments-api", "prod")
    assert [link["text"] for link in event["links"]] == ["Approve or deny", "Open the incident"]
    assert event["client_url"] == f"{PUBLIC_URL}/dashboard/incidents/inc_1"


async def test_without_a_public_address_there_is_no_link(world: WebhookWorld) -> None:
    """The details say how to answer by command."""
    world.make = lambda url: PagerChannel(PagerDuty(SecretStr(TOKEN), url), when=PageWhen.OPENED)
    await (await world.open()).begin(Bulletin(record=asked()))
    event = json.loads(world.taken[0].body)
    assert event["links"] == []
    assert "client_url" not in event
    assert "heal approve apr_1" in event["payload"]["custom_details"]["details"]


@pytest.mark.parametrize(
    ("key", "url", "fix"),
    [
        ("", "https://pager.example.com", "PAGERDUTY_ROUTING_KEY is empty"),
        ("two words", "https://pager.example.com", "PAGERDUTY_ROUTING_KEY is empty, too long"),
        (TOKEN, "pager", "PAGERDUTY_URL must be an address"),
    ],
)
def test_a_setting_that_cannot_work_is_named(key: str, url: str, fix: str) -> None:
    """At the start, and by `heal doctor` in a dry run."""
    settings = Settings.model_validate({"pagerduty_routing_key": SecretStr(key), "pagerduty_url": url})
    found = pagerduty.unusable(settings)
    assert found is not None
    assert found.startswith(fix)
    with pytest.raises(ConfigurationError, match=fix):
        pagerduty.connect(settings)


def test_without_a_key_there_is_nothing_to_connect() -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match="PAGERDUTY_ROUTING_KEY is not set"):
        pagerduty.connect(Settings.model_validate({}))

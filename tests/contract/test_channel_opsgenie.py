"""Opsgenie keeps the channel's contract over a stand-in of its alert API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from app.agent.models import ByPerson, IncidentState
from app.agent.notifications.channel import Bulletin
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.paging import opsgenie
from app.connectors.paging.channel import PagerChannel
from app.connectors.paging.opsgenie import Opsgenie
from app.errors import ConfigurationError
from app.settings.entries import PageWhen
from tests.contract.channel_suite import AT, PUBLIC_URL, ChannelContract, asked, record
from tests.contract.webhook_worlds import TIMEOUT_SECONDS, TOKEN, WebhookWorld, webhook_world


def channel(url: str) -> PagerChannel:
    service = Opsgenie(SecretStr(TOKEN), url, timeout_seconds=TIMEOUT_SECONDS)
    return PagerChannel(service, when=PageWhen.OPENED, links=Links(base=PUBLIC_URL))


def readable(body: dict[str, Any]) -> str:
    """The text of a new alert or of a note, within the limits of the API."""
    if "note" in body:
        assert len(body["note"]) <= 25_000
        return str(body["note"])
    assert 0 < len(body["message"]) <= 130
    assert 0 < len(body["alias"]) <= 512
    assert len(body["description"]) <= 15_000
    assert body["priority"] in {"P1", "P2", "P3"}
    return str(body["description"])


@pytest.fixture
async def world() -> AsyncIterator[WebhookWorld]:
    async with webhook_world(channel, readable) as made:
        yield made


class TestOpsgenieChannel(ChannelContract):
    """With an alert from the start of an incident to its end."""


async def test_an_alert_is_created_noted_acknowledged_and_closed_by_its_alias(world: WebhookWorld) -> None:
    """Each step at its own address, with the key in the header."""
    pager = await world.open()
    reference = await pager.begin(Bulletin(record=record()))
    reference = await pager.refresh(reference, Bulletin(record=asked()))
    seen = replace(asked().incident, acknowledged=ByPerson(by="ann", at=AT))
    reference = await pager.refresh(reference, Bulletin(record=replace(asked(), incident=seen)))
    await pager.refresh(reference, Bulletin(record=record(state=IncidentState.RECOVERED)))
    steps = [urlsplit(request.target) for request in world.taken]
    assert [step.path.removeprefix(f"/hook/{TOKEN}") for step in steps] == [
        "/v2/alerts",
        "/v2/alerts/inc_1/notes",
        "/v2/alerts/inc_1/acknowledge",
        "/v2/alerts/inc_1/close",
    ]
    assert ["identifierType=alias" in step.query for step in steps] == [False, True, True, True]
    assert {request.headers["authorization"] for request in world.taken} == {f"GenieKey {TOKEN}"}
    created = json.loads(world.taken[0].body)
    assert (created["alias"], created["entity"]) == ("inc_1", "payments-api")


@pytest.mark.parametrize(
    ("key", "url", "fix"),
    [
        ("", "https://pager.example.com", "OPSGENIE_API_KEY is empty"),
        (TOKEN, "pager", "OPSGENIE_URL must be an address"),
    ],
)
def test_a_setting_that_cannot_work_is_named(key: str, url: str, fix: str) -> None:
    """At the start, and by `heal doctor` in a dry run."""
    settings = Settings.model_validate({"opsgenie_api_key": SecretStr(key), "opsgenie_url": url})
    found = opsgenie.unusable(settings)
    assert found is not None
    assert found.startswith(fix)
    with pytest.raises(ConfigurationError, match=fix):
        opsgenie.connect(settings)


def test_without_a_key_there_is_nothing_to_connect() -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match="OPSGENIE_API_KEY is not set"):
        opsgenie.connect(Settings.model_validate({}))

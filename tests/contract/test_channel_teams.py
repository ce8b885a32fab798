"""The Teams workflow keeps the channel's contract; its cards are valid, bounded and escaped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.ids import IntentId
from app.agent.models import (
    Decision,
    DecisionKind,
    IncidentState,
    Intent,
    IntentState,
)
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.config import Settings
from app.connectors.chat.links import Links
from app.connectors.chat.teams import TeamsChannel, escaped
from app.errors import ConfigurationError
from tests.contract.channel_suite import AT, PUBLIC_URL, ROLLBACK, ChannelContract, asked, loud, record
from tests.contract.webhook_worlds import TIMEOUT_SECONDS, TOKEN, WebhookWorld, webhook_world

_KINDS = {"TextBlock", "FactSet"}


def channel(url: str, base: str | None = PUBLIC_URL) -> TeamsChannel:
    return TeamsChannel(SecretStr(url), links=Links(base=base), timeout_seconds=TIMEOUT_SECONDS)


def card(document: dict[str, Any]) -> dict[str, Any]:
    """The one card of a message, checked for what Teams insists on."""
    assert document["type"] == "message"
    (attachment,) = document["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    content: dict[str, Any] = attachment["content"]
    assert (content["type"], content["version"]) == ("AdaptiveCard", "1.4")
    assert {element["type"] for element in content["body"]} <= _KINDS
    assert all(element["text"] for element in content["body"] if element["type"] == "TextBlock")
    for action in content["actions"]:
        assert action["type"] == "Action.OpenUrl"
        assert action["url"].startswith(PUBLIC_URL)
    return content


def readable(document: dict[str, Any]) -> str:
    """Every text of the card, as it is written."""
    lines: list[str] = []
    for element in card(document)["body"]:
        facts = element.get("facts", [])
        lines += [element["text"]] if "text" in element else [f"{f['title']}: {f['value']}" for f in facts]
    return "\n".join(lines)


@pytest.fixture
async def world() -> AsyncIterator[WebhookWorld]:
    markup = ("[all is well](", "<at>", " <https://", "**bold**", "{{DATE")
    async with webhook_world(channel, readable, live_markup=markup) as made:
        yield made


class TestTeamsChannel(ChannelContract):
    """Over a stand-in for the workflow."""


def cards(world: WebhookWorld) -> list[dict[str, Any]]:
    return [card(json.loads(request.body)) for request in world.taken]


async def test_a_card_has_facts_and_leads_to_the_pages(world: WebhookWorld) -> None:
    """The request first, where there is one."""
    await (await world.open()).begin(Bulletin(record=asked()))
    (content,) = cards(world)
    facts = {fact["title"]: fact["value"] for fact in content["body"][1]["facts"]}
    assert facts == {
        "Service": "payments-api",
        "Environment": "prod",
        "State": "awaiting approval",
        "Opened": "2026-02-20 17:00:00 UTC",
        "Incident": r"inc\_1",
    }
    assert [(action["title"], action["url"]) for action in content["actions"]] == [
        ("Approve or deny", f"{PUBLIC_URL}/approvals/apr_1/page"),
        ("Open the incident", f"{PUBLIC_URL}/dashboard/incidents/inc_1"),
    ]


async def test_without_a_public_address_the_card_says_how_to_answer(world: WebhookWorld) -> None:
    """By command; there is nothing to press."""
    world.make = lambda url: channel(url, None)
    await (await world.open()).begin(Bulletin(record=asked()))
    (content,) = cards(world)
    assert content["actions"] == []
    assert "heal approve apr_1" in readable(json.loads(world.taken[0].body)).replace("\\", "")


async def test_an_announcement_is_a_card_of_its_own(world: WebhookWorld) -> None:
    """The timeline's entries are none."""
    teams = await world.open()
    reference = await teams.begin(Bulletin(record=record()))
    await teams.reply(reference, ThreadReply(key="inc_1-t0-1", lines=("a detail",), loud=False))
    await teams.reply(reference, loud("Nobody has answered for 15 minutes."))
    first, second = cards(world)
    assert [element["text"] for element in second["body"]] == [
        "payments-api in prod",
        "Nobody has answered for 15 minutes.",
    ]
    assert second["actions"] == first["actions"]


@pytest.mark.parametrize("letter", ["x", "*", "ü", "漢", "\U0001f525"])
async def test_no_card_is_longer_than_teams_takes(world: WebhookWorld, letter: str) -> None:
    """Lines are left out, and it is said how many; what stands first is what matters most."""
    decision = Decision(
        kind=DecisionKind.DENY, reasons=(letter * 9_000,), plan_hash="p", target_token=None, at=AT
    )
    intents = tuple(
        Intent(
            id=IntentId(f"int_{number}"),
            incident_id=record().incident.id,
            sequence=number,
            action=ROLLBACK,
            dry_run=False,
            decision=decision,
            rehearsal=None,
            state=IntentState.FINISHED,
        )
        for number in range(60)
    )
    long = replace(asked(letter * 9_000), intents=intents)
    teams = await world.open()
    reference = await teams.begin(Bulletin(record=long))
    await teams.reply(reference, ThreadReply(key="inc_1-a1", lines=(letter * 1_500,) * 20, loud=True))
    for request in world.taken:
        assert len(request.body) <= 28_000
    first, _ = world.seen()
    assert "Awaiting approval: rollback" in first
    if letter in "*\U0001f525":
        assert "more lines" in first


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, 1.15.0, a-b", "plain words, 1.15.0, a-b"),
        ("[click](http://evil.example)", r"\[click\](http://evil.example)"),
        ("**bold** _it_ `code`", r"\*\*bold\*\* \_it\_ \`code\`"),
        ("- a list", r"\- a list"),
        ("12. a list", r"12\. a list"),
        ("<at>ann</at>", r"\<at\>ann\</at\>"),
        ("{{DATE(0)}}", r"\{\{DATE(0)\}\}"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markup_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    """Each character that means something to Teams is written so that it does not."""
    assert escaped(text) == shown


def test_an_address_that_cannot_work_stops_the_start() -> None:
    """Without being shown."""
    with pytest.raises(ConfigurationError, match="TEAMS_WEBHOOK_URL is not set"):
        TeamsChannel.from_settings(Settings.model_validate({}))
    with pytest.raises(ConfigurationError, match="TEAMS_WEBHOOK_URL must be an address") as caught:
        TeamsChannel(SecretStr(f"hooks/{TOKEN}"))
    assert TOKEN not in str(caught.value)


async def test_the_end_is_reported_in_its_colour(world: WebhookWorld) -> None:
    """Good ends are quiet, a call for a person is not."""
    teams = await world.open()
    await teams.begin(Bulletin(record=record(state=IncidentState.RECOVERED)))
    await teams.begin(Bulletin(record=record(state=IncidentState.ESCALATED)))
    assert [content["body"][0]["color"] for content in cards(world)] == ["good", "attention"]

"""Answers in Slack while the cluster changes: scenarios of the real agent on the simulated cluster.

A button has the effect of any other answer: it covers one action of one plan on one
state of its object, once (promise 1), and overrides no guardrail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from app.agent.models import Approval, ApprovalState, IncidentState
from app.agent.notifications.channel import Bulletin
from app.connectors.chat.slack.channel import SlackChannel
from tests.contract.slack_stage import ANN, BEN, PEOPLE, Stage, dressed
from tests.contract.slack_standin import (
    APP_TOKEN,
    BOT_TOKEN,
    CHANNEL,
    SIGNING_SECRET,
    command,
    interaction,
    slack_standin,
)
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story
from tests.test_approvals import crash, states


@asynccontextmanager
async def in_slack(folder: Path) -> AsyncIterator[tuple[Story, Stage]]:
    """An agent that asks before high risk, beside a service that crashes, with people in Slack."""
    async with (
        slack_standin() as slack,
        story(
            folder,
            approval_for_risks=frozenset({"high"}),
            slack_bot_token=SecretStr(BOT_TOKEN),
            slack_channel=CHANNEL,
            slack_signing_secret=SecretStr(SIGNING_SECRET),
            slack_app_token=SecretStr(APP_TOKEN),
            slack_users=PEOPLE,
            slack_api_url=slack.api_url,
            **ACTING,
        ) as told,
        dressed(slack, told.agent) as people,
    ):
        told.deploy()
        await told.live(180)
        await crash(told)
        yield told, people


async def shown(people: Stage, approval: Approval) -> str:
    """The message in Slack with its buttons; the value of one."""
    value = await people.button(approval.id)
    record = await people.store.incidents.get(approval.incident_id)
    assert record is not None
    channel = SlackChannel.from_settings(people.container.settings)
    await channel.begin(Bulletin(record=record, nonce=value.partition(".")[2]))
    await channel.aclose()
    button = people.slack.messages[-1].button("heal_approve")
    assert button is not None
    assert button["value"] == value
    return value


async def test_a_click_lets_the_agent_act_once(tmp_path: Path) -> None:
    """Shown, pressed, rolled back, recovered; pressed again it answers that it was used."""
    async with in_slack(tmp_path) as (told, people):
        approval = await told.live_until_asked()
        click = interaction(people.slack.click(ANN, await shown(people, approval)))
        await people.send(click)
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert told.image() == "shop:1"
        before = told.versions()
        await people.send(click)
        await told.live(120)
        assert told.versions() == before
        assert len(record.intents) == 1
        assert record.intents[0].decision.reasons[-1] == "approved by ann"
        assert "recorded and used" in (await people.slack.until_told(2))[1]


async def test_a_click_on_what_was_there_does_not_cover_what_came_since(tmp_path: Path) -> None:
    """A release while people are asked: the yes is void, and the old button answers nothing new."""
    async with in_slack(tmp_path) as (told, people):
        first = await told.live_until_asked()
        old = await shown(people, first)
        told.world.release(NAMESPACE, SERVICE, "shop:3-crash")
        await told.live(30)
        await people.press(ANN, old)
        second = await told.live_until_asked()
        assert second.id != first.id
        assert told.image() == "shop:3-crash"
        assert told.marker() is None
        await people.press(BEN, old)
        assert "void" in (await people.slack.until_told(2))[1]
        assert (await people.approval(second.id)).state is ApprovalState.PENDING
        await people.press(BEN, await shown(people, second))
        record = await told.live_until_ended()
        assert states(record) == [ApprovalState.VOID, ApprovalState.USED]
        assert told.image() == "shop:1"


async def test_the_kill_switch_typed_in_slack_holds_over_a_yes(tmp_path: Path) -> None:
    """Approved and braked before the agent set out: nothing is begun (promise 11)."""
    async with in_slack(tmp_path) as (told, people):
        approval = await told.live_until_asked()
        before = told.versions()
        await people.press(ANN, await shown(people, approval))
        await people.send(command(people.slack.typed(BEN, "brake on the payload is wrong")))
        await told.live(60)
        record = await told.load(approval.incident_id)
        assert told.versions() == before
        assert told.marker() is None
        assert "kill switch" in messages(record.timeline)

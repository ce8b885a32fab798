"""Slack as a channel: posted, brought up to date, found again, and what every fault of Slack means."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.identity.people import ApprovalTerms, Person
from app.agent.ids import ApprovalId
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.agent.ports.store import Store
from app.bootstrap import Adapters, Container, assemble
from app.connectors.chat.slack.blocks import read_value
from app.connectors.chat.slack.channel import SlackChannel
from app.connectors.chat.slack.errors import MissingScope
from app.errors import (
    ConfigurationError,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
    UnknownOutcome,
)
from app.store import open_store
from app.testing import VirtualClock
from tests.api import stories
from tests.contract.channel_suite import ChannelContract
from tests.contract.slack_stage import slack_settings
from tests.contract.slack_standin import (
    BOT_TOKEN,
    CHANNEL,
    Fault,
    Message,
    Slack,
    answer_lost,
    answering,
    limited,
    saying,
    slack_standin,
)
from tests.contract.slack_world import SlackWorld, slack_world

HOSTILE = "<!channel> <@U0ANN> <https://evil.example|click> *bold* & `code` &lt;!here&gt; @here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A channel, the Slack behind it, and an agent that has something to tell."""

    slack: Slack
    channel: SlackChannel
    store: Store
    agent: Container
    clock: VirtualClock

    async def asked(self, text: str = "1.15.0", **how: Any) -> Bulletin:
        """An incident that waits for an answer."""
        approval_id = await stories.awaiting(self.agent, text=text, **how)
        return await self.bulletin(approval_id)

    async def bulletin(self, approval_id: ApprovalId, nonce: str | None = "n0nce") -> Bulletin:
        approval = await self.store.approvals.get(approval_id)
        assert approval is not None
        record = await self.store.incidents.get(approval.incident_id)
        assert record is not None
        return Bulletin(record=record, nonce=nonce)

    async def ended(self, text: str = "1.15.0") -> Bulletin:
        record = await self.store.incidents.get(await stories.proposed(self.agent, text=text))
        assert record is not None
        return Bulletin(record=record)

    @property
    def only(self) -> Message:
        (message,) = self.slack.messages
        return message


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    clock = VirtualClock(datetime.now(UTC))
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    async with slack_standin() as slack:
        settings = slack_settings(tmp_path, slack)
        channel = SlackChannel.from_settings(settings)
        agent = assemble(settings, clock=clock, store=store, world=Adapters())
        yield Told(slack=slack, channel=channel, store=store, agent=agent, clock=clock)
        await channel.aclose()
        await agent.close()


def recently() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=5)


class TestSlackChannel(ChannelContract):
    """Over Slack's Web API."""

    @pytest.fixture
    async def world(self) -> AsyncIterator[SlackWorld]:
        async with slack_world() as made:
            yield made


REPLY = ThreadReply(key="inc_1 entry 7", lines=("The agent rolls back.", "It should help."), loud=False)


# ------------------------------------------------------------ what is shown


async def test_a_request_is_shown_with_all_that_speaks_for_and_against_it(told: Told) -> None:
    """One message: cause, plan with risk, why, until when, and two buttons that carry the nonce."""
    bulletin = await told.asked(terms=ApprovalTerms(roles=("lead",), people=2))
    reference = await told.channel.begin(bulletin)
    message = told.only
    assert reference == f"{CHANNEL}/{message.ts}"
    assert message.key == bulletin.record.incident.id
    for words in (
        "awaiting approval",
        "bad release (confidence 88%)",
        "only pods of the new revision crash",
        "latency rose a little before the release",
        "rollback",
        "high risk",
        "Only pods of revision 7 run",
        "Put back the template that ran before",
        "APPROVAL_FOR_RISKS requires an approval",
        "2 different people with one of the roles lead",
        "UTC",
    ):
        assert words in message.shown, words
    assert bulletin.asked is not None
    for action_id in ("heal_approve", "heal_deny"):
        button = message.button(action_id)
        assert button is not None
        assert read_value(button["value"]) == (bulletin.asked.id, "n0nce")
    links = [message.button(f"heal_open_{number}") for number in range(2)]
    assert [one["url"] for one in links if one] == [
        f"https://heal.example.com/dashboard/incidents/{bulletin.record.incident.id}",
        f"https://heal.example.com/approvals/{bulletin.asked.id}/page",
    ]
    assert "n0nce" not in message.shown + message.body["text"]


async def test_the_message_follows_the_incident(told: Told) -> None:
    """Brought up to date in place; the buttons go with the question, and repeating it harms nothing."""
    bulletin = await told.asked()
    reference = await told.channel.begin(bulletin)
    assert bulletin.asked is not None
    await told.store.approvals.answer(
        bulletin.asked.id, approve=True, by=Person(name="ann"), comment="", at=told.clock.now()
    )
    await stories.used(told.agent, bulletin.asked.id)
    later = await told.bulletin(bulletin.asked.id)
    for _ in range(2):
        assert await told.channel.refresh(reference, later) == reference
    message = told.only
    assert message.edits == 2
    assert message.button("heal_approve") is None
    assert "acting" in message.shown
    assert message.key == bulletin.record.incident.id


async def test_what_was_done_and_rehearsed_and_found_is_shown(told: Told) -> None:
    """Decision, what the API server said beforehand, outcome, verdict."""
    await told.channel.begin(await told.ended())
    shown = told.only.shown
    for words in ("API server dry run", "denied", "Verdict: not recovered", "rehearsed"):
        assert words in shown, shown


async def test_yes_so_far_is_shown(told: Told) -> None:
    """Where two must agree, the second sees who the first was."""
    bulletin = await told.asked(terms=ApprovalTerms(people=2))
    assert bulletin.asked is not None
    await told.store.approvals.answer(
        bulletin.asked.id, approve=True, by=Person(name="ben"), comment="", at=told.clock.now()
    )
    await told.channel.begin(await told.bulletin(bulletin.asked.id))
    assert "Approved by: ben" in told.only.shown


@pytest.mark.parametrize("heard", [True, False])
async def test_buttons_are_there_only_where_they_are_received(
    told: Told, tmp_path: Path, heard: bool
) -> None:
    """With a bot token alone, and without an address of ours, the message is text."""
    changes: dict[str, Any] = {"public_url": None, "slack_app_token": None}
    if not heard:
        changes["slack_signing_secret"] = None
    channel = SlackChannel.from_settings(slack_settings(tmp_path, told.slack, **changes))
    assert channel.has_buttons is heard
    await channel.begin(await told.asked())
    assert (told.only.button("heal_deny") is not None) is heard
    assert told.only.button("heal_open_0") is None
    await channel.aclose()


async def test_without_a_nonce_there_is_no_button(told: Told) -> None:
    bulletin = await told.asked()
    await told.channel.begin(replace(bulletin, nonce=None))
    assert told.only.button("heal_approve") is None


async def test_text_from_outside_means_nothing_to_slack(told: Told) -> None:
    """Versions, reasons and replies that mention or link are shown as they were written."""
    await told.channel.begin(await told.asked(HOSTILE))
    reference = await told.channel.begin(await told.ended(HOSTILE))
    await told.channel.reply(reference, ThreadReply(key="k", lines=(HOSTILE, ""), loud=True))
    for message in told.slack.messages:
        for text in (message.shown, message.body["text"]):
            assert "<" not in text
            assert "&lt;!channel&gt;" in text or text is message.body["text"]
        assert message.body["parse"] == "none"
        assert message.body["link_names"] is False
        for block in message.blocks:
            if block["type"] == "section" and block["text"]["type"] == "mrkdwn":
                assert "evil" not in block["text"]["text"]


@pytest.mark.parametrize("loud", [True, False])
async def test_a_reply_stands_in_the_thread(told: Told, loud: bool) -> None:
    """A loud one is shown to the whole channel as well."""
    reference = await told.channel.begin(await told.asked())
    await told.channel.reply(reference, replace(REPLY, loud=loud))
    reply = told.slack.messages[1]
    assert f"{CHANNEL}/{reply.body['thread_ts']}" == reference
    assert reply.body["reply_broadcast"] is loud
    assert reply.key == REPLY.key
    assert "The agent rolls back.\nIt should help." in reply.shown


# ------------------------------------------------------------ found again


async def test_only_the_apps_own_message_is_found(told: Told) -> None:
    """Another app that posts the same metadata hides no message."""
    bulletin = await told.asked()
    await told.channel.begin(bulletin)
    told.only.bot_id = "B0OTHER"
    assert await told.channel.find(bulletin.record.incident.id, None, recently()) is None


async def test_it_is_found_behind_many_others(told: Told) -> None:
    """Page by page, and not for ever."""
    bulletin = await told.asked()
    reference = await told.channel.begin(bulletin)
    key = bulletin.record.incident.id
    ts = int(float(told.only.ts))
    told.slack.messages += [Message(channel=CHANNEL, ts=f"{ts}.1{n:05d}", body={}) for n in range(900)]
    assert await told.channel.find(key, None, recently()) == reference
    assert told.slack.count("conversations.history") == 5
    told.slack.messages += [Message(channel=CHANNEL, ts=f"{ts}.2{n:05d}", body={}) for n in range(1500)]
    assert await told.channel.find(key, None, recently()) is None
    assert told.slack.count("conversations.history") == 15


async def test_a_channel_that_may_not_be_searched_finds_nothing(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the scope the message is sent again; the log names the scope."""
    told.slack.fail("conversations.history", saying("missing_scope", needed="channels:history"))
    with caplog.at_level(logging.WARNING):
        assert await told.channel.find("inc_1", None, recently()) is None
    assert "channels:history" in caplog.text


# ------------------------------------------------------------ removed by somebody


async def test_a_removed_message_of_an_open_incident_is_shown_again(told: Told) -> None:
    """Once, whatever answer is lost meanwhile."""
    bulletin = await told.asked()
    first = await told.channel.begin(bulletin)
    told.slack.remove(told.only.ts)
    told.slack.fail("chat.postMessage", answer_lost)
    with pytest.raises(UnknownOutcome):
        await told.channel.refresh(first, bulletin)
    second = await told.channel.refresh(first, bulletin)
    assert second != first
    assert second == f"{CHANNEL}/{told.only.ts}"
    assert await told.channel.refresh(second, bulletin) == second
    assert len(told.slack.messages) == 1


async def test_a_removed_message_of_a_closed_incident_stays_removed(told: Told) -> None:
    bulletin = await told.ended()
    reference = await told.channel.begin(bulletin)
    told.slack.remove(told.only.ts)
    assert await told.channel.refresh(reference, bulletin) == reference
    assert told.slack.messages == []


async def test_what_is_posted_below_a_removed_message_is_posted_all_the_same(told: Told) -> None:
    """Readers cannot open the thread, so the message is posted to the channel; and it is found there."""
    reference = await told.channel.begin(await told.asked())
    told.slack.remove(told.only.ts)
    await told.channel.reply(reference, REPLY)
    assert "thread_ts" not in told.only.body
    assert await told.channel.find(REPLY.key, reference, recently()) == f"{CHANNEL}/{told.only.ts}"


@pytest.mark.parametrize("reference", ["", "C1", "C1/", "/1.1", "C1/now", "C1/1.1.1"])
async def test_a_reference_that_is_none_is_refused(told: Told, reference: str) -> None:
    with pytest.raises(Invalid):
        await told.channel.reply(reference, REPLY)
    assert told.slack.calls == []


# ------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (limited(7), TransientError, "is rate limited"),
        (answering(429, "<html>slow down", "text/html"), TransientError, "is rate limited"),
        (saying("ratelimited"), TransientError, "is rate limited"),
        (saying("service_unavailable"), TransientError, "service_unavailable"),
        (saying("invalid_auth"), Forbidden, "SLACK_BOT_TOKEN"),
        (saying("token_revoked"), Forbidden, "SLACK_BOT_TOKEN"),
        (saying("missing_scope", needed="chat:write"), MissingScope, "chat:write"),
        (saying("not_in_channel"), Forbidden, "SLACK_CHANNEL"),
        (saying("channel_not_found"), NotFound, "SLACK_CHANNEL"),
        (saying("is_archived"), PermanentError, "SLACK_CHANNEL"),
        (saying("invalid_blocks"), Invalid, "invalid_blocks"),
        (saying("fatal_error"), UnknownOutcome, "may have taken effect"),
        (saying(f"no such {BOT_TOKEN}"), UnknownOutcome, "may have taken effect"),
        (answering(500, "{}"), UnknownOutcome, "500"),
        (answering(503, f"<html>{BOT_TOKEN}", "text/html"), UnknownOutcome, "503"),
        (answering(200, "<html>", "text/html", done=True), UnknownOutcome, "may have taken effect"),
        (answering(200, "ok", "text/plain", done=True), UnknownOutcome, "unreadable response"),
        (answering(200, "[1]", done=True), UnknownOutcome, "unreadable response"),
        (answering(200, "{", done=True), UnknownOutcome, "may have taken effect"),
        (answering(200, "[" * 100_000, done=True), UnknownOutcome, "unreadable response"),
        (answering(200, '{"ok": true}', done=True), UnknownOutcome, "no message timestamp"),
        (answering(200, '"' + "x" * 9_000_000, done=True), UnknownOutcome, "closed the connection"),
    ],
)
async def test_every_fault_says_what_to_do_next(
    told: Told, fault: Fault, error: type[Exception], words: str
) -> None:
    """One call, no second try behind the announcer's back, and no secret in the error."""
    bulletin = await told.asked()
    told.slack.fail("chat.postMessage", fault)
    with pytest.raises(error, match=words) as caught:
        await told.channel.begin(bulletin)
    assert type(caught.value) is error
    assert told.slack.count("chat.postMessage") == 1
    assert "xox" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_how_long_to_wait_is_passed_on(told: Told) -> None:
    """A limit always has a wait: Slack's own, or a moderate one."""
    bulletin = await told.asked()
    odd = answering(429, "{}")
    told.slack.fail("chat.postMessage", limited(7), limited(10**8), odd, saying("rate_limited"))
    waits = []
    for _ in range(4):
        with pytest.raises(TransientError) as caught:
            await told.channel.begin(bulletin)
        assert caught.value.retry_after is not None
        waits.append(caught.value.retry_after.total_seconds())
    assert waits == [7, 3600, 30, 30]


async def test_a_read_that_fails_may_be_asked_again(told: Told) -> None:
    """Looking changes nothing, so nothing of it is uncertain."""
    # The HTTP library itself asks once more when a connection breaks over a question.
    for faults in ((answer_lost, answer_lost), (answering(500, "{}"),), (answering(200, "["),)):
        told.slack.fail("auth.test", *faults)
        with pytest.raises(TransientError):
            await told.channel.check()


async def test_the_library_logs_nothing_of_what_it_sends(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await told.channel.begin(await told.asked())
    assert "n0nce" not in caplog.text
    assert BOT_TOKEN not in caplog.text


# ------------------------------------------------------------ set-up


async def test_check_names_what_is_missing(told: Told, tmp_path: Path) -> None:
    """Well as it is; a wrong token and a missing scope are named."""
    await told.channel.check()
    told.slack.scopes = "commands"
    with pytest.raises(Forbidden, match="chat:write"):
        await told.channel.check()
    wrong = slack_settings(tmp_path, told.slack, slack_bot_token=SecretStr("xoxb-wrong"))
    channel = SlackChannel.from_settings(wrong)
    with pytest.raises(Forbidden, match="SLACK_BOT_TOKEN") as caught:
        await channel.check()
    assert "xoxb" not in str(caught.value)
    await channel.aclose()


async def test_check_finds_a_channel_that_is_not_there(
    told: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing could be posted there; one that merely cannot be searched will do, with a warning."""
    elsewhere = SlackChannel.from_settings(slack_settings(tmp_path, told.slack, slack_channel="C0NOWHERE"))
    with pytest.raises(NotFound, match="SLACK_CHANNEL"):
        await elsewhere.check()
    await elsewhere.aclose()
    told.slack.fail("conversations.history", saying("missing_scope", needed="groups:history"))
    with caplog.at_level(logging.WARNING):
        await told.channel.check()
    assert "groups:history" in caplog.text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"slack_bot_token": SecretStr("two words")}, "SLACK_BOT_TOKEN"),
        ({"slack_api_url": "ftp://slack.com"}, "SLACK_API_URL"),
        ({"slack_api_url": "https://"}, "SLACK_API_URL"),
        ({"slack_api_url": "https://[::1"}, "SLACK_API_URL"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    settings = slack_settings(tmp_path, Slack(url="http://127.0.0.1:1"), **changes)
    with pytest.raises(ConfigurationError, match=named):
        SlackChannel.from_settings(settings)

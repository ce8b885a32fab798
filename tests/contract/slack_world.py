"""Slack as a `ChannelWorld`: the stand-in for Slack, with the troubles that the shared suite asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from app.agent.notifications.channel import Channel
from app.connectors.chat.links import Links
from app.connectors.chat.slack.blocks import Look
from app.connectors.chat.slack.channel import SlackChannel
from app.connectors.chat.slack.client import SlackClient
from tests.contract.channel_suite import PUBLIC_URL, RETRY_AFTER_SECONDS, Trouble
from tests.contract.slack_standin import (
    BOT_TOKEN,
    CHANNEL,
    Fault,
    Slack,
    answer_lost,
    limited,
    saying,
    silence,
    slack_standin,
)

TIMEOUT_SECONDS = 2.0

_FAULTS: dict[Trouble, Fault] = {
    Trouble.LOST: answer_lost,
    Trouble.HANGS: silence,
    Trouble.LIMITED: limited(RETRY_AFTER_SECONDS),
    Trouble.FORBIDDEN: saying("not_in_channel", needed=BOT_TOKEN),
    Trouble.REJECTED: saying("invalid_blocks", detail=BOT_TOKEN),
    Trouble.BROKEN: saying("service_unavailable", detail=BOT_TOKEN),
}


@dataclass(kw_only=True)
class SlackWorld:
    """One channel of one workspace, with buttons that are heard."""

    slack: Slack
    opened: list[Channel] = field(default_factory=list)
    kind: Trouble = Trouble.NONE
    searchable: bool = True
    secrets: Sequence[str] = (BOT_TOKEN,)
    live_markup: Sequence[str] = ("<", "*all is well*")

    async def open(self) -> Channel:
        client = SlackClient(
            token=SecretStr(BOT_TOKEN), api_url=self.slack.api_url, timeout_seconds=TIMEOUT_SECONDS
        )
        channel = SlackChannel(client, CHANNEL, Look(links=Links(base=PUBLIC_URL), buttons=True))
        self.opened.append(channel)
        return channel

    async def trouble(self, kind: Trouble) -> None:
        if kind is Trouble.ABSENT:
            await self.slack.stop_listening()
        elif self.kind is Trouble.ABSENT:
            await self.slack.listen_again()
        self.slack.always = _FAULTS.get(kind)
        self.kind = kind

    def seen(self) -> Sequence[str]:
        """As it was sent: what Slack would read as markup still stands there."""
        return [one.shown for one in self.slack.messages]

    def sent(self) -> str:
        return "\n".join(str(arguments) for _, arguments in self.slack.calls)


@asynccontextmanager
async def slack_world() -> AsyncIterator[SlackWorld]:
    """A workspace until the block ends."""
    async with slack_standin() as slack:
        world = SlackWorld(slack=slack)
        try:
            yield world
        finally:
            for channel in world.opened:
                await channel.aclose()

"""The whole application beside a stand-in for Slack: people press and type, the store holds the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from pydantic import SecretStr

from app.agent.identity.people import Person
from app.agent.ids import ApprovalId
from app.agent.models import Approval
from app.agent.ports.store import Store
from app.bootstrap import Adapters, Container, assemble
from app.clock import SystemClock
from app.config import Settings
from app.connectors.chat.slack.blocks import button_value
from app.main import create_app
from app.settings.entries import SlackUser
from tests.api.harness import make_settings
from tests.contract.slack_standin import (
    APP_TOKEN,
    BOT_TOKEN,
    CHANNEL,
    SIGNING_SECRET,
    Signed,
    Slack,
    command,
    faults_of,
    interaction,
    slack_standin,
)

ANN = "U0ANN"
BEN = "U0BEN"
READER = "U0READER"
STRANGER = "U0STRANGER"
CROWD = tuple(f"U0CROWD{number}" for number in range(50))
PEOPLE = {
    ANN: SlackUser(name="ann", roles=("responder",)),
    BEN: SlackUser(name="ben", roles=("responder",)),
    READER: SlackUser(name="carla", roles=("viewer",)),
    **{user: SlackUser(name=f"person {n}", roles=("responder",)) for n, user in enumerate(CROWD)},
}
PATH = "/webhooks/slack"


def slack_settings(folder: Path, slack: Slack, **changes: Any) -> Settings:
    """Everything of Slack configured, and pointed at the stand-in."""
    values: dict[str, Any] = {
        "dry_run": False,
        "slack_bot_token": SecretStr(BOT_TOKEN),
        "slack_channel": CHANNEL,
        "slack_signing_secret": SecretStr(SIGNING_SECRET),
        "slack_app_token": SecretStr(APP_TOKEN),
        "slack_users": PEOPLE,
        "slack_api_url": slack.api_url,
        "public_url": "https://heal.example.com",
    }
    return make_settings(folder, **{**values, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One agent with its HTTP door, and Slack."""

    slack: Slack
    container: Container
    client: httpx2.AsyncClient

    @property
    def store(self) -> Store:
        return self.container.store

    async def button(self, approval_id: ApprovalId) -> str:
        """The value of a button with a fresh nonce, as the announcer would post it."""
        nonce = uuid4().hex
        await self.store.approvals.issue_nonce(approval_id, nonce, self.container.clock.now())
        return button_value(approval_id, nonce)

    async def send(self, request: Signed) -> httpx2.Response:
        return await self.client.post(PATH, content=request.content, headers=dict(request.headers))

    async def press(self, user: str, value: str, *, approve: bool = True) -> httpx2.Response:
        return await self.send(interaction(self.slack.click(user, value, approve=approve)))

    async def type(self, user: str, text: str) -> str:
        """What the person is shown for a command."""
        response = await self.send(command(self.slack.typed(user, text)))
        assert response.status_code == 200, response.text
        assert response.json()["response_type"] == "ephemeral"
        assert faults_of(response.json()) == []
        shown: str = response.json()["text"]
        return shown

    async def approval(self, approval_id: ApprovalId) -> Approval:
        found = await self.store.approvals.get(approval_id)
        assert found is not None
        return found

    async def answer(self, approval_id: ApprovalId, *, approve: bool = True, by: str = "ann") -> None:
        """A person answers by another channel."""
        await self.store.approvals.answer(
            approval_id, approve=approve, by=Person(name=by), comment="", at=self.container.clock.now()
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """With the agent's socket to Slack open."""
        work = asyncio.ensure_future(self.container.chats["slack"].keep_connected())
        try:
            await self.slack.until_linked()
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


@asynccontextmanager
async def slack_stage(folder: Path, store: Store, **changes: Any) -> AsyncIterator[Stage]:
    """An agent over the store; the fixture that opened the store closes it."""
    async with slack_standin() as slack:
        settings = slack_settings(folder, slack, **changes)
        container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
        async with dressed(slack, container) as stage:
            yield stage


@asynccontextmanager
async def dressed(slack: Slack, container: Container) -> AsyncIterator[Stage]:
    """A container with its HTTP door."""
    app = create_app(container.settings)
    app.state.container = container
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50000))
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            yield Stage(slack=slack, container=container, client=client)
    finally:
        for chat in container.chats.values():
            await chat.aclose()

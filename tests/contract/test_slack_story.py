"""A bad release from its first message in Slack to its last, by the whole agent, over either transport.

Everything runs as `heal run` starts it: watcher, poller, driver, announcer, the
store on SQLite, and Slack's real libraries. Only the cluster, the metrics and
Slack are stand-ins, and the clock is fast. A slow machine makes calls late, and
what is asserted holds all the same: nothing is lost, nothing is posted twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.agent.models import (
    ActionName,
    ApprovalState,
    IncidentRecord,
    IncidentState,
)
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.workload import RevisionHealth
from app.bootstrap import Adapters, assemble
from app.config import Settings
from app.connectors.chat.slack.blocks import escaped, read_value
from app.connectors.chatops import announced_line, timeline_line
from app.connectors.kinds import constructed_channels
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.registry import CHANNELS
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.objects import Template
from app.sandbox.world import Workload
from app.sandbox.world import World as SimulatedWorld
from app.store import open_store
from app.testing import PacedClock
from app.workers import LocalRunner, attended
from tests.contract.eventually import eventually
from tests.contract.slack_stage import ANN, Stage, dressed
from tests.contract.slack_standin import (
    APP_TOKEN,
    BOT_TOKEN,
    CHANNEL,
    SIGNING_SECRET,
    Message,
    answer_lost,
    interaction,
    limited,
    slack_standin,
)
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, messages, settings_for
from tests.test_approvals import Counting

SPEED = 50.0
HEARD = {
    "http": {"SLACK_SIGNING_SECRET": SIGNING_SECRET},
    "socket": {"SLACK_APP_TOKEN": APP_TOKEN},
}

Press = Callable[[Stage, str], Awaitable[None]]


async def press_over_http(people: Stage, value: str) -> None:
    response = await people.send(interaction(people.slack.click(ANN, value)))
    assert response.status_code == 200, response.text


async def press_over_socket(people: Stage, value: str) -> None:
    envelope = await people.slack.push(people.slack.click(ANN, value))
    await people.slack.until_acknowledged(envelope)


@dataclass(kw_only=True)
class Play:
    """The agent at work, the world it works in, and the people who watch it in Slack."""

    people: Stage
    world: SimulatedWorld
    writer: Counting

    async def served_well(self) -> bool:
        """Whether there is something to go back to."""
        known = await self.people.store.history.revisions(KEY)
        return any(one.health is RevisionHealth.SERVED_WELL for one in known)

    async def record(self) -> IncidentRecord | None:
        where = IncidentFilter(service=KEY.service, environment=KEY.environment)
        page = await self.people.store.incidents.find(where, limit=2, cursor=None)
        assert len(page.items) <= 1
        return await self.people.store.incidents.get(page.items[0].incident.id) if page.items else None

    async def ended(self) -> IncidentRecord | None:
        record = await self.record()
        return record if record is not None and record.incident.state.closed else None

    async def all_told(self) -> bool:
        """Whether the announcer has it on record that Slack knows everything."""
        record = await self.record()
        assert record is not None
        posting = await self.people.store.notifications.get("slack", record.incident.id)
        assert posting is not None
        untold = await self.people.store.notifications.announcements(record.incident.id, posting.announced)
        length = len(record.timeline)
        return not untold and posting.shown == posting.refreshed == length and posting.sending is None

    async def buttons(self) -> Message | None:
        """The message of the incident, once it can be answered."""
        return next((one for one in self.people.slack.messages if one.button("heal_approve")), None)


@asynccontextmanager
async def play(folder: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
    """The agent, set up by its environment and at work until the block ends."""
    clock = PacedClock(SPEED, start=datetime.now(UTC))
    world = SimulatedWorld(clock)
    cluster = SandboxCluster.over(world)
    writer = Counting(cluster.writer())
    policy = EmbeddedPolicy(shipped_policies(), timeout_seconds=60)
    async with slack_standin() as slack:
        slack.clock = clock
        settings = _configured(folder, slack.api_url, HEARD[transport], monkeypatch)
        channels = constructed_channels(CHANNELS, settings)

        async def close() -> None:
            for channel in channels:
                await channel.aclose()
            await policy.aclose()

        runner = LocalRunner()
        container = assemble(
            settings,
            clock=clock,
            store=await open_store(settings.database_url.get_secret_value()),
            world=Adapters(
                reader=cluster.reader,
                rehearsal=cluster.rehearsal,
                writer=writer,
                watch=cluster.watch,
                metrics=SandboxMetrics(world),
                channels=channels,
                policy_engine=policy,
            ),
            runner=runner,
            close_world=close,
        )
        try:
            async with dressed(slack, container) as people, attended(container, runner):
                yield Play(people=people, world=world, writer=writer)
        finally:
            await container.close()


def _configured(
    folder: Path, api_url: str, heard: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    environment = {
        "SLACK_BOT_TOKEN": BOT_TOKEN,
        "SLACK_CHANNEL": CHANNEL,
        "SLACK_API_URL": api_url,
        "SLACK_USERS": json.dumps({ANN: {"name": "ann", "roles": ["responder"]}}),
        "PUBLIC_URL": "https://heal.example.com",
        **heard,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings_for(
        folder,
        approval_for_risks=frozenset({"high"}),
        breach_for_seconds=5,
        verify_soak_seconds=30,
        trust_revision_after_seconds=20,
        prometheus_poll_seconds=5,
        **ACTING,
    )


@pytest.mark.parametrize(
    ("transport", "press"), [("http", press_over_http), ("socket", press_over_socket)], ids=list(HEARD)
)
async def test_a_bad_release_is_posted_asked_about_and_healed_whatever_slack_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, press: Press
) -> None:
    """At its limit, an answer lost, away until all is over: one message, one thread, one rollback."""
    async with play(tmp_path, transport, monkeypatch) as told:
        slack = told.people.slack
        template = Template(image="shop:1", memory_limit="256Mi")
        told.world.deploy(Workload(namespace=NAMESPACE, name=SERVICE, template=template))
        await eventually(told.served_well, "the release that is to be gone back to served well")

        slack.fail("chat.postMessage", limited(3), answer_lost)
        told.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        first = await eventually(told.buttons, "people are asked in Slack")
        button = first.button("heal_approve")
        assert button is not None
        carried = read_value(button["value"])
        assert carried is not None
        approval = await told.people.approval(carried[0])
        assert (first.key, approval.state) == (approval.incident_id, ApprovalState.PENDING)
        assert told.writer.applied == []
        assert slack.faults == {"chat.postMessage": []}
        assert slack.count("conversations.history") >= 1

        await press(told.people, button["value"])
        assert (await slack.until_told())[0].startswith("Your yes to rollback is recorded.")
        await slack.stop_listening()
        record = await eventually(told.ended, "the incident ended without Slack")
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert "recovered" not in first.shown
        assert (await told.people.client.get("/readyz")).status_code == 200
        await slack.listen_again()
        await eventually(told.all_told, "Slack was told everything")

        assert told.writer.applied == [ActionName.ROLLBACK]
        (intent,) = record.intents
        assert intent.decision.reasons[-1] == "approved by ann"
        await check_what_people_see(told, record)


async def check_what_people_see(told: Play, record: IncidentRecord) -> None:
    """One message as things stand, and below it every entry and every announcement, once and in order."""
    incident_id = record.incident.id
    first, *thread = told.people.slack.messages
    assert first.key == incident_id
    assert "recovered" in first.shown
    assert "Verdict: recovered" in first.shown
    assert first.button("heal_approve") is None
    assert {one.body["thread_ts"] for one in thread} == {first.ts}
    quiet = [one for one in thread if not one.body["reply_broadcast"]]
    lines = [line for one in quiet for line in one.shown.split("\n")]
    assert lines == [escaped(timeline_line(entry), 3_000) for entry in record.timeline]
    announced = await told.people.store.notifications.announcements(incident_id, 0)
    loud = [one.shown for one in thread if one.body["reply_broadcast"]]
    assert loud == [escaped(announced_line(one), 3_000) for one in announced]
    assert loud

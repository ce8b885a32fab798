"""Guardrails: each blocks actions that have not begun, and never an undo or a verification (promise 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.ids import JsonObject
from app.agent.models import (
    ActionName,
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    MetricSample,
    OutcomeKind,
)
from app.agent.ports.policy import PolicyAnswer
from app.settings.entries import FreezeSetting
from app.testing import VirtualClock
from tests.stories import (
    ACTING,
    NAMESPACE,
    SERVICE,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)


@pytest.fixture
async def acting(tmp_path: Path) -> AsyncIterator[Story]:
    """An agent that may act, beside a service that has served well for a while."""
    async with story(tmp_path, reopen_after_seconds=0, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        yield stage


@dataclass
class Interrupted:
    """A policy engine that allows; while it is being asked, a person does something."""

    meanwhile: Callable[[], Coroutine[Any, Any, None]]

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        await self.meanwhile()
        return PolicyAnswer(kind=DecisionKind.ALLOW, reasons=("allowed",))


async def test_what_is_not_decided_yet_is_denied(acting: Story) -> None:
    """The incident ends with a person, who gets the name and the reason of who engaged it."""
    await acting.brake(engaged=True, by="carol")
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert "the kill switch was engaged by carol: database migration" in record.incident.summary
    assert acting.image() == "shop:2-crash"
    assert acting.marker() is None


async def test_what_is_decided_and_has_not_begun_is_refused(tmp_path: Path) -> None:
    """Engaged between decision and effect: the very last check before the write holds it back."""
    stages: list[Story] = []

    async def engage() -> None:
        await stages[0].brake(engaged=True)

    engine = Interrupted(engage)
    async with story(
        tmp_path, connected=lambda world: replace(world, policy_engine=engine), **ACTING
    ) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        (intent,) = record.intents
        assert intent.decision.kind is DecisionKind.ALLOW
        assert intent.started_at is None
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.REFUSED
        assert "the kill switch is engaged" in record.incident.summary
        assert record.incident.state is IncidentState.ESCALATED
        assert stage.marker() is None


async def test_a_verification_under_way_goes_on_to_its_verdict(acting: Story) -> None:
    """What was done already is judged as if nothing had been engaged."""
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    await acting.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
    await acting.brake(engaged=True)
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert acting.image() == "shop:1"


async def test_an_undo_is_not_stopped(acting: Story) -> None:
    """Promise 11: what did not help is undone, with proof, whatever is engaged."""
    await innocent_release_beside_a_dying_dependency(acting)
    await acting.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
    await acting.brake(engaged=True)
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK, ActionName.RESTORE]
    assert all(i.outcome is not None and i.outcome.kind is OutcomeKind.DONE for i in record.intents)
    assert "Undo verified" in messages(record.timeline)
    assert acting.image() == "shop:2"


async def test_released_again_the_next_incident_is_healed(acting: Story) -> None:
    """Releasing starts nothing by itself: what was given to a person stays with them."""
    await acting.brake(engaged=True)
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    given_up = await acting.live_until_ended()
    await acting.brake(engaged=False)
    assert (await acting.load(given_up.incident.id)).incident.state is IncidentState.ESCALATED
    assert acting.marker() is None
    accepted = await acting.tell(MetricSample(crash_looping=True))
    assert accepted.disposition.kind is DispositionKind.OPENED
    record = await acting.live_until_ended()
    assert record.incident.id == accepted.disposition.incident_id
    assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
    assert acting.image() == "shop:1"


async def test_a_restart_does_not_release_it(acting: Story) -> None:
    """The switch is a row that every later agent reads."""
    await acting.brake(engaged=True)
    await acting.restart()
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.live_until_ended()
    assert [i.state for i in record.intents] == [IntentState.FINISHED]
    assert [i.decision.kind for i in record.intents] == [DecisionKind.DENY]
    assert acting.marker() is None


# ------------------------------------------------------------ freeze windows


async def test_nothing_begins_within_a_freeze_window(tmp_path: Path) -> None:
    """The incident goes to a person, who reads which window holds and until when."""
    weekly = {"name": "quarter end", "cron": "* * * * *", "hours": 1, "environments": [NAMESPACE]}
    async with story(tmp_path, freeze_windows=[weekly], **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "freeze window quarter end is active until" in messages(record.timeline)
        assert stage.marker() is None


async def test_a_window_that_starts_after_the_decision_holds_all_the_same(tmp_path: Path) -> None:
    """While policy is asked the window starts: the very last check before the write holds it back."""
    stages: list[Story] = []

    async def wait() -> None:
        await stages[0].clock.advance(600)

    engine = Interrupted(wait)
    start = (VirtualClock().now() + timedelta(seconds=600)).isoformat()
    once = {"name": "move", "starts_at": start, "hours": 5}
    async with story(
        tmp_path,
        connected=lambda world: replace(world, policy_engine=engine),
        freeze_windows=[once],
        **ACTING,
    ) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.intents[0].started_at is None
        assert "freeze window move is active until" in messages(record.timeline)
        assert stage.marker() is None


async def test_an_undo_goes_on_within_a_freeze_window(tmp_path: Path) -> None:
    """The window starts when the action has begun: what did not help is undone within it."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        await innocent_release_beside_a_dying_dependency(stage)
        await stage.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
        always = FreezeSetting(name="always", cron="* * * * *", hours=1)
        await stage.restart(freeze_windows=(always,))
        record = await stage.live_until_ended()
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK, ActionName.RESTORE]
        assert all(i.outcome is not None and i.outcome.kind is OutcomeKind.DONE for i in record.intents)
        assert stage.image() == "shop:2"


# ------------------------------------------------------------ owners


@pytest.mark.parametrize("says", ["false", "off", "no"])
async def test_a_namespace_that_opts_out_is_left_alone(acting: Story, says: str) -> None:
    """Whatever it says that is not yes."""
    acting.world.namespaces[NAMESPACE] = {"self-healing-devops-agent/enabled": says}
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.ESCALATED
    assert f"the target opts out: self-healing-devops-agent/enabled on Namespace {NAMESPACE}" in (
        messages(record.timeline)
    )
    assert acting.marker() is None


async def test_opting_out_after_the_decision_holds_all_the_same(tmp_path: Path) -> None:
    """Between decision and write the owners change their mind."""
    stages: list[Story] = []

    async def opt_out() -> None:
        stages[0].world.namespaces[NAMESPACE] = {"self-healing-devops-agent/enabled": "false"}

    engine = Interrupted(opt_out)
    async with story(
        tmp_path, connected=lambda world: replace(world, policy_engine=engine), **ACTING
    ) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.intents[0].decision.kind is DecisionKind.ALLOW
        assert record.intents[0].started_at is None
        assert stage.marker() is None


async def test_an_undo_needs_no_leave(acting: Story) -> None:
    """The owners keep the agent off after it acted: it takes back what did not help, and that is all."""
    await innocent_release_beside_a_dying_dependency(acting)
    await acting.live_until(lambda record: record.incident.state is IncidentState.VERIFYING)
    acting.world.namespaces[NAMESPACE] = {"self-healing-devops-agent/enabled": "false"}
    record = await acting.live_until_ended()
    assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK, ActionName.RESTORE]
    assert acting.image() == "shop:2"


@pytest.mark.parametrize("opted_in", [True, False])
async def test_where_owners_must_let_it_in_only_they_do(tmp_path: Path, opted_in: bool) -> None:
    """REQUIRE_OPT_IN: without an opt-in nothing is done."""
    async with story(tmp_path, require_opt_in=True, **ACTING) as stage:
        stage.deploy()
        if opted_in:
            stage.world.namespaces[NAMESPACE] = {"self-healing-devops-agent/enabled": "true"}
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        wanted = IncidentState.RECOVERED if opted_in else IncidentState.ESCALATED
        assert record.incident.state is wanted, messages(record.timeline)
        assert ("REQUIRE_OPT_IN is set" in messages(record.timeline)) is not opted_in

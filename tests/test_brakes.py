"""The kill switch: it stops every action that has not begun, and nothing that puts things right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.agent.models import (
    ActionName,
    DecisionKind,
    DispositionKind,
    IncidentState,
    IntentState,
    JsonObject,
    MetricSample,
    OutcomeKind,
)
from app.agent.ports import PolicyAnswer
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
    """A policy engine that allows; while it is being asked, somebody does something."""

    meanwhile: Callable[[], Coroutine[Any, Any, None]]

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        await self.meanwhile()
        return PolicyAnswer(kind=DecisionKind.ALLOW, reasons=("allowed",))


async def test_what_is_not_decided_yet_is_denied(acting: Story) -> None:
    """The incident ends with a person, who is told who engaged it and why."""
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
    """Promise 11: what did not help is taken back, and proved to be, whatever is engaged."""
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

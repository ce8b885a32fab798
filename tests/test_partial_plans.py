"""Whatever stops a plan after an action took place, that action is verified and undone (promise 10).

A verdict on an earlier step says nothing about a later one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.agent.models import (
    ActionName,
    ApprovalState,
    IncidentRecord,
    IncidentState,
)
from tests.stories import ACTING, Story, messages, story
from tests.test_loop import CART, ReadAtStart, greeting, innocent_configuration_beside_a_dying_dependency

REVERT = """  - action: revert_config
    parameters:
      to: last_served_well
  - action: restart
    parameters:
      when: config_read_at_start
"""
SCALE = "  - action: scale\n    parameters:\n      by: 1\n"


def runbook(folder: Path, steps: str) -> Path:
    """A folder with one runbook of these steps."""
    found = folder / "runbooks"
    found.mkdir()
    causes = "bad_config, resource_limit"
    head = f"schema: 1\nid: steps\nversion: 1\ntitle: t\ncauses: [{causes}]\nmin_confidence: 0.5\nsteps:\n"
    (found / "steps.yaml").write_text(head + steps)
    return found


@asynccontextmanager
async def useless_configuration(folder: Path, steps: str, **settings: Any) -> AsyncIterator[Story]:
    """The dependency of cart is gone; the runbook reverts a configuration, which will not help."""
    async with story(
        folder,
        connected=lambda world: replace(world, reader=ReadAtStart(world.reader)),
        runbooks_dir=runbook(folder, steps),
        **{**ACTING, **settings},
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        yield stage


def taken(record: IncidentRecord) -> list[ActionName]:
    return [i.action.name for i in record.intents if i.started_at is not None]


def judged(record: IncidentRecord) -> list[str]:
    """The messages of the verifications, in order."""
    return [e.message.partition(":")[0] for e in record.timeline if e.message.startswith("Verifying ")]


async def test_a_verdict_on_an_earlier_step_does_not_stand_for_a_later_one(tmp_path: Path) -> None:
    """The first step is judged and undone; the second is cut short by the budget, judged and undone too."""
    async with useless_configuration(tmp_path, SCALE + REVERT, max_actions_per_incident=2) as stage:
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert taken(record) == [
            ActionName.SCALE,
            ActionName.RESTORE,
            ActionName.REVERT_CONFIG,
            ActionName.RESTORE,
        ], told
        assert judged(record) == ["Verifying scale", "Verifying revert config"], told
        assert "Undoing revert_config on ConfigMap prod/cart-config: it did not help." in told
        assert greeting(stage) == "hi"
        assert record.incident.state is IncidentState.ESCALATED
        assert record.incident.verdict is not None
        assert record.incident.verdict.intent_id == record.intents[2].id
        assert "Still in place" not in record.incident.summary


async def test_a_step_that_is_not_complete_is_judged_before_the_plan_goes_on(tmp_path: Path) -> None:
    """The completing restart is denied: the revert is undone before the next step, which is not skipped."""
    allowed = {"revert_config", "scale"}
    async with useless_configuration(tmp_path, REVERT + SCALE, enabled_actions=allowed) as stage:
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert taken(record) == [
            ActionName.REVERT_CONFIG,
            ActionName.RESTORE,
            ActionName.SCALE,
            ActionName.RESTORE,
        ], told
        assert judged(record) == ["Verifying revert config", "Verifying scale"], told
        assert greeting(stage) == "hi"


async def denied(stage: Story, record: IncidentRecord) -> None:
    await stage.say(record.approvals[-1], yes=False)


async def expired(stage: Story, record: IncidentRecord) -> None:
    await stage.clock.advance((record.approvals[-1].expires_at - stage.clock.now()).total_seconds())


async def killed(stage: Story, record: IncidentRecord) -> None:
    await stage.brake(engaged=True)
    await stage.say(record.approvals[-1], yes=True)


async def withdrawn(stage: Story, record: IncidentRecord) -> None:
    """The service answers again while people are asked, and then fails as before."""
    stage.world.set_replicas("prod", "db", 3)
    await stage.live_until(lambda r: r.incident.state is not IncidentState.AWAITING_APPROVAL, key=CART)
    stage.world.set_replicas("prod", "db", 0)


@pytest.mark.parametrize("happens", [denied, expired, killed, withdrawn])
async def test_no_answer_leaves_an_action_unverified(
    tmp_path: Path, happens: Callable[[Story, IncidentRecord], Any]
) -> None:
    """The first step was judged; the second is half done when people are asked for the rest of it."""
    async with useless_configuration(
        tmp_path, REVERT, approval_for_risks={"medium"}, approval_timeout_seconds=600
    ) as stage:
        record = await stage.live_until(
            lambda r: bool(r.approvals) and r.approvals[-1].state is ApprovalState.PENDING, key=CART
        )
        assert taken(record) == [ActionName.REVERT_CONFIG], messages(record.timeline)
        await happens(stage, record)
        record = await stage.live_until_ended(key=CART)
        told = messages(record.timeline)
        assert judged(record)[0] == "Verifying revert config", told
        assert taken(record)[:2] == [ActionName.REVERT_CONFIG, ActionName.RESTORE], told
        assert greeting(stage) == "hi"
        assert "Recovered without any action" not in told

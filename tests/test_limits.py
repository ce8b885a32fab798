"""Limits over many incidents: what is blocked, what is posted, and what is never blocked."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import (
    ActionName,
    DecisionKind,
    IncidentState,
    OutcomeKind,
)
from app.agent.ports.policy import PolicyAnswer
from tests.stories import (
    ACTING,
    KEY,
    NAMESPACE,
    SERVICE,
    Story,
    innocent_release_beside_a_dying_dependency,
    messages,
    story,
)

OTHER = ServiceKey(environment=NAMESPACE, service="cart")


async def both_crash(stage: Story) -> None:
    """Two services that served well are released with images that crash."""
    stage.deploy()
    stage.deploy("cart", "cart:1")
    await stage.live(180)
    stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    stage.world.release(NAMESPACE, "cart", "cart:2-crash")


@pytest.mark.parametrize(
    "limit", ["max_actions_per_cluster", "max_actions_per_namespace", "max_actions_per_service"]
)
async def test_a_spent_budget_leaves_the_rest_to_people(tmp_path: Path, limit: str) -> None:
    """One action for cluster or namespace: one service is healed, the other's people hear why not."""
    settings: dict[str, Any] = {limit: 1, **ACTING}
    async with story(tmp_path, **settings) as stage:
        await both_crash(stage)
        ends = [await stage.live_until_ended(key=key) for key in (KEY, OTHER)]
        states = sorted(record.incident.state for record in ends)
        if limit == "max_actions_per_service":
            assert states == [IncidentState.RECOVERED, IncidentState.RECOVERED]
            return
        assert states == [IncidentState.ESCALATED, IncidentState.RECOVERED]
        [held] = [record for record in ends if record.incident.state is IncidentState.ESCALATED]
        [intent] = held.intents
        assert intent.decision.kind is DecisionKind.DENY
        assert f"1 of {limit.upper()}=1" in messages(held.timeline)


async def test_a_budget_that_is_spent_after_the_decision_holds_all_the_same(tmp_path: Path) -> None:
    """While policy is asked for one service another begins: the transaction that begins has the last word."""
    meanwhile: list[Callable[[], Coroutine[Any, Any, None]]] = []

    @dataclass
    class Engine:
        async def decide(self, document: JsonObject) -> PolicyAnswer:
            if meanwhile:
                await meanwhile.pop()()
            return PolicyAnswer(kind=DecisionKind.ALLOW, reasons=("allowed",))

    async with story(
        tmp_path,
        connected=lambda world: replace(world, policy_engine=Engine()),
        max_actions_per_cluster=1,
        **ACTING,
    ) as stage:
        await both_crash(stage)
        while len(await stage.agent.store.incidents.all_open()) < 2:
            await stage.live(5)
        first, second = await stage.agent.store.incidents.all_open()

        async def the_other_begins() -> None:
            await stage.agent.loop.advance(second.id, now_please=True)

        meanwhile.append(the_other_begins)
        await stage.agent.loop.advance(first.id, now_please=True)
        held, taken = await stage.load(first.id), await stage.load(second.id)
        assert taken.intents[0].started_at is not None
        intent = held.intents[0]
        assert (intent.decision.kind, intent.started_at) == (DecisionKind.ALLOW, None)
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.REFUSED
        assert "1 of MAX_ACTIONS_PER_CLUSTER=1 in the cluster" in intent.outcome.message


async def test_what_did_not_help_is_undone_though_every_budget_is_spent(tmp_path: Path) -> None:
    """The undo needs no budget, and no cooldown holds it."""
    async with story(
        tmp_path,
        max_actions_per_service=1,
        max_actions_per_namespace=1,
        max_actions_per_cluster=1,
        cooldown_seconds=3600,
        **ACTING,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK, ActionName.RESTORE]
        assert all(i.outcome is not None and i.outcome.kind is OutcomeKind.DONE for i in record.intents)
        assert stage.image() == "shop:2"


async def test_what_did_not_help_is_not_done_again_by_the_next_incident(tmp_path: Path) -> None:
    """Promise 10 over incidents: the same rollback on the same evidence is denied, the earlier one named."""
    async with story(tmp_path, reopen_after_seconds=0, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        await innocent_release_beside_a_dying_dependency(stage)
        first = await stage.live_until_ended()
        second = await stage.live_until(
            lambda record: record.incident.id != first.incident.id and record.incident.state.closed
        )
        told = messages(second.timeline)
        assert all(i.started_at is None for i in second.intents), told
        assert f"({first.incident.id}) and did not help" in told
        assert "would restore the state" in told
        assert second.incident.state is IncidentState.ESCALATED
        assert stage.image() == "shop:2"


@pytest.mark.parametrize("setting", [{"cooldown_seconds": 86_400}, {"backoff_base_seconds": 86_400}])
async def test_a_service_is_left_alone_for_a_while(tmp_path: Path, setting: dict[str, Any]) -> None:
    """Cooldown counts whatever came of the action before; backoff only what did not help."""
    async with story(tmp_path, reopen_after_seconds=0, action_memory_seconds=0, **setting, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        await innocent_release_beside_a_dying_dependency(stage)
        first = await stage.live_until_ended()
        second = await stage.live_until(
            lambda record: record.incident.id != first.incident.id and record.incident.state.closed
        )
        words = "is in cooldown until" if "cooldown_seconds" in setting else "backoff until"
        assert words in messages(second.timeline)
        assert all(i.started_at is None for i in second.intents)


async def test_a_change_that_would_take_all_pods_away_is_denied(tmp_path: Path) -> None:
    """A strategy that lets every pod go missing at once: a person must judge that."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        [deployment] = stage.world.deployments(NAMESPACE, SERVICE)
        deployment.max_unavailable = 1.0
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "rollback may make 3 of 3 replicas unavailable at once" in messages(record.timeline)

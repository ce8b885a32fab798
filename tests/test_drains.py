"""Draining a failing node in the loop: step by step, each once, within limits, stopped in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.agent.draining.execution import WAIT
from app.agent.guardrails.drains import is_eviction
from app.agent.ids import IntentId
from app.agent.models import (
    Action,
    ActionName,
    IncidentState,
    OutcomeKind,
    Snapshot,
)
from app.agent.ports.cluster import ClusterWriter
from app.agent.workload import TargetState
from app.bootstrap import Adapters
from app.errors import Conflict, UnknownOutcome
from app.sandbox.cluster.drains import LOCAL, VOLUMES
from app.sandbox.objects import Pod
from app.sandbox.operations import FIELD_MANAGER
from app.sandbox.world import World
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story
from tests.test_hands import stops_being_ready
from tests.test_interruptions import Killed

ENABLED = frozenset({ActionName.DRAIN_NODE, ActionName.NOTIFY})
Wrapped = Callable[[ClusterWriter], ClusterWriter]


@dataclass
class Breaks:
    """A writer over which the process dies, or an answer is lost, after the effect of number `after`."""

    inner: ClusterWriter
    after: int
    lost: bool = False
    effects: list[str] = field(default_factory=list)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        state = await self.inner.apply(action, intent_id, target, snapshot)
        self.effects.append(str(action.target))
        if len(self.effects) == self.after:
            raise UnknownOutcome("no answer") if self.lost else Killed
        return state


@asynccontextmanager
async def draining(
    directory: Path, wrapped: Wrapped = lambda writer: writer, **settings: Any
) -> AsyncIterator[Story]:
    """An agent that may drain a node, beside a service that has served well."""

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        return replace(world, writer=wrapped(world.writer))

    async with story(directory, connected=connected, **ACTING, enabled_actions=ENABLED, **settings) as stage:
        stage.deploy(replicas=4)
        await stage.clock.advance(3600)
        await stage.live(180)
        yield stage


def fails(stage: Story) -> tuple[str, list[str]]:
    """Every pod of a node stops serving; the node and the pods."""
    node = stage.world.nodes[0]
    return node, stops_being_ready(stage, lambda pod: pod.node == node)


def written(world: World) -> list[tuple[str, str]]:
    """What the agent wrote, in order."""
    return [(entry.verb, entry.name) for entry in world.api.audit if entry.manager == FIELD_MANAGER]


@pytest.mark.parametrize(("breaks", "lost"), [(1, False), (2, False), (1, True), (3, True)])
async def test_a_failing_node_is_drained_pod_by_pod(tmp_path: Path, breaks: int, lost: bool) -> None:
    """One intent: the cordon, then each eviction; killed or unanswered at any, each takes place once."""
    writers: list[Breaks] = []

    def wrapped(inner: ClusterWriter) -> ClusterWriter:
        writers.append(Breaks(inner, breaks if not writers else 0, lost))
        return writers[-1]

    async with draining(tmp_path, wrapped) as stage:
        node, gone = fails(stage)
        if breaks and not lost:
            with pytest.raises(Killed):
                await stage.live_until_ended()
            await stage.restart(enabled_actions=ENABLED)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, told
        assert [i.action.name for i in record.intents] == [ActionName.DRAIN_NODE]
        assert stage.world.surroundings.node(node).cordoned
        assert {pod.node for pod in stage.world.api.list(Pod)} == {stage.world.nodes[1]}
        cordon, *evictions = written(stage.world)
        assert cordon == ("patch", node)
        assert sorted(evictions) == sorted(("evict", name) for name in gone)
        assert "its pods are evicted (2 pods)" in told


async def test_a_lost_node_is_drained(tmp_path: Path) -> None:
    """Its pods are replaced at once, not after the five minutes of the cluster."""
    async with draining(tmp_path) as stage:
        node = stage.world.nodes[0]
        stage.world.catch_up()
        stage.world.kubelet.lose(node)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert [i.action.name for i in record.intents] == [ActionName.DRAIN_NODE]


def _local_data(stage: Story) -> None:
    stage.world.set_pod_field(NAMESPACE, SERVICE, VOLUMES, LOCAL)


def _no_room(stage: Story) -> None:
    stage.world.surroundings.pods_per_node = 3


def _second_node_lost(stage: Story) -> None:
    stage.world.surroundings.change_node(stage.world.nodes[1]).lost = True


def _budget(stage: Story) -> None:
    stage.world.held_pods.add((NAMESPACE, SERVICE))


def _cordoned_by_hand(stage: Story) -> None:
    stage.world.cordon(stage.world.nodes[1], cordoned=True, manager="kubectl-cordon")


def _opt_out(stage: Story) -> None:
    stage.deploy("batch", "batch:1", namespace="other", replicas=2)
    stage.world.namespaces["other"] = {"self-healing-devops-agent/enabled": "false"}


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (_local_data, "its local data would be deleted"),
        (_no_room, "the other nodes have no room for Pod"),
        (_second_node_lost, "another node is not ready either"),
        (_budget, "it would violate the disruption budget"),
        (_cordoned_by_hand, "MAX_CORDONED_SHARE=0.2 allows 1"),
        (_opt_out, "namespaces that opt out: other"),
    ],
)
async def test_a_drain_is_refused_as_a_whole(
    tmp_path: Path, arrange: Callable[[Story], None], said: str
) -> None:
    """A pod that a person must decide on, a lack of room, or a budget: nothing is written."""
    async with draining(tmp_path) as stage:
        arrange(stage)
        await stage.clock.advance(3600)
        await stage.live(30)
        fails(stage)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, told
        assert said in told
        assert written(stage.world) == []


async def test_a_drain_stops_at_the_kill_switch_between_two_evictions(tmp_path: Path) -> None:
    """What took place is verified, and the node uncordoned where it did not help."""
    stages: list[Story] = []

    @dataclass
    class Engages:
        inner: ClusterWriter
        evicted: int = 0

        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            state = await self.inner.apply(action, intent_id, target, snapshot)
            if is_eviction(action):
                self.evicted += 1
                await stages[0].brake(engaged=True)
            return state

    async with draining(tmp_path, Engages) as stage:
        stages.append(stage)
        node, _ = fails(stage)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert [verb for verb, _ in written(stage.world)][:2] == ["patch", "evict"]
        assert sum(verb == "evict" for verb, _ in written(stage.world)) == 1
        outcome = record.intents[0].outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.DONE
        assert "1 pod evicted, 1 pod not: the kill switch is engaged" in outcome.message
        assert not stage.world.surroundings.node(node).cordoned, told
        assert record.incident.state is IncidentState.ESCALATED, told


async def test_a_drain_stops_when_another_node_fails(tmp_path: Path) -> None:
    """The pods that are left stay where they are: the cluster loses no more room."""
    stages: list[Story] = []

    @dataclass
    class Loses:
        inner: ClusterWriter

        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            state = await self.inner.apply(action, intent_id, target, snapshot)
            if is_eviction(action):
                _second_node_lost(stages[0])
            return state

    async with draining(tmp_path, Loses) as stage:
        stages.append(stage)
        fails(stage)
        record = await stage.live_until_ended()
        assert sum(verb == "evict" for verb, _ in written(stage.world)) == 1
        outcome = record.intents[0].outcome
        assert outcome is not None
        assert "1 pod evicted, 1 pod not: another node is not ready either" in outcome.message


async def test_a_budget_that_allows_no_further_eviction_is_waited_for(tmp_path: Path) -> None:
    """An eviction that is refused now is sent again until the budget allows it."""

    @dataclass
    class Holds:
        inner: ClusterWriter
        refusals: int = 4

        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            held = stages[0].world.held_pods
            if is_eviction(action) and self.refusals:
                self.refusals -= 1
                refused.append(stages[0].clock.now())
                held.add((NAMESPACE, SERVICE))
            else:
                held.clear()
            return await self.inner.apply(action, intent_id, target, snapshot)

    stages: list[Story] = []
    refused: list[datetime] = []
    async with draining(tmp_path, Holds) as stage:
        stages.append(stage)
        _, gone = fails(stage)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert sum(verb == "evict" for verb, _ in written(stage.world)) == len(gone)
        assert messages(record.timeline).count("Evicting Pod") == len(gone)
        first, second = sorted(set(refused))
        assert second - first >= WAIT


async def test_an_eviction_without_an_answer_is_not_repeated_at_once(tmp_path: Path) -> None:
    """An API server that fails is given time between two attempts."""

    @dataclass
    class Fails:
        inner: ClusterWriter
        failures: int = 3

        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            if is_eviction(action) and self.failures:
                self.failures -= 1
                asked.append(stages[0].clock.now())
                raise UnknownOutcome("HTTP 500 (the write may have happened)")
            return await self.inner.apply(action, intent_id, target, snapshot)

    stages: list[Story] = []
    asked: list[datetime] = []
    async with draining(tmp_path, Fails) as stage:
        stages.append(stage)
        fails(stage)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert all(later - earlier >= WAIT for earlier, later in pairwise(asked)), asked


async def test_a_worker_that_lost_the_incident_evicts_no_further_pod(tmp_path: Path) -> None:
    """Nor one whose eviction it had begun before: its claim is asked for before each eviction."""

    @dataclass
    class Loses:
        inner: ClusterWriter

        async def apply(
            self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
        ) -> TargetState:
            if not is_eviction(action):
                return await self.inner.apply(action, intent_id, target, snapshot)
            asked.append(str(action.target))
            if len(asked) == 3:
                stage, now = stages[0], stages[0].clock.now()
                store, record = stage.agent.store, await stage.newest()
                assert record is not None
                await store.claims.release_owner(stage.agent.loop.owner)
                assert await store.claims.take(record.incident.id, "other", 10 * WAIT, now) is not None
            raise Conflict("a disruption budget allows none now")

    stages: list[Story] = []
    asked: list[str] = []
    async with draining(tmp_path, Loses) as stage:
        stages.append(stage)
        fails(stage)
        await stage.live_until(lambda _: len(asked) >= 3)
        await stage.live(10)
        assert len(asked) == 3

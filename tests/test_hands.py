"""The actions on nodes and pods in the loop: carried out, and found executed after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.actions.restore import restore_of
from app.agent.guardrails.cordons import NodeCordons
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, ActionName, Cause, IncidentRecord, IncidentState, OutcomeKind, Snapshot
from app.agent.ports.cluster import ClusterWriter
from app.agent.workload import ObjectRef, TargetState, WarningView, WorkloadView
from app.bootstrap import Adapters
from app.errors import AgentError, Forbidden, TransientError
from app.sandbox.objects import Pod
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story
from tests.test_interruptions import Killed

ALL = frozenset(ActionName) - {ActionName.RESTORE, ActionName.DRAIN_NODE}
"""Without the drain, which goes before a cordon."""


@dataclass
class DiesAfter:
    """A writer over which the process dies right after the first effect of one action."""

    inner: ClusterWriter
    only: ActionName | None
    effects: list[IntentId] = field(default_factory=list)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        state = await self.inner.apply(action, intent_id, target, snapshot)
        self.effects.append(intent_id)
        if action.name is self.only:
            self.only = None
            raise Killed
        return state


@dataclass
class FailingProbes:
    """A reader that shows why a pod is not ready, as the events of a node would."""

    inner: Any

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        view: WorkloadView | None = await self.inner.workload(key)
        if view is None:
            return None
        said = "Readiness probe failed: HTTP probe failed with statuscode: 503"
        warning = WarningView(reason="Unhealthy", message=said, count=9, at=view.observed_at)
        pods = tuple(pod if pod.ready else replace(pod, warnings=(warning,)) for pod in view.pods)
        return replace(view, pods=pods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@asynccontextmanager
async def acting(
    directory: Path,
    dies_after: ActionName | None = None,
    *,
    probes: bool = False,
    replicas: int = 4,
    **settings: Any,
) -> AsyncIterator[tuple[Story, DiesAfter]]:
    """An agent that may do everything, beside a service that has served well."""
    writers: list[DiesAfter] = []

    def connected(world: Adapters) -> Adapters:
        assert world.writer is not None
        writers.append(DiesAfter(world.writer, dies_after if not writers else None))
        reader = FailingProbes(world.reader) if probes else world.reader
        return replace(world, writer=writers[0], reader=reader)

    async with story(directory, connected=connected, **ACTING, enabled_actions=ALL, **settings) as stage:
        stage.deploy(replicas=replicas)
        await stage.clock.advance(3600)  # its release is no recent change any more
        await stage.live(180)
        yield stage, writers[0]


def stops_being_ready(stage: Story, which: Callable[[Pod], bool]) -> list[str]:
    """The pods for which it holds stop serving; their names."""
    stage.world.catch_up()
    found = [pod for pod in stage.world.api.list(Pod) if which(pod)]
    for pod in found:
        pod.set_ready(False, stage.world.engine.now)
        stage.world.api.bump(pod)
    return [pod.meta.name for pod in found]


async def ended(stage: Story, dies_after: ActionName | None) -> IncidentRecord:
    if dies_after is not None:
        with pytest.raises(Killed):
            await stage.live_until_ended()
        await stage.restart(enabled_actions=ALL)
    return await stage.live_until_ended()


@pytest.mark.parametrize("dies_after", [None, ActionName.CORDON])
async def test_a_failing_node_is_cordoned_and_the_pods_move(
    tmp_path: Path, dies_after: ActionName | None
) -> None:
    """Cordon and restart are one plan with one verdict; after a crash neither is done twice."""
    async with acting(tmp_path, dies_after) as (stage, writer):
        node = stage.world.nodes[0]
        stops_being_ready(stage, lambda pod: pod.node == node)
        record = await ended(stage, dies_after)
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, told
        assert [i.action.name for i in record.intents] == [ActionName.CORDON, ActionName.RESTART]
        assert writer.effects == [i.id for i in record.intents]
        assert stage.world.surroundings.node(node).cordoned
        assert {pod.node for pod in stage.world.api.list(Pod)} == {stage.world.nodes[1]}
        assert ("found executed" in told) is (dies_after is not None)


@pytest.mark.parametrize("others", [1, 0])
async def test_one_failing_pod_shows_a_grey_node_only_where_another_service_fails_there_too(
    tmp_path: Path, others: int
) -> None:
    """A node that reports to be ready is named from the pods of two services, and not from one pod."""
    async with acting(tmp_path, replicas=2) as (stage, _):
        stage.deploy("cart", "cart:1", replicas=2)
        await stage.live(3600)
        node, services = stage.world.nodes[0], (SERVICE, "cart")[: 1 + others]
        failing = stops_being_ready(
            stage, lambda pod: pod.node == node and pod.meta.name.startswith(services)
        )
        assert len(failing) == 1 + others
        record = await stage.live_until(lambda found: found.incident.diagnosis is not None)
        diagnosis = record.incident.diagnosis
        assert diagnosis is not None
        assert (diagnosis.best.cause is Cause.NODE_FAILURE) is bool(others), messages(record.timeline)
        if others:
            assert f"cart in prod fail on node {node} too" in "; ".join(diagnosis.best.evidence_for)
            record = await stage.live_until(lambda found: bool(found.intents))
            assert record.intents[0].action.name is ActionName.CORDON
            assert record.intents[0].action.target == ObjectRef(kind="Node", namespace="", name=node)


@pytest.mark.parametrize("most", [1, 2])
async def test_a_second_node_is_cordoned_only_within_the_limit(tmp_path: Path, most: int) -> None:
    """Two services fail on two nodes: the cordon for the first counts for the second, in the cluster."""
    async with acting(tmp_path, max_cordoned_nodes=most, max_cordoned_share=1.0) as (stage, _):
        stage.deploy("cart", "cart:1", replicas=4)
        await stage.live(180)
        one, other = stage.world.nodes
        stops_being_ready(stage, lambda pod: pod.node == one and pod.meta.name.startswith(SERVICE))
        await stage.live_until(lambda record: bool(record.intents))
        assert (await stage.cluster.reader.cordons(ObjectRef(kind="Node", namespace="", name=one))).own == (
            one,
        )
        stops_being_ready(stage, lambda pod: pod.node == other and pod.meta.name.startswith("cart"))
        cart = ServiceKey(environment=NAMESPACE, service="cart")
        record = await stage.live_until(lambda r: any(i.started_at or i.outcome for i in r.intents), key=cart)
        told = messages(record.timeline)
        assert record.intents, told
        assert record.intents[0].action.name is ActionName.CORDON
        assert ("MAX_CORDONED_NODES=1 allows no more" in told) is (most == 1)
        assert (record.intents[0].started_at is None) is (most == 1)


@dataclass
class Cordoned:
    """A reader that finds another node cordoned by the agent from its look of that number on."""

    inner: Any
    appears_at: int
    error: AgentError | None = None
    """Raised instead, from that look on."""
    looks: int = 0

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        self.looks += 1
        if self.error is not None and self.looks >= self.appears_at:
            raise self.error
        found: NodeCordons = await self.inner.cordons(node)
        own = ("another",) if self.looks >= self.appears_at else ()
        return replace(found, nodes=9, cordoned=own, own=own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize(("appears_at", "begins"), [(2, False), (3, True)])
async def test_cordons_are_counted_again_before_and_after_the_action_begins(
    tmp_path: Path, appears_at: int, begins: bool
) -> None:
    """Of two workers that counted at once, the second finds the first one's cordon and sends nothing."""

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=Cordoned(world.reader, appears_at))

    async with story(tmp_path, connected=connected, **ACTING, enabled_actions=ALL) as stage:
        stage.deploy(replicas=4)
        await stage.clock.advance(3600)
        await stage.live(180)
        node = stage.world.nodes[0]
        stops_being_ready(stage, lambda pod: pod.node == node)
        record = await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        intent = record.intents[0]
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.REFUSED, messages(record.timeline)
        assert "MAX_CORDONED_NODES=1 allows no more" in intent.outcome.message
        assert (intent.started_at is not None) is begins
        assert not stage.world.surroundings.node(node).cordoned


@pytest.mark.parametrize("error", [TransientError("no connection"), Forbidden("cannot list nodes")])
async def test_a_cordon_is_not_sent_while_nodes_cannot_be_counted(tmp_path: Path, error: AgentError) -> None:
    """The count after it has begun fails: nothing was sent, and the outcome says so; an undo goes on."""

    def connected(world: Adapters) -> Adapters:
        return replace(world, reader=Cordoned(world.reader, appears_at=3, error=error))

    async with story(tmp_path, connected=connected, **ACTING, enabled_actions=ALL) as stage:
        stage.deploy(replicas=4)
        await stage.clock.advance(3600)
        await stage.live(180)
        node = stage.world.nodes[0]
        stops_being_ready(stage, lambda pod: pod.node == node)
        record = await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        intent = record.intents[0]
        assert intent.outcome is not None
        assert (intent.outcome.kind, intent.started_at is not None) == (OutcomeKind.REFUSED, True)
        assert intent.outcome.message == f"not sent: the cordoned nodes cannot be counted: {error}"
        assert not stage.world.surroundings.node(node).cordoned
        undo = replace(intent, undoes=intent.id)
        assert await stage.agent.loop.stages.executor.gatherer.full_now(undo) is None


async def test_a_cordon_stays_while_another_incident_plans_on_the_node(tmp_path: Path) -> None:
    """Two services fail on one node: neither action nor undo for one removes what the other waits for."""
    async with acting(tmp_path, approval_for_risks=["medium"]) as (stage, _):
        stage.deploy("cart", "cart:1", replicas=4)
        await stage.live(180)
        node = stage.world.nodes[0]
        stops_being_ready(stage, lambda pod: pod.node == node)
        cart = ServiceKey(environment=NAMESPACE, service="cart")
        await stage.live_until(lambda r: bool(r.approvals), key=cart)
        shop = await stage.live_until(lambda r: bool(r.approvals))
        assert shop.incident.plan is not None
        undo = restore_of(shop.incident.plan.actions[0])
        assert undo is not None
        executor = stage.agent.loop.stages.executor
        needed = await executor.gatherer.needed_by(shop.incident.id, undo)
        assert needed is not None
        assert needed.endswith(f"of cart in prod still needs the cordon of Node {node}")
        await stage.say(shop.approvals[-1], yes=True)
        done = await stage.live_until(lambda r: any(i.outcome is not None for i in r.intents))
        claim = await stage.agent.store.claims.take(
            done.incident.id, "test", timedelta(minutes=5), stage.clock.now()
        )
        assert claim is not None
        assert not await executor.decide_undo(done, done.intents[0], claim, done.incident, [])
        assert stage.world.surroundings.node(node).cordoned


@pytest.mark.parametrize("dies_after", [None, ActionName.DELETE_STUCK_POD])
async def test_a_stuck_pod_is_deleted_once(tmp_path: Path, dies_after: ActionName | None) -> None:
    """After a crash the pod that is gone is the proof: no other pod is deleted."""
    async with acting(tmp_path, dies_after, probes=True) as (stage, writer):
        oldest = min(pod.meta.name for pod in stage.world.api.list(Pod))
        [stuck] = stops_being_ready(stage, lambda pod: pod.meta.name == oldest)
        record = await ended(stage, dies_after)
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, told
        [intent] = record.intents
        assert intent.action.name is ActionName.DELETE_STUCK_POD
        assert intent.action.target is not None
        assert intent.action.target.name == stuck
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.DONE
        assert writer.effects == [intent.id]
        assert stuck not in {pod.meta.name for pod in stage.world.api.list(Pod)}


async def test_actions_that_are_off_by_default_hand_the_incident_over(tmp_path: Path) -> None:
    """Without them in ENABLED_ACTIONS the runbook that escalates is chosen, and says why."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(replicas=4)
        await stage.live(180)
        node = stage.world.nodes[0]
        stops_being_ready(stage, lambda pod: pod.node == node)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, told
        assert record.incident.plan is not None
        assert record.incident.plan.runbook == "escalate-node-failure@2"
        assert record.intents == ()
        assert "cordon is not among ENABLED_ACTIONS" in record.incident.summary
        assert "escalates the incident to a person" in told

"""Undo and verification: scenarios on the simulated cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from app.agent.ids import IntentId
from app.agent.models import (
    Action,
    ActionName,
    IncidentRecord,
    IncidentState,
    Snapshot,
    Verification,
)
from app.agent.workload import RevisionHealth, TargetState
from app.bootstrap import Adapters
from app.sandbox.objects import Template
from app.sandbox.world import AUTOSCALER
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
from tests.test_loop import CART, ReadAtStart, greeting, innocent_configuration_beside_a_dying_dependency

REFUSED = "pods need a signed image"


@dataclass
class Upsetting:
    """A writer beside which something happens, right before or after an action of one kind."""

    inner: Any
    stage: Any
    on: ActionName
    what: Any
    before: bool = False

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        hit = action.name is self.on
        if hit and self.before:
            self.what(self.stage[0])
        after: TargetState = await self.inner.apply(action, intent_id, target, snapshot)
        if hit and not self.before:
            self.what(self.stage[0])
        return after


@asynccontextmanager
async def upset(
    folder: Path, on: ActionName, what: Any, *, before: bool = False, **settings: Any
) -> AsyncIterator[Story]:
    """A story in which `what` happens to the stage with the first action of that kind."""
    stages: list[Story] = []

    def connected(world: Adapters) -> Adapters:
        writer = Upsetting(inner=world.writer, stage=stages, on=on, what=what, before=before)
        return replace(world, writer=writer)

    async with story(folder, connected=connected, **{**ACTING, **settings}) as stage:
        stages.append(stage)
        stage.deploy(replicas=4, max_surge=0.0, max_unavailable=0.5)
        await stage.live(180)
        yield stage


def _refuse(stage: Story) -> None:
    stage.world.refuse_pods(NAMESPACE, REFUSED)


def _actions(record: IncidentRecord) -> list[ActionName]:
    return [i.action.name for i in record.intents if i.started_at is not None]


# ---------------------------------------------------------------- what runs


async def test_a_revert_whose_restart_could_make_no_pods_is_not_begun(tmp_path: Path) -> None:
    """Both are rehearsed together: pods that run stay, and the record says what refuses new ones."""
    async with story(
        tmp_path, connected=lambda world: replace(world, reader=ReadAtStart(world.reader)), **ACTING
    ) as stage:
        await innocent_configuration_beside_a_dying_dependency(stage)
        _refuse(stage)
        record = await stage.live_until_ended(key=CART)
        assert record.incident.state is IncidentState.ESCALATED
        assert _actions(record) == []
        assert greeting(stage) == "hi"
        told = messages(record.timeline)
        assert "restart, which completes it, would be refused: new pods would be refused" in told
        assert REFUSED in told
        (deployment,) = stage.world.deployments(NAMESPACE, "cart")
        assert deployment.status.available == 3


async def test_an_undo_whose_pods_would_be_refused_is_not_done_and_says_how_many_are_there(
    tmp_path: Path,
) -> None:
    """Pods have been refused since the rollback: putting the template back would only take more away."""
    async with upset(tmp_path, ActionName.ROLLBACK, _refuse) as stage:
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert _actions(record) == [ActionName.ROLLBACK]
        told = messages(record.timeline)
        assert "Not undone: the API server would reject it: new pods would be refused" in told
        assert "2 of 4 replicas are available; FailedCreate" in told


async def test_an_undo_is_not_verified_by_the_specification_alone(tmp_path: Path) -> None:
    """The template is back, and its pods are refused: that is said with figures, and a person is asked."""
    async with upset(tmp_path, ActionName.RESTORE, _refuse, before=True) as stage:
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert stage.image() == "shop:2"
        assert record.incident.state is IncidentState.ESCALATED
        assert "Undo verified" not in told
        assert (
            "Undo not verified: Deployment prod/shop has its specification from before rollback, "
            "but 2 of 4 replicas are available (4 before); FailedCreate" in told
        )
        assert "undoing it did not restore the service: 2 of 4 replicas are available" in (
            record.incident.summary
        )


async def test_an_undo_waits_for_its_pods_and_goes_on_after_a_crash(tmp_path: Path) -> None:
    """Pods come late, once the policy is lifted: only then is the undo verified."""
    async with upset(tmp_path, ActionName.RESTORE, _refuse, before=True) as stage:
        await innocent_release_beside_a_dying_dependency(stage)

        def waits(record: IncidentRecord) -> bool:
            seen, last = record.incident.verification, record.intents[-1:]
            return seen is not None and bool(last) and seen.intent_id == last[0].id and bool(last[0].undoes)

        waiting = await stage.live_until(waits)
        assert isinstance(waiting.incident.verification, Verification)
        await stage.restart()
        await stage.live(60)
        assert "Undo verified" not in messages((await stage.load(waiting.incident.id)).timeline)
        stage.world.refuse_pods(NAMESPACE, None)
        record = await stage.live_until_ended()
        assert "Undo verified: Deployment prod/shop" in messages(record.timeline)
        assert "4 of 4 replicas are available (4 before)" in messages(record.timeline)


# ---------------------------------------------------------------- whose change


async def test_an_undo_does_not_bring_an_outage_back(tmp_path: Path) -> None:
    """No pod served before the rollback; a dependency that fails since is no reason to crash again."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(max_surge=0.0, max_unavailable=1.0)
        stage.deploy("db", "db:1")
        stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
        await stage.live(240)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        while stage.image() != "shop:1":
            await stage.live(5)
        stage.world.set_replicas(NAMESPACE, "db", 0)
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert [i.action.name for i in record.intents] == [ActionName.ROLLBACK]
        assert record.intents[0].snapshot is not None
        assert record.intents[0].snapshot.available == 0
        assert stage.image() == "shop:1"
        assert "Not undone: no replica was available before rollback" in messages(record.timeline)


async def test_an_autoscaler_does_not_hold_an_undo_off_and_keeps_its_replicas(tmp_path: Path) -> None:
    """The template is the agent's to put back; the replicas that came since are the autoscaler's."""

    def scaled(stage: Story) -> None:
        stage.world.autoscale(NAMESPACE, SERVICE, 6)

    async with upset(tmp_path, ActionName.ROLLBACK, scaled) as stage:
        await innocent_release_beside_a_dying_dependency(stage)
        record = await stage.live_until_ended()
        assert _actions(record) == [ActionName.ROLLBACK, ActionName.RESTORE], messages(record.timeline)
        assert stage.image() == "shop:2"
        (deployment,) = stage.world.deployments(NAMESPACE, SERVICE)
        assert (deployment.replicas, deployment.meta.changers["replicas"]) == (6, AUTOSCALER)
        assert "Undo verified" in messages(record.timeline)
        assert "changed since" not in messages(record.timeline)


async def test_the_revision_that_was_left_is_failed_though_an_autoscaler_moved_the_replicas(
    tmp_path: Path,
) -> None:
    """What a helpful rollback left is never gone back to, whatever else moved meanwhile."""

    def scaled(stage: Story) -> None:
        stage.world.autoscale(NAMESPACE, SERVICE, 6)

    async with upset(tmp_path, ActionName.ROLLBACK, scaled) as stage:
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        known = {r.health for r in await stage.agent.store.history.revisions(KEY)}
        assert RevisionHealth.FAILED in known


# ---------------------------------------------------------------- served well


async def test_a_release_without_requests_is_not_gone_back_to(tmp_path: Path) -> None:
    """It fails half of its requests, and had none: the one before it answered thousands."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(300)
        stage.world.traffic.serve(NAMESPACE, SERVICE, 0.0)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        await stage.live(900)
        trusted = [
            r
            for r in await stage.agent.store.history.revisions(KEY)
            if r.health is RevisionHealth.SERVED_WELL
        ]
        assert [r.number for r in trusted] == [1]
        stage.world.release(NAMESPACE, SERVICE, "shop:3-crash")
        stage.world.traffic.serve(NAMESPACE, SERVICE, 50.0)
        await stage.live_until_ended()
        assert stage.image() == "shop:1"


async def test_a_workload_without_requests_is_trusted_where_its_owners_say_so(tmp_path: Path) -> None:
    """A queue's worker has no requests to show."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy(
            "worker",
            "worker:1",
            template=Template(image="worker:1"),
            requests_per_second=0.0,
            annotations={"self-healing-devops-agent/trust-without-traffic": "true"},
        )
        stage.deploy("silent", "silent:1", requests_per_second=0.0)
        await stage.live(300)
        store = stage.agent.store
        [known] = await store.history.revisions(structs.replace(KEY, service="worker"))
        assert known.health is RevisionHealth.SERVED_WELL
        assert await store.history.revisions(structs.replace(KEY, service="silent")) == ()

"""The whole loop on workloads of every kind: healed where the kind allows it, else handed to a person."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.ids import ServiceKey
from app.agent.models import ActionName, DecisionKind, IncidentRecord, IncidentState
from app.agent.ports.cluster import ClusterWriter
from app.bootstrap import Adapters
from app.sandbox.objects import DaemonSet, Deployment, Pod, StatefulSet
from tests.gitops_stories import Died, Fuse, Fused, FusedStore
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, messages, story


@pytest.fixture
async def acting(tmp_path: Path) -> AsyncIterator[Story]:
    """An agent that may act, in an empty world."""
    async with story(tmp_path, **ACTING) as stage:
        yield stage


@pytest.mark.parametrize("kind", [StatefulSet, DaemonSet])
async def test_a_release_that_crashes_is_rolled_back_on_every_kind(
    acting: Story, kind: type[Deployment]
) -> None:
    """Seen by the watcher, diagnosed, rolled back by its ControllerRevision, verified over a soak."""
    acting.deploy(kind=kind)
    await acting.live(180)
    acting.world.release(NAMESPACE, SERVICE, "shop:2-crash")
    record = await acting.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED
    [intent] = record.intents
    assert intent.action.name is ActionName.ROLLBACK
    assert intent.action.target is not None
    assert intent.action.target.kind == kind.__name__
    assert acting.world.api.workload(NAMESPACE, SERVICE).template.image == "shop:1"


CRASHED, BEFORE = "shop:2-crash", "shop:1"


TOO_LITTLE = "16Mi"
"""A container with this memory limit is killed when it starts."""


async def _ordered_and_stuck(stage: Story, break_it: Callable[[Story], None] | None = None) -> IncidentRecord:
    """An ordered StatefulSet whose update stops at its first pod, and how that ended."""
    stage.deploy(kind=StatefulSet, ordered=True)
    await stage.live(180)
    (break_it or _releases)(stage)
    return await stage.live_until_ended()


def _releases(stage: Story) -> None:
    stage.world.release(NAMESPACE, SERVICE, CRASHED)


def _lowers_the_limit(stage: Story) -> None:
    stage.world.set_memory_limit(NAMESPACE, SERVICE, TOO_LITTLE)


def _taken(record: IncidentRecord) -> list[ActionName]:
    return [intent.action.name for intent in record.intents]


def _written(stage: Story) -> list[tuple[str, str]]:
    return [(one.verb, one.name) for one in stage.world.api.audit if one.manager != "pipeline"]


async def test_the_rollback_of_an_ordered_stateful_set_deletes_the_pod_that_it_does_not_reach(
    tmp_path: Path,
) -> None:
    """Policy decides on both; the rollback is first, and both get one verdict and one lesson."""
    enabled = ENABLED_BY_DEFAULT | {ActionName.DELETE_STUCK_POD}
    async with story(tmp_path, **ACTING, enabled_actions=enabled) as stage:
        record = await _ordered_and_stuck(stage)
        assert record.incident.state is IncidentState.RECOVERED
        assert _written(stage) == [("patch", SERVICE), ("delete", f"{SERVICE}-2")]
        assert [intent.action.name for intent in record.intents] == [
            ActionName.ROLLBACK,
            ActionName.DELETE_STUCK_POD,
        ]
        assert all(intent.decision.kind is DecisionKind.ALLOW for intent in record.intents)
        assert {pod.template.image for pod in stage.world.api.list(Pod)} == {BEFORE}
        assert "roll-back-bad-release@2 helped" in messages(record.timeline)


async def test_without_the_right_setting_a_person_is_asked_to_delete_the_pod(acting: Story) -> None:
    """Nothing is changed: a rollback alone would not take effect."""
    record = await _ordered_and_stuck(acting)
    assert record.incident.state is IncidentState.ESCALATED
    assert _written(acting) == []
    said = messages(record.timeline)
    assert "delete_stuck_pod is not among ENABLED_ACTIONS" in said
    assert f"kubectl -n {NAMESPACE} delete pod {SERVICE}-2" in said


async def test_a_reverted_limit_of_an_ordered_stateful_set_reaches_the_pod_that_it_broke(
    tmp_path: Path,
) -> None:
    """The configuration inside the template is restored, then the pod is deleted; the code is unchanged."""
    enabled = ENABLED_BY_DEFAULT | {ActionName.DELETE_STUCK_POD}
    async with story(tmp_path, **ACTING, enabled_actions=enabled) as stage:
        record = await _ordered_and_stuck(stage, _lowers_the_limit)
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert _written(stage) == [("patch", SERVICE), ("delete", f"{SERVICE}-2")]
        assert _taken(record) == [ActionName.REVERT_CONFIG, ActionName.DELETE_STUCK_POD]
        assert {pod.template.memory_limit for pod in stage.world.api.list(Pod)} == {"256Mi"}


async def test_a_revert_that_would_not_reach_the_pod_is_left_to_a_person(acting: Story) -> None:
    """While delete_stuck_pod is off, nothing is written, and the escalation holds the line to copy."""
    record = await _ordered_and_stuck(acting, _lowers_the_limit)
    assert record.incident.state is IncidentState.ESCALATED
    assert _written(acting) == []
    assert f"kubectl -n {NAMESPACE} delete pod {SERVICE}-2" in messages(record.timeline)


def _only(directory: Path, name: str) -> Path:
    """A folder with one of the shipped runbooks."""
    folder = directory / "runbooks"
    folder.mkdir()
    shutil.copy(Path(__file__).parents[1] / "runbooks" / f"{name}.yaml", folder)
    return folder


RAISES = ENABLED_BY_DEFAULT | {ActionName.DELETE_STUCK_POD, ActionName.RAISE_MEMORY_LIMIT}


async def test_a_raised_memory_limit_reaches_the_pod_that_its_controller_waits_for(tmp_path: Path) -> None:
    """Its only pod is killed at every start: the limit is raised, and the pod is deleted after it."""
    runbooks = _only(tmp_path, "raise-memory-limit")
    async with story(tmp_path, **ACTING, enabled_actions=RAISES, runbooks_dir=runbooks) as stage:
        stage.deploy(kind=StatefulSet, ordered=True, replicas=1)
        await stage.live(180)
        stage.world.set_memory_limit(NAMESPACE, SERVICE, "30Mi")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert _written(stage) == [("patch", SERVICE), ("delete", f"{SERVICE}-0")]
        assert _taken(record) == [ActionName.RAISE_MEMORY_LIMIT, ActionName.DELETE_STUCK_POD]
        assert {pod.template.memory_limit for pod in stage.world.api.list(Pod)} == {"45Mi"}


BETWEEN = (
    "writer.apply#1:after",
    "intents.finish#1:before",
    "intents.finish#1:after",
    "intents.add#2:before",
    "intents.add#2:after",
    "intents.begin#2:after",
    "writer.apply#2:before",
    "writer.apply#2:after",
    "intents.finish#2:after",
)
"""Where the process ends: from the change of the template to the record of the deletion."""


@pytest.mark.parametrize(
    ("break_it", "point"),
    [(_releases, one) for one in BETWEEN] + [(_lowers_the_limit, one) for one in BETWEEN[2::3]],
)
async def test_a_process_that_is_killed_between_change_and_deletion_is_continued(
    tmp_path: Path, break_it: Callable[[Story], None], point: str
) -> None:
    """The same end as without the kill: one patch and one deletion, made or adopted by the successor."""
    fuse = Fuse(point, armed=True)

    def connected(world: Adapters) -> Adapters:
        return replace(world, writer=cast("ClusterWriter", Fused(world.writer, fuse, "writer", ("apply",))))

    async with story(
        tmp_path,
        connected=connected,
        shaken_store=lambda store: FusedStore(store, fuse),
        **ACTING,
        enabled_actions=ENABLED_BY_DEFAULT | {ActionName.DELETE_STUCK_POD},
    ) as stage:
        with pytest.raises(Died):
            await _ordered_and_stuck(stage, break_it)
        await stage.restart()
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert _written(stage) == [("patch", SERVICE), ("delete", f"{SERVICE}-2")]
        assert record.intents[0].attempts == 1
        assert all(pod.ready for pod in stage.world.api.list(Pod))


async def test_both_workloads_of_a_chart_are_watched_and_only_the_faulty_one_is_changed(
    acting: Story,
) -> None:
    """The components share the label `app.kubernetes.io/name`."""
    acting.deploy("shop-web", service="shop")
    acting.deploy("shop-db", service="shop", kind=StatefulSet)
    await acting.live(180)
    acting.world.release(NAMESPACE, "shop-db", "shop:2-crash")
    key = ServiceKey(environment=NAMESPACE, service="shop-db")
    record = await acting.live_until_ended(key=key)
    assert record.incident.state is IncidentState.RECOVERED
    assert acting.world.api.workload(NAMESPACE, "shop-db").template.image == "shop:1"
    changed = {entry.name for entry in acting.world.api.audit if entry.manager != "pipeline"}
    assert changed == {"shop-db"}

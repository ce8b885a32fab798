"""The whole loop on workloads of every kind: healed where the kind allows it, else handed to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.ids import ServiceKey
from app.agent.models import ActionName, DecisionKind, IncidentRecord, IncidentState
from app.sandbox.objects import DaemonSet, Deployment, Pod, StatefulSet
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


async def _ordered_and_stuck(stage: Story) -> IncidentRecord:
    """An ordered StatefulSet whose update stops at its first pod, and how that ended."""
    stage.deploy(kind=StatefulSet, ordered=True)
    await stage.live(180)
    stage.world.release(NAMESPACE, SERVICE, CRASHED)
    return await stage.live_until_ended()


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

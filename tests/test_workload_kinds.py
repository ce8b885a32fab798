"""The whole loop on workloads of every kind: healed where the kind allows it, else handed to a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.agent.ids import ServiceKey
from app.agent.models import ActionName, IncidentState
from app.sandbox.objects import DaemonSet, Deployment, StatefulSet
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, story


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

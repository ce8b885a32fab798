"""What the cluster itself shows, from the watch to the end of the incident: no outside sender is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.agent.models import Cause, Deploy, DeployStatus, IncidentRecord, IncidentState, Trigger
from app.sandbox.objects import Template
from tests.stories import ACTING, NAMESPACE, SERVICE, Story, story


def ended(record: IncidentRecord) -> bool:
    return record.incident.state.closed


def cause_of(record: IncidentRecord) -> Cause:
    assert record.incident.diagnosis is not None
    return record.incident.diagnosis.best.cause


def said(record: IncidentRecord) -> str:
    return "\n".join(entry.message for entry in record.timeline)


async def settled(stage: Story, **changes: Any) -> None:
    """A service whose revision has served long enough to be a rollback target."""
    stage.deploy(**changes)
    await stage.live(180)
    assert await stage.newest() is None


async def test_a_deleted_config_map_is_named_and_nothing_is_rolled_back(tmp_path: Path) -> None:
    """One pod is rescheduled and cannot start; the others serve, so it is degraded, and people get a name."""
    async with story(tmp_path, **ACTING) as stage:
        stage.world.put_config_map(NAMESPACE, "shop-settings", {"A": "1"})
        await settled(stage, template=Template(image="shop:1", config_maps=("shop-settings",)))
        stage.world.delete_config_map(NAMESPACE, "shop-settings")
        stage.world.evict(NAMESPACE, SERVICE)
        record = await stage.live_until(ended)
    assert record.incident.triggers == (Trigger.PODS_UNAVAILABLE,)
    assert record.incident.state is IncidentState.ESCALATED
    assert cause_of(record) is Cause.MISSING_CONFIGURATION
    assert record.intents == ()
    assert "ConfigMap shop-settings does not exist" in said(record)
    assert "2 of 3 replicas serve" in said(record)
    assert "ConfigMap shop-settings does not exist" in record.incident.summary
    assert record.incident.summary.endswith("To inspect: kubectl -n prod get configmap shop-settings")


async def test_a_registry_that_fails_for_forty_seconds_is_waited_out(tmp_path: Path) -> None:
    """The rollout ends by itself, without an event."""
    async with story(tmp_path, **ACTING) as stage:
        await settled(stage)
        stage.world.set_registry(answers=False)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(40)
        stage.world.set_registry(answers=True)
        await stage.live(300)
        assert await stage.newest() is None


async def test_a_failed_deploy_is_not_judged_while_the_registry_may_come_back(tmp_path: Path) -> None:
    """A pipeline gives up sooner than a cluster: no rollback and no escalation, and the service recovers."""
    async with story(tmp_path, **ACTING) as stage:
        await settled(stage)
        stage.world.set_registry(answers=False)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(15)
        await stage.tell(Deploy(version="2", status=DeployStatus.FAILED))
        report = await stage.agent.loop.run_once(SERVICE, NAMESPACE)
        assert len(report.passes) == 1
        await stage.live(25)
        stage.world.set_registry(answers=True)
        record = await stage.live_until(ended)
    assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION
    assert record.intents == ()
    assert said(record).count("for the registry") == 1


async def test_a_registry_that_stays_down_is_handed_to_people(tmp_path: Path) -> None:
    """Right after a release, and still no rollback: the older revision's image could not be pulled either."""
    async with story(tmp_path, **ACTING) as stage:
        await settled(stage)
        stage.world.set_registry(answers=False)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        record = await stage.live_until(ended)
    assert record.incident.state is IncidentState.ESCALATED
    assert cause_of(record) is Cause.REGISTRY_FAILURE
    assert record.intents == ()
    assert "the registry does not answer" in said(record)


async def test_pods_that_are_refused_after_an_ordinary_release_are_handed_to_people(tmp_path: Path) -> None:
    """A policy that came after the template refuses every revision's pods."""
    async with story(tmp_path, **ACTING) as stage:
        await settled(stage)
        stage.world.refuse_pods(NAMESPACE, "exceeded quota: team, requested: pods=1, used: pods=3")
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        record = await stage.live_until(ended)
    assert record.incident.state is IncidentState.ESCALATED
    assert cause_of(record) is Cause.ADMISSION_REFUSAL
    assert record.intents == ()
    assert "exceeded quota: team" in said(record)

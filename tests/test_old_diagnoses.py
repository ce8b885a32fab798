"""A diagnosis is not older than evidence may be: before later actions of a plan and after late approvals."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import (
    ActionName,
    Cause,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentRecord,
    IncidentState,
    SliSample,
)
from app.agent.stages.diagnosing import changed_cause, diagnosed
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
from tests.test_reasons import HOURS, UNCOUNTED, Metrics, alert, fire, innocent, nothing_began

TWO_STEPS = """
schema: 1
id: roll-back-and-restart
version: {version}
title: Roll back a bad release, then restart
causes: [bad_release]
min_confidence: 0.5
steps:
  - action: rollback
    parameters:
      to: previous_healthy
  - action: restart
"""
MAX_AGE = timedelta(seconds=300)


def runbooks(folder: Path, version: int = 1) -> Path:
    """A folder with one runbook of two steps."""
    folder = folder / f"runbooks-{version}"
    folder.mkdir()
    (folder / "two.yaml").write_text(TWO_STEPS.format(version=version))
    return folder


async def first_step_taken(stage: Story) -> IncidentRecord:
    """The first action is done and will not help: it is verified for as long as evidence may be old."""
    stage.deploy()
    await stage.live(180)
    await innocent_release_beside_a_dying_dependency(stage)
    record = await stage.live_until(lambda r: r.incident.state is IncidentState.VERIFYING)
    assert begun(record) == [ActionName.ROLLBACK]
    return record


def begun(record: IncidentRecord) -> list[ActionName]:
    return [i.action.name for i in record.intents if i.started_at is not None and i.undoes is None]


async def test_a_second_action_rests_on_a_diagnosis_of_its_own_time(tmp_path: Path) -> None:
    """It is diagnosed again, and begins because the new diagnosis supports the same plan."""
    async with story(tmp_path, runbooks_dir=runbooks(tmp_path), **ACTING) as stage:
        before = await first_step_taken(stage)
        record = await stage.live_until_ended()
        assert begun(record) == [ActionName.ROLLBACK, ActionName.RESTART], messages(record.timeline)
        assert record.incident.plan is not None
        assert before.incident.plan is not None
        assert record.incident.plan.hash == before.incident.plan.hash
        assert before.incident.diagnosis is not None
        assert record.incident.diagnosis is not None
        decided = record.intents[-1].decision.at
        assert decided - before.incident.diagnosis.at > MAX_AGE
        assert decided - record.incident.diagnosis.at <= MAX_AGE
        assert messages(record.timeline).count("The new diagnosis supports the same plan") == 1


async def test_a_second_action_without_a_diagnosis_that_supports_it_does_not_begin(tmp_path: Path) -> None:
    """The runbook was replaced meanwhile: the plan that rests on it goes no further."""
    async with story(tmp_path, runbooks_dir=runbooks(tmp_path), **ACTING) as stage:
        await first_step_taken(stage)
        await stage.restart(runbooks_dir=runbooks(tmp_path, version=2))
        record = await stage.live_until_ended()
        assert begun(record) == [ActionName.ROLLBACK], messages(record.timeline)
        assert "roll-back-and-restart@1 is no longer an approved runbook" in messages(record.timeline)


async def test_a_late_approval_of_a_plan_that_is_not_supported_any_more_is_not_used(tmp_path: Path) -> None:
    """The reason is fresh, the approval binds; the diagnosis does not lead to that plan now."""
    rules = runbooks(tmp_path)
    async with innocent(tmp_path, approval_for_risks=frozenset({"high"}), runbooks_dir=rules) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.4, p95_latency_ms=80.0)
        await fire(setting)
        asked = await setting.stage.live_until_asked()
        await setting.stage.clock.advance(HOURS)
        await setting.stage.restart(runbooks_dir=runbooks(tmp_path, version=2))
        await setting.stage.say(asked, yes=True)
        await setting.stage.live(60)
        record = await setting.stage.load(asked.incident_id)
        assert setting.untouched, messages(record.timeline)
        assert nothing_began(record)
        assert "and the new diagnosis does not support the plan" in messages(record.timeline)


async def test_a_late_approval_is_used_on_a_diagnosis_of_its_own_time(tmp_path: Path) -> None:
    """The new diagnosis supports the plan that people approved: its hash and its target stay."""
    async with innocent(tmp_path, approval_for_risks=frozenset({"high"})) as setting:
        setting.metrics.says = lambda at: SliSample(at=at, error_rate=0.4, p95_latency_ms=80.0)
        await fire(setting)
        asked = await setting.stage.live_until_asked()
        await setting.stage.clock.advance(HOURS)
        await setting.stage.say(asked, yes=True)
        record = await setting.stage.live_until(lambda r: bool(r.intents))
        (intent,) = record.intents
        assert intent.approval == asked.id
        assert intent.decision.plan_hash == asked.plan_hash
        assert record.incident.diagnosis is not None
        assert intent.decision.at - record.incident.diagnosis.at <= MAX_AGE


def test_a_cause_that_changed_is_named_and_is_the_summary() -> None:
    """The same plan may be for another cause than the one that people were asked about."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    before = replace(
        incident_with(Cause.BAD_RELEASE, now), summary="Most likely bad release", opened_at=now - MAX_AGE
    )
    newer = diagnosis_of(Cause.MEMORY_LEAK, now)
    assert changed_cause(before, newer) == (" The most likely cause changed from bad release to memory leak.")
    assert changed_cause(before, diagnosis_of(Cause.BAD_RELEASE, now)) == ""
    after = diagnosed(before, newer, now)
    assert (after.diagnosis, after.summary) == (newer, "Most likely memory leak (90%): because.")


def diagnosis_of(cause: Cause, at: datetime) -> Diagnosis:
    found = Hypothesis(cause=cause, confidence=0.9, rule="test", evidence_for=("because",))
    return Diagnosis(hypotheses=(found,), at=at)


def incident_with(cause: Cause, at: datetime) -> Incident:
    return Incident(
        id=IncidentId("inc_1"),
        key=KEY,
        state=IncidentState.AWAITING_APPROVAL,
        opened_at=at,
        triggers=(),
        stale=False,
        dry_run=False,
        diagnosis=diagnosis_of(cause, at),
    )


@dataclass
class SlowMetrics(Metrics):
    """A metric source that takes longer to answer than evidence may be old."""

    stages: list[Story] = field(default_factory=list)
    gathered: list[datetime] = field(default_factory=list)
    slow: bool = False

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        if self.slow:
            self.gathered.append(end)
            await self.stages[0].clock.advance(15)
        return ()


@pytest.mark.parametrize("asking", [frozenset({"high"}), frozenset()])
async def test_evidence_that_ages_faster_than_it_is_gathered_ends_the_incident(
    tmp_path: Path, asking: frozenset[str]
) -> None:
    """A pass diagnoses once; the passes that follow come with pauses, and a person is asked in the end."""
    metrics = SlowMetrics()
    async with story(
        tmp_path,
        connected=lambda world: replace(world, metrics=metrics),
        evidence_max_age_seconds=12,
        approval_for_risks=asking,
        **UNCOUNTED,
    ) as stage:
        metrics.stages.append(stage)
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(10)
        metrics.says = lambda at: SliSample(at=at, error_rate=0.4, p95_latency_ms=80.0)
        await stage.tell(alert(starts_at=stage.clock.now()))
        if asking:
            asked = await stage.live_until_asked()
            await stage.say(asked, yes=True)
            await stage.clock.advance(13)
        metrics.slow = True
        started = stage.clock.now()
        record = await stage.live_until_ended()
        told = messages(record.timeline)
        assert nothing_began(record), told
        assert "failed permanently: the diagnosis is 15 s old" in record.incident.summary, told
        assert "(EVIDENCE_MAX_AGE_SECONDS)" in record.incident.summary
        assert len(metrics.gathered) <= (stage.clock.now() - started) / timedelta(seconds=15 + 5) + 1, told

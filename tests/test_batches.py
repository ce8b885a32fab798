"""A failed Job in the loop: an incident of its own batch, and one repetition verified by its condition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from app.agent.batch.repeats import REPEATS, SAFE_TO_REPEAT, name_of_repeat
from app.agent.batch.runs import CRON_JOB, RunState, batch_key
from app.agent.ids import IntentId
from app.agent.models import (
    Action,
    ActionName,
    Cause,
    ClusterCondition,
    Condition,
    IncidentRecord,
    IncidentState,
    Snapshot,
    Trigger,
    VerdictKind,
)
from app.agent.ports.cluster import ClusterWriter
from app.agent.workload import LogTail, ObjectRef, TargetState
from app.bootstrap import Adapters
from app.errors import Forbidden, UnknownOutcome
from app.sandbox.jobs import CronJob
from app.sandbox.objects import Job, Template
from app.sandbox.operations import FIELD_MANAGER, MARKER
from app.sandbox.world import ContainerLog
from app.workers.batches.watcher import BatchWatcher
from tests.stories import ACTING, KEY, NAMESPACE, STEP_SECONDS, Story, messages, story
from tests.test_interruptions import Killed

ENABLED = frozenset({ActionName.RERUN_JOB, ActionName.NOTIFY})
REPORT = batch_key(NAMESPACE, CRON_JOB, "report")
GOOD, CRASHING = "report:1", "report:2-crash"
Wrapped = Callable[[ClusterWriter], ClusterWriter]


@dataclass
class Breaks:
    """A writer over which the process dies, or an answer is lost, right after the effect."""

    inner: ClusterWriter
    lost: bool
    done: bool = False

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        state = await self.inner.apply(action, intent_id, target, snapshot)
        if not self.done:
            self.done = True
            raise UnknownOutcome("no answer") if self.lost else Killed
        return state


@asynccontextmanager
async def batches(
    directory: Path,
    wrapped: Wrapped = lambda writer: writer,
    also: Callable[[Adapters, _Batches], Adapters] = lambda world, _: world,
    **settings: Any,
) -> AsyncIterator[Story]:
    """An agent that may repeat Jobs, beside a healthy service that shares the label of the batch."""
    merged = {**ACTING, "enabled_actions": ENABLED, **settings}
    stages: list[Story] = []

    def connected(world: Adapters) -> Adapters:
        writer = None if world.writer is None else wrapped(world.writer)
        found = _Batches(stages)
        return also(replace(world, writer=writer, batches=found), found)

    async with story(directory, connected=connected, **merged) as stage:
        stages.append(stage)
        stage.deploy()
        await stage.live(180)
        yield stage


@dataclass
class _Batches:
    """The batches of the world of a story, which is made after its adapters."""

    stages: list[Story]
    refused: Callable[..., Awaitable[NoReturn]] | None = None
    """Answers instead of `failures`."""

    def __getattr__(self, name: str) -> Any:
        if name == "failures" and self.refused is not None:
            return self.refused
        return getattr(self.stages[0].cluster.batches, name)


@dataclass
class _Logs:
    """The logs of the world of a story."""

    stages: list[Story]

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        return await self.stages[0].cluster.logs.tail(pod, container, previous=previous)


def watcher(stage: Story) -> BatchWatcher:
    return BatchWatcher(
        reader=stage.cluster.batches,
        signals=stage.agent.store.signals,
        intake=stage.agent.intake,
        clock=stage.clock,
        stale_after=stage.agent.stale_after,
    )


def runs(stage: Story, name: str, image: str, **changes: Any) -> Job:
    stage.world.catch_up()
    return stage.world.jobs.start(NAMESPACE, name, Template(image=image), cron_job="report", **changes)


def repetitions(stage: Story) -> list[Job]:
    return [job for job in stage.world.api.list(Job) if REPEATS in job.meta.labels]


async def fails(stage: Story, *, safe: bool = True, before: RunState | None = RunState.COMPLETE) -> Job:
    """A run of the CronJob fails after one that completed."""
    marks = {SAFE_TO_REPEAT: "true"} if safe else {}
    stage.world.jobs.cron_jobs[NAMESPACE, "report"] = CronJob(name="report", annotations=marks)
    if before is not None:
        runs(stage, "report-1", GOOD if before is RunState.COMPLETE else CRASHING)
        await stage.live(40)
    failed = runs(stage, "report-2", CRASHING)
    await stage.live(40)
    stage.world.catch_up()
    assert failed.state is RunState.FAILED
    return failed


async def look(stage: Story, seconds: float, one: BatchWatcher | None = None) -> IncidentRecord:
    """Let time pass with the batch watcher beside the others; the newest incident of the batch."""
    one = one or watcher(stage)
    for _ in range(int(seconds / STEP_SECONDS)):
        await one.look()
        await stage.live(STEP_SECONDS)
        found = await stage.newest(REPORT)
        if found is not None and found.incident.state.closed:
            break
    record = await stage.newest(REPORT)
    assert record is not None
    return record


@pytest.mark.parametrize("lost", [None, False, True])
async def test_a_failed_run_is_repeated_once_and_verified_by_its_end(
    tmp_path: Path, lost: bool | None
) -> None:
    """Killed or unanswered right after the effect, there is still one repetition, and it is adopted."""

    def breaks(writer: ClusterWriter) -> ClusterWriter:
        return writer if lost is None else Breaks(writer, lost)

    async with batches(tmp_path, breaks) as stage:
        failed = await fails(stage)
        failed.template = replace(failed.template, image=GOOD)
        if lost is False:
            with pytest.raises(Killed):
                await look(stage, 120)
            await stage.restart(enabled_actions=ENABLED)
        record = await look(stage, 300)
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.RECOVERED, told
        assert record.incident.triggers == (Trigger.BATCH_FAILED,)
        assert record.incident.diagnosis is not None
        assert record.incident.diagnosis.best.cause is Cause.BATCH_FAILURE
        assert [i.action.name for i in record.intents] == [ActionName.RERUN_JOB]
        (made,) = repetitions(stage)
        assert made.meta.name == name_of_repeat("report-2", failed.meta.uid)
        assert made.meta.annotations[MARKER] == record.intents[0].id
        assert made.cron_job == "report"
        creations = [one for one in stage.world.api.audit if one.manager == FIELD_MANAGER]
        assert [(one.verb, one.kind) for one in creations] == [("create", "Job")]
        assert "the new Job must complete" in told
        assert "Unavailable" not in told
        assert await stage.newest(KEY) is None


async def test_a_repetition_that_fails_is_handed_to_a_person_at_once(tmp_path: Path) -> None:
    """It is not repeated a second time, and nothing waits for the end of a time-out."""
    async with batches(tmp_path) as stage:
        await fails(stage)
        began = stage.clock.now()
        record = await look(stage, 600)
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, told
        assert record.incident.verdict is not None
        assert record.incident.verdict.kind is VerdictKind.NOT_RECOVERED
        assert len(repetitions(stage)) == 1
        assert (stage.clock.now() - began).total_seconds() < 200
        assert "cannot be undone" in told
        again = await look(stage, 120)
        assert again.incident.id == record.incident.id
        assert len(repetitions(stage)) == 1


@pytest.mark.parametrize(
    ("safe", "before", "why"),
    [
        (False, RunState.COMPLETE, "not declared safe to repeat"),
        (True, RunState.FAILED, "confidence"),
    ],
)
async def test_a_run_that_may_do_harm_or_fails_repeatedly_is_handed_over(
    tmp_path: Path, safe: bool, before: RunState, why: str
) -> None:
    """The plan holds the handover and the reason why the run is not repeated."""
    async with batches(tmp_path) as stage:
        await fails(stage, safe=safe, before=before)
        record = await look(stage, 120)
        assert record.incident.state is IncidentState.ESCALATED
        assert record.incident.plan is not None
        assert record.incident.plan.runbook == "escalate-batch-failure@1"
        reasons = {one.runbook: one.reason for one in record.incident.plan.rejected}
        assert why in reasons["rerun-failed-job@1"]
        assert repetitions(stage) == []


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_log_of_a_failed_run_is_evidence(tmp_path: Path, allowed: bool) -> None:
    """Its pattern is in timeline and handover, and of the lines nothing more; unavailable where forbidden."""

    async def refuse(*_: object) -> NoReturn:
        raise Forbidden("forbidden: list pods")

    def logged(world: Adapters, found: _Batches) -> Adapters:
        if not allowed:
            found.refused = refuse
        return replace(world, logs=_Logs(found.stages))

    async with batches(tmp_path, also=logged) as stage:
        await fails(stage, safe=False)
        lines = ("starts", "FATAL password=hunter-two disk of db-7 is full", "FATAL disk of db-9 is full")
        stage.world.container_logs[NAMESPACE, "report-2"] = ContainerLog(current=lines)
        record = await look(stage, 120)
        told = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED
        assert "Handover: run report-2 of CronJob" in told
        assert "logs job/report-2 --all-containers --tail=50" in told
        assert "hunter" not in told
        assert "db-7" not in told
        if allowed:
            assert (
                told.count("log of container app in pod report-2-pod: FATAL disk of <*> is full (1 line)")
                == 2
            )
        else:
            assert "Unavailable: pods of run report-2" in told


async def test_a_dry_run_repeats_nothing(tmp_path: Path) -> None:
    """It rehearses, and says what it would have created."""
    async with batches(tmp_path, dry_run=True) as stage:
        failed = await fails(stage)
        record = await look(stage, 90)
        assert record.intents[0].dry_run
        assert record.intents[0].rehearsal is not None
        assert name_of_repeat("report-2", failed.meta.uid) in record.intents[0].rehearsal.message
        assert repetitions(stage) == []


async def test_a_run_that_completes_meanwhile_leaves_no_reason(tmp_path: Path) -> None:
    """A newer run of the schedule completes before the agent acts: nothing is repeated."""
    async with batches(tmp_path, approval_for_risks=("medium",), approval_timeout_seconds=120) as stage:
        await fails(stage)
        one = watcher(stage)
        await one.look()
        await stage.live_until(lambda r: bool(r.approvals), key=REPORT)
        runs(stage, "report-3", GOOD)
        record = await look(stage, 600, one)
        assert record.incident.state is IncidentState.RECOVERED_WITHOUT_ACTION, messages(record.timeline)
        assert repetitions(stage) == []


async def test_a_restart_reports_no_failure_twice(tmp_path: Path) -> None:
    """Failed Jobs are kept for days; each is news once."""
    async with batches(tmp_path) as stage:
        await fails(stage)
        assert len(await watcher(stage).look()) == 1
        assert await watcher(stage).look() == ()


async def test_a_failure_of_hours_ago_opens_nothing(tmp_path: Path) -> None:
    """The agent was installed, or allowed to read Jobs, after it."""
    async with batches(tmp_path) as stage:
        await fails(stage)
        await stage.clock.advance(3 * 3600)
        assert await watcher(stage).look() == ()


async def test_a_process_that_looks_again_asks_what_others_reported_meanwhile(tmp_path: Path) -> None:
    """Elected for the second time: what it knew of its first term would hide a failed run."""
    async with batches(tmp_path) as stage:
        await fails(stage, safe=False)
        first, other = watcher(stage), watcher(stage)
        await first.look()
        runs(stage, "report-3", GOOD)
        await stage.live(40)
        [cleared] = await other.look()
        assert isinstance(cleared.payload, ClusterCondition)
        assert not cleared.payload.present
        runs(stage, "report-4", CRASHING)
        await stage.live(40)
        term = asyncio.create_task(first.run())
        await stage.live(40)
        term.cancel()
        levels = await stage.agent.store.signals.levels(REPORT)
        assert levels is not None
        assert Condition.JOB_FAILED in levels.conditions

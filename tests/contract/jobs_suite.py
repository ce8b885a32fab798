"""What every cluster promises about Jobs: batches and their runs, and the one repetition of a failed run.

A test module of an adapter imports these tests with `*`, beside those of `cluster_suite`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from app.agent.batch.repeats import REPEATS, name_of_repeat
from app.agent.batch.runs import BatchView, RunState, batch_key
from app.agent.models import Action, ActionName
from app.agent.workload import TargetState
from app.errors import Conflict, Forbidden, Invalid
from tests.contract.cluster_harness import ClusterHarness
from tests.contract.cluster_suite import INTENT, OTHER_INTENT, action, key_of


def _rerun(cluster: ClusterHarness, name: str) -> Action:
    return action(ActionName.RERUN_JOB, cluster.ref("Job", name))


async def _batch(cluster: ClusterHarness, kind: str, name: str) -> BatchView:
    found = await cluster.ports.batches.batch(batch_key(cluster.environment, kind, name))
    assert found is not None
    return found


async def _failed_run(
    cluster: ClusterHarness, *, safe: bool = True, suspended: bool = False, concurrency: str = "Allow"
) -> tuple[Action, TargetState]:
    await cluster.put_cron_job("report", safe=safe, suspended=suspended, concurrency=concurrency)
    await cluster.start_job("report-1", cron_job="report")
    await cluster.end_job("report-1", complete=False)
    rerun = _rerun(cluster, "report-1")
    return rerun, await cluster.ports.reader.target(rerun)


async def test_a_batch_shows_how_its_runs_ended(cluster: ClusterHarness) -> None:
    """A CronJob with its runs is one batch, a Job of its own another; neither is a service."""
    await _failed_run(cluster)
    await cluster.start_job("import", safe=True)
    report, single = await _batch(cluster, "CronJob", "report"), await _batch(cluster, "Job", "import")
    assert report.failed is not None
    assert (report.failed.name, report.state, report.safe_to_repeat) == ("report-1", RunState.FAILED, True)
    assert report.failed.ended_at is not None
    assert "BackoffLimitExceeded" in report.failed.said
    assert (single.state, single.failed, single.safe_to_repeat) == (RunState.RUNNING, None, True)
    found = {one.key.service: one for one in await cluster.ports.batches.batches()}
    assert set(found) == {"cronjob:report", "job:import"}
    assert key_of(cluster, "report-1") not in await cluster.ports.reader.services()
    assert await cluster.ports.reader.workload(report.key) is None
    assert await cluster.ports.batches.batch(key_of(cluster, "report")) is None
    with pytest.raises(Forbidden):
        await cluster.powerless.batches.batches()


async def test_the_containers_of_a_failed_run_are_found(cluster: ClusterHarness) -> None:
    """Those of its own pods that ended with an error; none of a run that completed, nor without the right."""
    await _failed_run(cluster)
    await cluster.start_job("report-2", cron_job="report")
    await cluster.end_job("report-2", complete=True)
    report = await _batch(cluster, "CronJob", "report")
    completed, failed = report.runs
    (found,) = await cluster.ports.batches.failures(report, failed)
    assert (found.name, found.pod.kind, found.pod.namespace) == ("app", "Pod", report.ref.namespace)
    assert found.pod.name.startswith("report-1-")
    assert await cluster.ports.batches.failures(report, completed) == ()
    with pytest.raises(Forbidden):
        await cluster.powerless.batches.failures(report, failed)


async def test_the_repetition_of_a_run_belongs_to_its_cron_job_and_completes_it(
    cluster: ClusterHarness,
) -> None:
    """It has the template of the failed run, no label of it, and an owner that does not control it."""
    rerun, before = await _failed_run(cluster)
    failed = await cluster.job("report-1")
    await cluster.ports.writer.apply(rerun, INTENT, before, None)
    name = name_of_repeat("report-1", before.uid)
    made = await cluster.job(name)
    assert made["images"] == failed["images"]
    assert made["owners"] == [["CronJob", "report", False]]
    assert isinstance(made["labels"], dict)
    assert made["labels"][REPEATS] == before.uid
    assert before.uid not in {made["labels"].get(label) for label in made["labels"] if label != REPEATS}
    assert (await _batch(cluster, "CronJob", "report")).state is RunState.RUNNING
    await cluster.end_job(name, complete=True)
    over = await _batch(cluster, "CronJob", "report")
    assert (over.state, over.failed) == (RunState.COMPLETE, None)


async def test_a_failed_run_is_repeated_once_by_whichever_intent(cluster: ClusterHarness) -> None:
    """The second write is a conflict, and the marker on the new Job says whose the first was."""
    rerun, before = await _failed_run(cluster)
    await cluster.ports.writer.apply(rerun, INTENT, before, None)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(rerun, INTENT, before, None)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(rerun, OTHER_INTENT, before, None)
    now = await cluster.ports.reader.target(rerun)
    assert now.marker == INTENT
    with pytest.raises(Invalid, match="is running"):
        await cluster.ports.writer.apply(rerun, OTHER_INTENT, now, None)
    assert len((await _batch(cluster, "CronJob", "report")).runs) == 2


async def test_a_job_of_its_own_is_repeated_under_the_same_batch(cluster: ClusterHarness) -> None:
    """The repetition is a run of the batch that failed, not a batch of its own."""
    await cluster.start_job("import", safe=True)
    await cluster.end_job("import", complete=False)
    rerun = _rerun(cluster, "import")
    await cluster.ports.writer.apply(rerun, INTENT, await cluster.ports.reader.target(rerun), None)
    found = await cluster.ports.batches.batches()
    assert [one.key.service for one in found] == ["job:import"]
    assert len(found[0].runs) == 2


async def _not_declared(cluster: ClusterHarness) -> str:
    await _failed_run(cluster, safe=False)
    return "not declared safe to repeat"


async def _suspended(cluster: ClusterHarness) -> str:
    await _failed_run(cluster, suspended=True)
    return "is suspended"


async def _newer_success(cluster: ClusterHarness) -> str:
    await _failed_run(cluster)
    await cluster.start_job("report-2", cron_job="report")
    await cluster.end_job("report-2", complete=True)
    return "completed: nothing to repeat"


async def _newer_run(cluster: ClusterHarness) -> str:
    await _failed_run(cluster)
    await cluster.start_job("report-2", cron_job="report")
    return "is running"


async def _forbids_two(cluster: ClusterHarness) -> str:
    await _failed_run(cluster, concurrency="Forbid")
    return "one run at a time"


@pytest.mark.parametrize("arrange", [_not_declared, _suspended, _newer_success, _newer_run, _forbids_two])
async def test_what_forbids_a_repetition_is_asked_right_before_the_write(
    cluster: ClusterHarness, arrange: Callable[[ClusterHarness], Awaitable[str]]
) -> None:
    """A batch moves on by itself after the decision; a rehearsal says the same as the write."""
    why = await arrange(cluster)
    rerun = _rerun(cluster, "report-1")
    target = await cluster.ports.reader.target(rerun)
    answer = await cluster.ports.rehearsal.rehearse(rerun, target, None)
    assert not answer.accepted
    assert why in answer.message
    with pytest.raises(Invalid, match=why):
        await cluster.ports.writer.apply(rerun, INTENT, target, None)

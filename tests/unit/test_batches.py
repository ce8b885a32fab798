"""When a failed run may be repeated, what a look at a batch reports, and how a Job is read and copied."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent.batch.repeats import REPEATS, SAFE_TO_REPEAT, name_of_repeat, obstacle
from app.agent.batch.runs import CRON_JOB, JOB, BatchRun, BatchView, RunState, batch_key, batch_named
from app.agent.batch.signals import condition_of_batch
from app.agent.evidence.cluster.log_patterns import log_sources_of_run
from app.agent.ids import IntentId, Json, JsonObject, ServiceKey
from app.agent.models import Action, ActionName, Cause, Risk
from app.agent.rules import batch_failure
from app.agent.workload import ObjectRef
from app.clock import SystemClock
from app.config import Settings
from app.connectors.k8s import connect
from app.connectors.kubernetes.changes.jobs import repeat_of
from app.connectors.kubernetes.views import MARKER
from app.connectors.kubernetes.views.batches import batches_of, failures_of
from app.errors import Forbidden
from tests.contract.loopback import Answer, Request, kubeconfig_for, loopback, status
from tests.unit.scenes import evidence

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def run(name: str, state: RunState, began: float, took: float = 2, **changes: object) -> BatchRun:
    """A run that began some minutes ago."""
    start = NOW - began * MINUTE
    ended = start + took * MINUTE if state in (RunState.COMPLETE, RunState.FAILED) else None
    whole = BatchRun(name=name, uid=f"uid-{name}", state=state, created_at=start, ended_at=ended)
    return replace(whole, **changes)  # type: ignore[arg-type] # fields of a run


def batch(*runs: BatchRun, **changes: object) -> BatchView:
    """A CronJob that is declared safe, with these runs, newest first."""
    whole = BatchView(
        key=batch_key("prod", CRON_JOB, "report"),
        ref=ObjectRef(kind=CRON_JOB, namespace="prod", name="report"),
        observed_at=NOW,
        runs=runs,
        safe_to_repeat=True,
    )
    return replace(whole, **changes)  # type: ignore[arg-type] # fields of a batch


FAILED = run("report-3", RunState.FAILED, 5)
BEFORE = run("report-2", RunState.COMPLETE, 65)
REPETITION = run("report-3-rerun", RunState.FAILED, 2, 1, repeats=FAILED.uid)


def test_the_key_of_a_batch_is_no_service() -> None:
    """A label cannot hold a colon, so that no service has the key of a batch."""
    assert batch_named(batch_key("prod", CRON_JOB, "report")) == (CRON_JOB, "report")
    assert batch_named(batch_key("prod", JOB, "import")) == (JOB, "import")
    assert batch_named(ServiceKey(environment="prod", service="report")) is None


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (batch(FAILED, BEFORE), None),
        (batch(FAILED, BEFORE, safe_to_repeat=False), "not declared safe"),
        (batch(FAILED, BEFORE, opted_out=True), "opted out"),
        (batch(FAILED, BEFORE, suspended=True), "is suspended"),
        (batch(FAILED, BEFORE, controller="Workflow nightly"), "act on Workflow nightly instead"),
        (batch(run("report-4", RunState.RUNNING, 1), FAILED, BEFORE), "report-4 of .* is running"),
        (batch(run("report-4", RunState.COMPLETE, 3), FAILED), "report-4 completed: nothing to repeat"),
        (batch(REPETITION, FAILED, BEFORE), "is a repetition itself"),
        (batch(), "no run failed"),
        (batch(FAILED, BEFORE, concurrency="Forbid"), "too few runs"),
    ],
)
def test_what_forbids_a_repetition(view: BatchView, why: str | None) -> None:
    """Owners first, then what the batch shows."""
    found = obstacle(view)
    if why is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(why, found)


@pytest.mark.parametrize(("every", "took", "allowed"), [(60, 2, True), (60, 58, False), (10, 9, False)])
def test_a_cron_job_that_forbids_two_runs_needs_room_before_the_next(
    every: float, took: float, allowed: bool
) -> None:
    """Its controller counts only runs that it started, so a repetition must end before the next is due."""
    failed = run("report-3", RunState.FAILED, 5, 1, scheduled_at=NOW - 5 * MINUTE)
    older = run("report-2", RunState.COMPLETE, 5 + every, took, scheduled_at=NOW - (5 + every) * MINUTE)
    for concurrency in ("Forbid", "Replace"):
        assert (obstacle(batch(failed, older, concurrency=concurrency)) is None) is allowed
    assert obstacle(batch(failed, older)) is None


def test_a_decision_is_for_the_run_that_it_was_made_on() -> None:
    """Another run that failed since needs another decision."""
    assert obstacle(batch(FAILED, BEFORE), "report-3") is None
    assert "report-3 failed since" in (obstacle(batch(FAILED, BEFORE), "report-2") or "")


def test_a_failure_is_reported_once_and_its_end_once() -> None:
    """One that is old when it is seen first is no news; a run under way changes nothing."""
    failing, well = batch(FAILED, BEFORE), batch(BEFORE)
    told = condition_of_batch(failing, known=False)
    assert told is not None
    assert told.present
    assert "report-3" in told.message
    assert condition_of_batch(failing, known=True) is None
    assert condition_of_batch(batch(run("report-4", RunState.RUNNING, 1), FAILED), known=True) is None
    over = condition_of_batch(well, known=True)
    assert over is not None
    assert not over.present
    assert condition_of_batch(well, known=False) is None
    assert condition_of_batch(batch(run("old", RunState.FAILED, 90)), known=False) is None
    assert condition_of_batch(batch(run("old", RunState.FAILED, 90)), known=True) is None


@pytest.mark.parametrize(
    ("view", "least", "most"),
    [
        (batch(FAILED, BEFORE), 0.85, 1.0),
        (batch(FAILED), 0.7, 0.8),
        (batch(FAILED, run("report-2", RunState.FAILED, 65)), 0.5, 0.69),
        (batch(replace(FAILED, said="PodFailurePolicy: exit code 42"), BEFORE), 0.5, 0.69),
    ],
)
def test_a_run_that_fails_as_the_one_before_is_less_likely_to_pass(
    view: BatchView, least: float, most: float
) -> None:
    """The confidence decides between a repetition (0.7) and a person."""
    found = batch_failure.evaluate(evidence(batch=view))
    assert found is not None
    assert found.cause is Cause.BATCH_FAILURE
    assert least <= found.confidence <= most


def test_the_rule_names_nothing_where_no_run_failed() -> None:
    """A service, and a batch whose newest run completed, are no batch failure."""
    assert batch_failure.evaluate(evidence()) is None
    assert batch_failure.evaluate(evidence(batch=batch(BEFORE, FAILED))) is None


def job(name: str, uid: str, *, minute: int, failed: bool = True, **metadata: object) -> JsonObject:
    """A Job as the API server answers with it."""
    tied: JsonObject = {"controller-uid": uid, "batch.kubernetes.io/controller-uid": uid, "job-name": name}
    condition: JsonObject = {
        "type": "Failed" if failed else "Complete",
        "status": "True",
        "reason": "BackoffLimitExceeded",
        "lastTransitionTime": f"2026-03-01T11:{minute + 2:02}:00Z",
    }
    pod: JsonObject = {
        "metadata": {"labels": {**tied, "batch.kubernetes.io/job-name": name, "team": "data"}},
        "spec": {"restartPolicy": "Never"},
    }
    whole: JsonObject = {
        "metadata": {
            "name": name,
            "namespace": "prod",
            "uid": uid,
            "creationTimestamp": f"2026-03-01T11:{minute:02}:00Z",
            "labels": {**tied, "app.kubernetes.io/instance": "report", "team": "data"},
            **metadata,  # type: ignore[dict-item] # JSON
        },
        "spec": {
            "backoffLimit": 2,
            "manualSelector": True,
            "suspend": False,
            "selector": {"matchLabels": tied},
            "template": pod,
        },
        "status": {"conditions": [condition]},
    }
    return whole


OWNER: JsonObject = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "name": "report",
    "uid": "cron",
    "controller": True,
    "blockOwnerDeletion": True,
}
CRON: JsonObject = {
    "metadata": {"name": "report", "namespace": "prod", "annotations": {SAFE_TO_REPEAT: "true"}},
    "spec": {"concurrencyPolicy": "Forbid", "suspend": True},
}


def test_a_repetition_carries_nothing_that_belongs_to_the_failed_job() -> None:
    """No selector, no label of its pods' controller, none by which a GitOps controller would prune it."""
    failed = job("report-1", "one", minute=0, ownerReferences=[OWNER])
    made = repeat_of(failed, IntentId("int_1"), MARKER)
    assert made["metadata"] == {
        "name": name_of_repeat("report-1", "one"),
        "namespace": "prod",
        "labels": {"team": "data", REPEATS: "one"},
        "annotations": {MARKER: "int_1", "cronjob.kubernetes.io/instantiate": "manual"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "report", "uid": "cron"}],
    }
    spec = made["spec"]
    assert isinstance(spec, dict)
    assert set(spec) == {"backoffLimit", "template"}
    assert spec["template"] == {
        "metadata": {"labels": {"team": "data"}},
        "spec": {"restartPolicy": "Never"},
    }


@pytest.mark.parametrize(
    "label",
    [
        "argocd.argoproj.io/instance",
        "kustomize.toolkit.fluxcd.io/name",
        "kapp.k14s.io/app",
        "objectset.rio.cattle.io/hash",
        "applyset.kubernetes.io/part-of",
    ],
)
def test_no_tool_takes_a_repetition_for_an_object_that_it_left_out(label: str) -> None:
    """It would delete the new Job at its next apply."""
    made = repeat_of(job("import", "two", minute=1, labels={label: "x"}), IntentId("int_1"), MARKER)
    metadata = made["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["labels"] == {REPEATS: "two"}


def test_a_name_is_valid_however_long_the_failed_one_is() -> None:
    """At most 63 characters, and another one for each failed Job."""
    long = "a" * 63
    assert len(name_of_repeat(long, "one")) <= 63
    assert name_of_repeat(long, "one") != name_of_repeat(long, "two")
    assert name_of_repeat("report-1", "one") == name_of_repeat("report-1", "one")


def test_the_runs_of_a_batch_are_read_with_their_repetitions() -> None:
    """A run of a CronJob, and of a Job of its own, each with what the agent repeated."""
    cron_run = job("report-1", "one", minute=0, ownerReferences=[OWNER])
    single = job("import", "two", minute=1)
    again = job("import-rerun", "three", minute=10, failed=False, labels={REPEATS: "two"})
    first, second = batches_of("prod", [cron_run, single, again], [CRON], NOW)
    assert (first.key.service, first.suspended, first.concurrency) == ("cronjob:report", True, "Forbid")
    assert first.safe_to_repeat
    assert (second.key.service, second.state, second.safe_to_repeat) == (
        "job:import",
        RunState.COMPLETE,
        False,
    )
    assert [one.name for one in second.runs] == ["import-rerun", "import"]
    denied = job("report-1", "one", minute=0, ownerReferences=[OWNER], annotations={SAFE_TO_REPEAT: "no"})
    assert not batches_of("prod", [denied], [CRON], NOW)[0].safe_to_repeat
    owned = job("step", "four", minute=0, ownerReferences=[{**OWNER, "kind": "Workflow", "name": "nightly"}])
    assert batches_of("prod", [owned], [], NOW)[0].controller == "Workflow nightly"
    assert batches_of("prod", [cron_run], [], NOW) == ()


async def test_a_repetition_that_was_made_is_done_whatever_becomes_of_the_failed_run(tmp_path: Path) -> None:
    """The failed Job is deleted right after: its absence is no refusal of what was done."""
    failed = job("import", "two", minute=1, annotations={SAFE_TO_REPEAT: "true"})
    made: list[JsonObject] = []

    def rule(request: Request) -> Answer:
        if request.method == "POST":
            made.append(json.loads(request.body))
            return Answer(code=201, body=json.dumps({**made[0], "kind": "Job"}).encode())
        if made:
            return status(404, "jobs.batch import not found")
        if "labelSelector" in request.target:
            return Answer(code=200, body=b'{"items": []}')
        whole: JsonObject = failed if request.target.endswith("/import") else {"items": [failed]}
        return Answer(code=200, body=json.dumps(whole).encode())

    async with loopback(rule) as server:
        given = Settings(
            _env_file=None, dry_run=False, watch_jobs=True, kubeconfig=kubeconfig_for(server.url, tmp_path)
        )
        cluster = connect(given, SystemClock())
        assert cluster is not None
        assert cluster.writer is not None
        ref = ObjectRef(kind=JOB, namespace="prod", name="import")
        rerun = Action(
            name=ActionName.RERUN_JOB,
            risk=Risk.MEDIUM,
            target=ref,
            parameters={},
            expected_effect="a new Job",
            undo=None,
        )
        before = await cluster.reader.target(rerun)
        after = await cluster.writer.apply(rerun, IntentId("int_1"), before, None)
        await cluster.close()
    assert (after.ref, after.uid, after.marker) == (ref, "two", "int_1")
    assert name_of_repeat("import", "two") in after.token
    assert len(made) == 1


async def test_a_namespace_that_may_not_be_listed_hides_no_other(tmp_path: Path) -> None:
    """Its batches stay as they were listed last; without any rights the look fails aloud."""
    denied: set[str] = set()

    def rule(request: Request) -> Answer:
        namespace = request.target.partition("/namespaces/")[2].partition("/")[0]
        if namespace in denied:
            return status(403, f"cannot list jobs in {namespace}")
        if "/cronjobs" in request.target:
            return Answer(code=200, body=b'{"items": []}')
        item = job("import", f"uid-{namespace}", minute=1)
        return Answer(code=200, body=json.dumps({"items": [_moved(item, namespace)]}).encode())

    async with loopback(rule) as server:
        given = Settings(
            _env_file=None,
            watch_jobs=True,
            kubeconfig=kubeconfig_for(server.url, tmp_path),
            environment_namespaces={"prod": "prod", "test": "test"},
        )
        cluster = connect(given, SystemClock())
        assert cluster is not None
        assert cluster.batches is not None
        denied.add("prod")
        assert [one.key.environment for one in await cluster.batches.batches()] == ["test"]
        denied.clear()
        assert len(await cluster.batches.batches()) == 2
        denied.add("test")
        assert len(await cluster.batches.batches()) == 2
        denied.add("prod")
        with pytest.raises(Forbidden):
            await cluster.batches.batches()
        await cluster.close()


def _moved(item: JsonObject, namespace: str) -> JsonObject:
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    return {**item, "metadata": {**metadata, "namespace": namespace}}


def _pod(name: str, minute: int, *, owner: str = "uid-report", **codes: int) -> JsonObject:
    """A pod whose containers ended with these exit codes; the name of an init container begins with i."""
    statuses: dict[str, list[Json]] = {"initContainerStatuses": [], "containerStatuses": []}
    for container, code in codes.items():
        part = "initContainerStatuses" if container.startswith("i") else "containerStatuses"
        statuses[part].append({"name": container, "state": {"terminated": {"exitCode": code}}})
    return {
        "metadata": {
            "name": name,
            "namespace": "prod",
            "creationTimestamp": f"2026-03-01T12:{minute:02}:00Z",
            "ownerReferences": [{"kind": "Job", "name": "report", "uid": owner, "controller": True}],
        },
        "status": {**statuses},
    }


def test_the_containers_that_ended_with_an_error_are_found_newest_pod_first() -> None:
    """Of the pods that the run controls: a label alone, which every pod may have, is not enough."""
    nameless = _pod("nameless", 4)
    nameless["status"] = {"containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}
    pods = (
        _pod("first", 1, app=1),
        _pod("stranger", 3, owner="uid-other", app=1),
        _pod("second", 2, init=3, app=137, proxy=0),
        nameless,
    )
    found = failures_of("uid-report", pods)
    assert [(one.pod.name, one.name) for one in found] == [
        ("second", "init"),
        ("second", "app"),
        ("first", "app"),
    ]
    assert [(one.pod.name, one.container) for one in log_sources_of_run(found)] == [
        ("second", "init"),
        ("second", "app"),
    ]

"""Jobs and CronJobs as batches with their runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from app.agent.batch.repeats import REPEATS, SAFE_TO_REPEAT
from app.agent.batch.runs import CRON_JOB, JOB, BatchRun, BatchView, EndedContainer, RunState, batch_key
from app.agent.guardrails.opt_out import said
from app.agent.guardrails.workload_kinds import POD
from app.agent.ids import JsonObject
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.fields import (
    condition_of,
    controller,
    controller_uid,
    created_at,
    flag,
    moment,
    name,
    number,
    objects,
    text,
    texts,
    uid,
)
from app.connectors.kubernetes.views.events import sentence

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_MOST_RUNS = 50


def cron_job_of(job: JsonObject) -> str | None:
    """The CronJob that a Job is a run of, also one that a person started by hand; None without one."""
    owners = objects(job, "metadata", "ownerReferences")
    return next((text(one, "name") for one in owners if text(one, "kind") == CRON_JOB), None)


def run_of(job: JsonObject) -> BatchRun:
    """One Job as a run."""
    state, condition = _state(job)
    words = ": ".join(filter(None, (text(condition, "reason"), text(condition, "message"))))
    ended = moment(condition, "lastTransitionTime") or moment(job, "status", "completionTime")
    return BatchRun(
        name=name(job),
        uid=uid(job),
        state=state,
        created_at=created_at(job),
        ended_at=ended if state in (RunState.COMPLETE, RunState.FAILED) else None,
        scheduled_at=moment(job, "metadata", "annotations", _SCHEDULED),
        said=sentence(words) if state is RunState.FAILED else "",
        repeats=text(job, "metadata", "labels", REPEATS),
    )


def failures_of(run_uid: str, pods: Iterable[JsonObject]) -> tuple[EndedContainer, ...]:
    """The containers that ended with an error in the pods that this run controls, of the newest pod first."""
    own = [pod for pod in pods if controller_uid(pod) == run_uid]
    own.sort(key=lambda pod: (created_at(pod), name(pod)), reverse=True)
    return tuple(
        EndedContainer(
            pod=ObjectRef(kind=POD, namespace=text(pod, "metadata", "namespace") or "", name=name(pod)),
            name=name_of,
        )
        for pod in own
        for part in ("initContainerStatuses", "containerStatuses")
        for one in objects(pod, "status", part)
        if number(one, "state", "terminated", "exitCode") and (name_of := text(one, "name"))
    )


def _state(job: JsonObject) -> tuple[RunState, JsonObject]:
    """The state by the Job's conditions, with the condition that says so."""
    for wanted, state in (("Complete", RunState.COMPLETE), ("Failed", RunState.FAILED)):
        condition = condition_of(job, wanted)
        if text(condition, "status") == "True":
            return state, condition
    return (RunState.SUSPENDED if flag(job, "spec", "suspend") else RunState.RUNNING), {}


def batches_of(
    environment: str, jobs: Sequence[JsonObject], cron_jobs: Sequence[JsonObject], at: datetime
) -> tuple[BatchView, ...]:
    """The batches of one namespace, by name; a repetition is a run of the batch that it repeats."""
    crons = {name(one): one for one in cron_jobs}
    by_uid = {uid(job): job for job in jobs}
    runs: dict[tuple[str, str], list[JsonObject]] = {}
    for job in jobs:
        runs.setdefault(_batch_name(job, by_uid), []).append(job)
    found = []
    for (kind, named), those in sorted(runs.items()):
        holder = crons.get(named) if kind == CRON_JOB else _itself(named, those)
        if holder is not None:
            found.append(_view(environment, kind, holder, those, at))
    return tuple(found)


def _batch_name(job: JsonObject, by_uid: Mapping[str, JsonObject]) -> tuple[str, str]:
    seen: set[str] = set()
    while (cron_job := cron_job_of(job)) is None:
        repeated = by_uid.get(text(job, "metadata", "labels", REPEATS) or "")
        if repeated is None or uid(job) in seen:
            return JOB, name(job)
        seen.add(uid(job))
        job = repeated
    return CRON_JOB, cron_job


def _itself(named: str, jobs: Iterable[JsonObject]) -> JsonObject | None:
    return next((job for job in jobs if name(job) == named), None)


def _view(
    environment: str, kind: str, holder: JsonObject, jobs: Sequence[JsonObject], at: datetime
) -> BatchView:
    newest_first = sorted(jobs, key=lambda job: (created_at(job), name(job)), reverse=True)[:_MOST_RUNS]
    marks = [said(texts(one, "metadata", "labels"), _annotations(one)) for one in (holder, newest_first[0])]
    above = None if kind == CRON_JOB else controller(holder)
    return BatchView(
        key=batch_key(environment, kind, name(holder)),
        ref=ObjectRef(kind=kind, namespace=text(holder, "metadata", "namespace") or "", name=name(holder)),
        observed_at=at,
        runs=tuple(run_of(job) for job in newest_first),
        suspended=kind == CRON_JOB and flag(holder, "spec", "suspend"),
        concurrency=text(holder, "spec", "concurrencyPolicy") or "Allow",
        safe_to_repeat=_declared(holder, newest_first),
        opted_out=False in marks,
        controller=None if above is None else " ".join(above),
    )


def _declared(holder: JsonObject, jobs: Sequence[JsonObject]) -> bool:
    """Whether the batch or its newest run declares it, and neither denies it."""
    annotations = (_annotations(holder), _annotations(jobs[0]))
    says = [one[SAFE_TO_REPEAT].strip().lower() for one in annotations if SAFE_TO_REPEAT in one]
    return bool(says) and all(one == "true" for one in says)


def _annotations(item: JsonObject) -> dict[str, str]:
    return texts(item, "metadata", "annotations")

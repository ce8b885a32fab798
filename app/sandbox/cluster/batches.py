"""Reading the batches of a world, and repeating a failed run."""

from __future__ import annotations

from app.agent.batch.repeats import REPEATS, SAFE_TO_REPEAT, name_of_repeat, obstacle
from app.agent.batch.runs import CRON_JOB, JOB, BatchRun, BatchView, EndedContainer, RunState, batch_key
from app.agent.guardrails.opt_out import said
from app.agent.guardrails.target_token import REPEATED_AS, RUN, object_token
from app.agent.guardrails.workload_kinds import POD
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action
from app.agent.workload import ObjectRef, TargetState
from app.errors import Conflict, Invalid
from app.sandbox.cluster.access import WorldAccess
from app.sandbox.objects import Job
from app.sandbox.operations import FIELD_MANAGER, MARKER
from app.sandbox.world import World


class SandboxBatches:
    """A `BatchReader` over a `World`."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access

    async def batches(self) -> tuple[BatchView, ...]:
        self._access.ask("list", "Job")
        self._access.ask("list", "CronJob")
        world, found = self._access.world, []
        for namespace in sorted({job.meta.namespace for job in world.api.list(Job)}):
            key = self._access.naming.key(namespace, "any")
            if key is not None:
                found += batches_of(world, namespace, key.environment)
        return tuple(found)

    async def batch(self, key: ServiceKey) -> BatchView | None:
        self._access.ask("list", "Job")
        self._access.ask("list", "CronJob")
        namespace = self._access.naming.namespace(key.environment)
        found = batches_of(self._access.world, namespace, key.environment)
        return next((one for one in found if one.key == key), None)

    async def failures(self, batch: BatchView, run: BatchRun) -> tuple[EndedContainer, ...]:
        """Each run has one attempt, whose pod the world keeps by its name alone."""
        self._access.ask("list", "Pod")
        jobs = self._access.world.api.list(Job, batch.ref.namespace)
        return tuple(
            EndedContainer(pod=batch.ref.beside(POD, pod_of(job)), name="app")
            for job in jobs
            if job.meta.uid == run.uid and job.state is RunState.FAILED
        )


def pod_of(job: Job) -> str:
    """The name of the pod of a run."""
    return f"{job.meta.name}-pod"


def batches_of(world: World, namespace: str, environment: str) -> list[BatchView]:
    """The batches of one namespace."""
    jobs = world.api.list(Job, namespace)
    by_uid = {job.meta.uid: job for job in jobs}
    runs: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        first = by_uid.get(job.meta.labels.get(REPEATS, ""), job)
        owner = job.cron_job or first.cron_job
        runs.setdefault((JOB, first.meta.name) if owner is None else (CRON_JOB, owner), []).append(job)
    return [_view(world, namespace, environment, name, those) for name, those in sorted(runs.items())]


def _view(
    world: World, namespace: str, environment: str, batch: tuple[str, str], jobs: list[Job]
) -> BatchView:
    (kind, name), cron = batch, world.jobs.cron_jobs.get((namespace, batch[1]))
    newest_first = sorted(jobs, key=lambda job: (job.meta.created_at, job.meta.name), reverse=True)
    holder = next((job for job in jobs if job.meta.name == name), newest_first[0])
    above = dict(cron.annotations) if kind == CRON_JOB and cron is not None else holder.meta.annotations
    marks = [above, newest_first[0].meta.annotations]
    declared = [one[SAFE_TO_REPEAT] for one in marks if SAFE_TO_REPEAT in one]
    return BatchView(
        key=batch_key(environment, kind, name),
        ref=ObjectRef(kind=kind, namespace=namespace, name=name),
        observed_at=world.engine.now,
        runs=tuple(run_of(job) for job in newest_first),
        suspended=cron is not None and cron.suspended,
        concurrency="Allow" if cron is None else cron.concurrency,
        safe_to_repeat=bool(declared) and all(one == "true" for one in declared),
        opted_out=any(said(one) is False for one in marks),
    )


def run_of(job: Job) -> BatchRun:
    """One Job as a run."""
    return BatchRun(
        name=job.meta.name,
        uid=job.meta.uid,
        state=job.state,
        created_at=job.meta.created_at,
        ended_at=job.ended_at,
        scheduled_at=job.scheduled_at,
        said=job.said if job.state is RunState.FAILED else "",
        repeats=job.meta.labels.get(REPEATS),
    )


def state_of(world: World, job: Job) -> TargetState:
    """The state of a failed Job with the one that repeats it."""
    jobs = world.api.list(Job, job.meta.namespace)
    again = next((one for one in jobs if one.meta.labels.get(REPEATS) == job.meta.uid), None)
    marker = None if again is None else again.meta.annotations.get(MARKER)
    parts = {RUN: job.state.value, REPEATED_AS: "-" if again is None else again.meta.name}
    return TargetState(
        ref=ObjectRef(kind=JOB, namespace=job.meta.namespace, name=job.meta.name),
        uid=job.meta.uid,
        resource_version=str(job.meta.resource_version),
        token=object_token(job.meta.uid, parts),
        marker=None if marker is None else IntentId(marker),
        changed_by=None if again is None else again.meta.changed_by,
    )


def repeat(
    access: WorldAccess, action: Action, target: TargetState, intent_id: IntentId | None
) -> tuple[TargetState, str]:
    """Create the repetition; without an intent it is a dry run. The state after it, and the new name."""
    world = access.world
    ref = target.ref
    if action.target != ref:
        raise Invalid(f"decided on {ref}, asked for {action.target}")
    access.ask("create", JOB)
    access.ask("list", JOB)
    failed = world.api.get(Job, ref.namespace, ref.name)
    if state_of(world, failed).token != target.token:
        raise Conflict(f"{ref} is another Job or was repeated since the decision")
    batch = next(
        one
        for one in batches_of(world, ref.namespace, "-")
        if any(run.uid == failed.meta.uid for run in one.runs)
    )
    why = obstacle(batch, ref.name)
    if why is not None:
        raise Invalid(f"{action.name.words}: {why}")
    name = name_of_repeat(failed.meta.name, failed.meta.uid)
    if intent_id is None:
        return target, name
    meta = world.api.new_meta(ref.namespace, name, {REPEATS: failed.meta.uid})
    meta.annotations[MARKER], meta.changed_by = intent_id, FIELD_MANAGER
    made = world.jobs.run(Job(meta=meta, template=failed.template, cron_job=failed.cron_job))
    world.api.created(made, manager=FIELD_MANAGER)
    return state_of(world, failed), name

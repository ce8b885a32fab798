"""Reads a failed Job with its repetition as one target, and creates the repetition.

The name of the new Job follows from the uid of the failed one, so that the API server accepts
one of two copies of the request; its annotation carries the marker of the intent.
"""

from __future__ import annotations

from app.agent.batch.repeats import REPEATS, obstacle
from app.agent.batch.runs import CRON_JOB, BatchView
from app.agent.guardrails.target_token import REPEATED_AS, RUN, object_token
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action
from app.agent.workload import ObjectRef, TargetState
from app.clock import Clock, SystemClock
from app.connectors.kubernetes.api import Kind, PatchApi, ReadApi
from app.connectors.kubernetes.changes.jobs import repeat_of
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import name, objects, text, uid
from app.connectors.kubernetes.patches import writable_ref
from app.connectors.kubernetes.views import MARKER
from app.connectors.kubernetes.views.batches import batches_of, cron_job_of, run_of
from app.errors import Conflict, Invalid

_ANY_ENVIRONMENT = "-"
"""A decision on one Job needs no key."""


async def read_repeated(api: ReadApi, ref: ObjectRef) -> TargetState:
    """The state of a failed Job: how it ended, and the marker and name of the Job that repeats it."""
    return await _state(api, ref, await api.get(Kind.JOB, ref.namespace, ref.name))


async def _state(api: ReadApi, ref: ObjectRef, job: JsonObject) -> TargetState:
    again = (await api.list(Kind.JOB, ref.namespace, labels=f"{REPEATS}={uid(job)}")).items
    return repeated_state(ref, job, again[0] if again else None)


def repeated_state(ref: ObjectRef, job: JsonObject, newest: JsonObject | None) -> TargetState:
    """The state of a failed Job with the Job that repeats it, None while none does."""
    marker = None if newest is None else text(newest, "metadata", "annotations", MARKER)
    parts = {RUN: run_of(job).state.value, REPEATED_AS: "-" if newest is None else name(newest)}
    return TargetState(
        ref=ref,
        uid=uid(job),
        resource_version=text(job, "metadata", "resourceVersion") or "",
        token=object_token(uid(job), parts),
        marker=None if marker is None else IntentId(marker),
        changed_by=None if newest is None else _author(newest),
    )


def _author(job: JsonObject) -> str | None:
    """The field manager that created it."""
    entries = objects(job, "metadata", "managedFields")
    return text(entries[0], "manager") if entries else None


async def repeat(
    api: ReadApi,
    patches: PatchApi,
    action: Action,
    intent_id: IntentId,
    target: TargetState,
    clock: Clock | None = None,
) -> tuple[TargetState, str]:
    """Create the repetition of the Job that was decided on; the state after it, and the new Job's name.

    The answer of the API server is all that the state is made from: nothing is read once the
    Job is there, so that no error can be taken for a refusal of what was done.

    `Conflict` where the Job changed or was repeated since; `Invalid` where its batch allows no
    repetition now.
    """
    ref = writable_ref(action)
    if target.ref != ref:
        raise Invalid(f"{action.name} of {ref} was decided on {target.ref}")
    failed = await api.get(Kind.JOB, ref.namespace, ref.name)
    if (await _state(api, ref, failed)).token != target.token:
        raise Conflict(f"{ref} is another Job or was repeated since the decision")
    batch = await _batch_of(api, failed, clock or SystemClock())
    why = "it belongs to no batch" if batch is None else obstacle(batch, ref.name)
    if why is not None:
        raise Invalid(f"{action.name.words}: {why}")
    made = await patches.create(Kind.JOB, ref.namespace, repeat_of(failed, intent_id, MARKER))
    return repeated_state(ref, failed, made), name(made)


async def _batch_of(api: ReadApi, failed: JsonObject, clock: Clock) -> BatchView | None:
    namespace = text(failed, "metadata", "namespace") or ""
    jobs = (await api.list(Kind.JOB, namespace)).items
    crons: tuple[JsonObject, ...] = ()
    if cron_job_of(failed) is not None:
        crons = (await api.list(Kind.CRON_JOB, namespace)).items
    found = batches_of(_ANY_ENVIRONMENT, jobs, crons, clock.now())
    return next((one for one in found if any(run.uid == uid(failed) for run in one.runs)), None)


async def owner_of_job(api: ReadApi, job: JsonObject) -> JsonObject | None:
    """The CronJob of a Job; None without one, or where it is gone."""
    named = cron_job_of(job)
    if named is None:
        return None
    try:
        found = await api.get(Kind.CRON_JOB, text(job, "metadata", "namespace") or "", named)
    except Absent:
        return None
    return {**found, "kind": CRON_JOB}

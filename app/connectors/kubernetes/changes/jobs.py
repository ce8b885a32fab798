"""The one Job that repeats a failed one. Pure."""

from __future__ import annotations

from app.agent.batch.repeats import REPEATS, name_of_repeat
from app.agent.batch.runs import CRON_JOB
from app.agent.ids import IntentId, Json, JsonObject
from app.connectors.kubernetes.fields import mapping, name, objects, text, texts, uid
from app.connectors.kubernetes.views.batches import cron_job_of
from app.connectors.kubernetes.views.owners import TRACKING_PREFIXES

_OF_ONE_JOB = frozenset(
    {
        "controller-uid",
        "job-name",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "app.kubernetes.io/instance",
    }
)
"""Labels that tie pods to one Job, or a Job to what a GitOps controller tracks and would prune."""
_PRUNED_BY = (
    *TRACKING_PREFIXES,
    "applyset.kubernetes.io/",
    "configmanagement.gke.io/",
    "kapp.k14s.io/",
    "objectset.rio.cattle.io/",
)
"""Labels by which a tool deletes what it has not made itself, a run under way included."""
_OF_THE_RUN = frozenset({"selector", "manualSelector", "suspend"})
"""Fields of a Job's spec that the API server sets for each Job, or that held the failed one."""
_STARTED_BY_HAND = {"cronjob.kubernetes.io/instantiate": "manual"}
"""As kubectl marks it: the CronJob's controller did not start it."""


def repeat_of(failed: JsonObject, intent_id: IntentId, marker: str) -> JsonObject:
    """The Job to create: the template of the failed one under a name that exists once."""
    spec = {field: value for field, value in mapping(failed, "spec").items() if field not in _OF_THE_RUN}
    template = mapping(failed, "spec", "template")
    pod = mapping(template, "metadata")
    labels = _kept(texts(pod, "labels"), instance=True)
    metadata: JsonObject = {
        "name": name_of_repeat(name(failed), uid(failed)),
        "namespace": text(failed, "metadata", "namespace") or "",
        "labels": {**_kept(texts(failed, "metadata", "labels")), REPEATS: uid(failed)},
        "annotations": {marker: intent_id, **(_STARTED_BY_HAND if cron_job_of(failed) else {})},
    }
    owners = _owners(failed)
    if owners:
        metadata["ownerReferences"] = owners
    whole = {**template, "metadata": {**pod, "labels": labels}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {**spec, "template": whole},
    }


def _kept(labels: dict[str, str], *, instance: bool = False) -> JsonObject:
    """The labels of a new object; those of its pods keep the name of their instance."""
    dropped = _OF_ONE_JOB - ({"app.kubernetes.io/instance"} if instance else set())
    return {
        label: value
        for label, value in labels.items()
        if label not in dropped and not label.startswith(_PRUNED_BY)
    }


def _owners(failed: JsonObject) -> list[Json]:
    """The CronJob, so that the repetition ends with it; it does not control a run that it did not start."""
    return [
        {field: owner.get(field) for field in ("apiVersion", "kind", "name", "uid")}
        for owner in objects(failed, "metadata", "ownerReferences")
        if text(owner, "kind") == CRON_JOB
    ]

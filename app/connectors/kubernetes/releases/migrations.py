"""The data migrations of each revision of a workload, by init containers and Jobs that ran. Pure.

Older code may fail on data that a newer release migrated. A migration with the code of the previous
revision migrated nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app.agent.ids import JsonObject
from app.agent.workload import PodView
from app.connectors.kubernetes.fields import controller, created_at, moment, name, objects, text, texts
from app.connectors.kubernetes.mapping import SERVICE_LABEL, service_name
from app.connectors.kubernetes.templates import template_hash, template_of

MIGRATES = "migrates"
"""A mark that replaces image and command, which may hold secrets, in the stored fields of a pod."""

_MIGRATION = re.compile(
    r"(?i)migrat|flyway|liquibase|alembic|sqitch|dbmate|skeema|\bgoose\b|ef database update|prisma db push|"
    r"\bschema[-_ ]?(?:change|update|upgrade)|\b(?:db|database)[-_: ]?(?:update|upgrade)"
)
_LONGEST_COMMAND = 16_384
"""The maximum number of characters read of a command."""

JOB_PODS = "job-name"
"""The label of every pod of a Job."""
_BY_SCHEDULE = re.compile(r"-[0-9]{8,}$")
"""The end of the name of a Job that a CronJob started: the minute of its schedule."""
_WITH_ITS_RELEASE = timedelta(minutes=30)
"""The maximum time between a release and the run of its Job, if the Job has another image."""
_RAN = frozenset({"Running", "Succeeded", "Failed"})
_SERVICE_LABELS = (SERVICE_LABEL, "app")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedRevision:
    """A revision with its template."""

    number: int
    created_at: datetime
    template: JsonObject


def migrates(container: JsonObject) -> bool:
    """Whether name, image or command of an init container's specification name a migration of data."""
    command = [
        word
        for field in ("command", "args")
        if isinstance(given := container.get(field), list)
        for word in given
        if isinstance(word, str)
    ]
    said = (text(container, "name"), text(container, "image"), " ".join(command)[:_LONGEST_COMMAND])
    return container.get(MIGRATES) is True or any(_MIGRATION.search(part or "") for part in said)


def is_migration(pod: JsonObject) -> bool:
    """Whether a pod of a Job has a container that names a migration of data.

    A Job that a CronJob started recurs without a release and is left out.
    """
    owner = controller(pod)
    if owner is None or owner[0] != "Job":
        return False
    if any(_BY_SCHEDULE.search(one) for one in (owner[1], text(pod, "metadata", "labels", JOB_PODS) or "")):
        return False
    return any(migrates(one) for one in _containers(pod))


def migrations_by_revision(
    workload: JsonObject,
    kept: Sequence[tuple[int, JsonObject]],
    pods: Sequence[PodView],
    jobs: Sequence[JsonObject],
) -> Mapping[int, str]:
    """The migration of each revision that has one, by its number: `pod shop-migrate-4-x7k2p`.

    `kept` are the numbered ReplicaSets or ControllerRevisions, newest first; `jobs` are the pods of Jobs
    that name a migration.
    """
    if not jobs and not any(pod.migrated for pod in pods):
        return {}
    revisions = [
        DatedRevision(number=number, created_at=created_at(item), template=template_of(item))
        for number, item in kept
    ]
    return {**_inside(revisions, pods), **_by_jobs(workload, revisions, jobs)}


def _by_jobs(
    workload: JsonObject, revisions: Sequence[DatedRevision], jobs: Iterable[JsonObject]
) -> Mapping[int, str]:
    """The migrations by Jobs, by the number of the revision.

    A Job belongs to the revision whose image its migration runs, or, with the label of the service, to the
    nearest one in time; never if the previous revision has that image too.
    """
    found: dict[int, str] = {}
    for pod in jobs:
        if text(pod, "status", "phase") in _RAN:
            mine = _released_with(pod, workload, revisions)
            if mine is not None:
                found.setdefault(mine.number, f"pod {name(pod)}")
    return found


def _released_with(
    pod: JsonObject, workload: JsonObject, revisions: Sequence[DatedRevision]
) -> DatedRevision | None:
    """The revision whose release the Job belongs to; a revision with its image comes first."""
    migrating = {text(one, "image") for one in _containers(pod) if migrates(one)}
    ours, found = _of_service(pod, workload), []
    for mine, earlier in pairwise(revisions):
        apart, another = _apart(mine.created_at, pod), migrating.isdisjoint(_images(mine.template))
        if migrating.isdisjoint(_images(earlier.template)) and (
            not another or (ours and apart <= _WITH_ITS_RELEASE)
        ):
            found.append((another, apart, mine))
    return min(found, key=lambda one: one[:2], default=(True, timedelta(), None))[2]


def _apart(at: datetime, pod: JsonObject) -> timedelta:
    """The time between a moment and the run of a pod; zero while it ran."""
    statuses = [
        *objects(pod, "status", "initContainerStatuses"),
        *objects(pod, "status", "containerStatuses"),
    ]
    ends = [moment(one, "state", "terminated", "finishedAt") for one in statuses]
    began = created_at(pod)
    ended = max((one for one in ends if one is not None), default=began)
    return max(began - at, at - ended, timedelta())


def _inside(revisions: Sequence[DatedRevision], pods: Iterable[PodView]) -> Mapping[int, str]:
    """The migrations by init containers, by the number of the revision: `init container migrate`.

    Only if no pod without that init container is ready: a serving pod shows that its code works with the
    data. A restart keeps the init container, and with it the migration.
    """
    found: dict[int, str] = {}
    running = [pod for pod in pods if pod.template_hash is not None]
    migrated = sorted({one for pod in running for one in pod.migrated})
    templates = {template_hash(one.template): one.template for one in revisions}
    for mine, earlier in pairwise(revisions):
        for ran in migrated:
            own = _init(mine.template, ran)
            if own is None or own == _init(earlier.template, ran):
                continue
            having = [pod for pod in running if _init(templates.get(pod.template_hash or "", {}), ran) == own]
            others = [pod for pod in running if pod not in having]
            if any(ran in pod.migrated for pod in having) and not any(pod.ready for pod in others):
                found.setdefault(mine.number, f"init container {ran}")
    return found


def _init(template: JsonObject, wanted: str) -> JsonObject | None:
    return next(
        (one for one in objects(template, "spec", "initContainers") if text(one, "name") == wanted), None
    )


def _of_service(pod: JsonObject, workload: JsonObject) -> bool:
    labels, service = texts(pod, "metadata", "labels"), service_name(workload)
    return any(labels.get(label) == service for label in _SERVICE_LABELS)


def _containers(pod: JsonObject) -> list[JsonObject]:
    return [*objects(pod, "spec", "initContainers"), *objects(pod, "spec", "containers")]


def _images(pod: JsonObject) -> set[str | None]:
    return {image for one in _containers(pod) if (image := text(one, "image"))}

"""What migrated data for a revision of a workload: init containers and Jobs that ran. Pure.

Older code may not run against data that was migrated since. A migration whose code is
that of the revision before brought nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from app.agent.ids import JsonObject
from app.agent.workload import PodView
from app.connectors.kubernetes.fields import controller, created_at, name, objects, text, texts
from app.connectors.kubernetes.mapping import SERVICE_LABEL, service_name
from app.connectors.kubernetes.templates import template_hash, template_of

MIGRATES = "migrates"
"""A mark in place of image and command, which may hold secrets, in what is kept of a pod."""

_MIGRATION = re.compile(
    r"(?i)migrat|flyway|liquibase|alembic|sqitch|dbmate|skeema|\bgoose\b|ef database update|prisma db push|"
    r"\bschema[-_ ]?(?:change|update|upgrade)|\b(?:db|database)[-_: ]?(?:update|upgrade)"
)
_LONGEST_COMMAND = 16_384
"""Characters of a command that are read."""

JOB_PODS = "job-name"
"""The label of every pod of a Job."""
_WITH_ITS_RELEASE = timedelta(minutes=30)
"""A Job of a release is started within this time of it, before or after."""
_RAN = frozenset({"Running", "Succeeded", "Failed"})
_SERVICE_LABELS = (SERVICE_LABEL, "app")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedRevision:
    """A revision with the code that it runs."""

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
    """Whether a pod of a Job has a container that names a migration of data."""
    owner = controller(pod)
    if owner is None or owner[0] != "Job":
        return False
    lists = ("initContainers", "containers")
    return any(migrates(one) for kind in lists for one in objects(pod, "spec", kind))


def migrations_of(
    workload: JsonObject, revisions: Sequence[DatedRevision], jobs: Iterable[JsonObject]
) -> Mapping[int, str]:
    """What Jobs migrated, by the number of the revision that they belong to: `pod shop-migrate-4-x7k2p`.

    `revisions` are newest first. A Job belongs to the revision whose image it runs, or, with the label of
    the service, to the nearest one in time; never where the revision before has its image too.
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
    """The revision with whose release a Job was started; one that runs its image comes first."""
    at, images, ours = created_at(pod), _images(pod), _of_service(pod, workload)
    near = [
        (not images & _images(mine.template), abs(mine.created_at - at), mine)
        for mine, earlier in pairwise(revisions)
        if abs(mine.created_at - at) <= _WITH_ITS_RELEASE and not images & _images(earlier.template)
    ]
    best = min(near, key=lambda one: one[:2], default=None)
    return None if best is None or (best[0] and not ours) else best[2]


def migrations_inside(revisions: Sequence[DatedRevision], pods: Iterable[PodView]) -> Mapping[int, str]:
    """What init containers migrated, by the number of the revision: `init container migrate`.

    Only where no pod of another version is ready: one that serves shows that its code runs
    against the data. `revisions` are newest first.
    """
    found: dict[int, str] = {}
    running = tuple(pods)
    for mine, earlier in pairwise(revisions):
        own = template_hash(mine.template)
        ran = sorted({one for pod in running if pod.template_hash == own for one in pod.migrated})
        others = (pod for pod in running if pod.template_hash not in (None, own))
        if any(pod.ready for pod in others):
            continue
        new = [one for one in ran if _init(mine.template, one) != _init(earlier.template, one)]
        if new:
            found[mine.number] = f"init container {new[0]}"
    return found


def _init(template: JsonObject, wanted: str) -> JsonObject | None:
    return next(
        (one for one in objects(template, "spec", "initContainers") if text(one, "name") == wanted), None
    )


def _of_service(pod: JsonObject, workload: JsonObject) -> bool:
    labels, service = texts(pod, "metadata", "labels"), service_name(workload)
    return any(labels.get(label) == service for label in _SERVICE_LABELS)


def _images(pod: JsonObject) -> set[str]:
    lists = ("initContainers", "containers")
    found = (text(one, "image") for kind in lists for one in objects(pod, "spec", kind))
    return {image for image in found if image}


def dated(kept: Iterable[tuple[int, JsonObject]]) -> tuple[DatedRevision, ...]:
    """The revisions that ReplicaSets or ControllerRevisions hold, in the given order."""
    return tuple(
        DatedRevision(number=number, created_at=created_at(item), template=template_of(item))
        for number, item in kept
    )

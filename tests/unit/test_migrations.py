"""A migration of data that ran for a release is a reason not to take the release back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.ids import Json, JsonObject
from app.agent.models import ActionName, Cause, Trigger
from app.agent.planner import make_plan
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import mapping
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.reading.store import PodStore
from app.connectors.kubernetes.releases.migrations import is_migration
from app.connectors.kubernetes.templates import RESTARTED_AT
from app.connectors.kubernetes.views import WorkloadObjects, workload_view
from tests.unit.k8s_samples import REF, container, deployment, replica_set, template
from tests.unit.scenes import CATALOGUE, LIMITS, NEW, OLD, at, crashing, evidence, pods, workload

IRREVERSIBLE = "self-healing-devops-agent/irreversible"
NUMBER = "deployment.kubernetes.io/revision"


def job_pod(**changes: Json) -> JsonObject:
    """A pod of a Job that migrated data with the image of revision 2, one minute before it."""
    fields: dict[str, Json] = {
        "name": "shop-db-0042-x7k2p",
        "version": "5",
        "image": "shop:2",
        "command": ["bin/rails", "db:migrate"],
        "phase": "Succeeded",
        "created": "2026-02-20T17:01:00Z",
        "owner": "Job",
        "labels": {"job-name": "shop-db-0042"},
        **changes,
    }
    return {
        "metadata": {
            "name": fields["name"],
            "namespace": "payments",
            "uid": "j-1",
            "resourceVersion": fields["version"],
            "creationTimestamp": fields["created"],
            "labels": fields["labels"],
            "ownerReferences": [{"controller": True, "kind": fields["owner"], "name": "owner", "uid": "o-1"}],
        },
        "spec": {
            "containers": [
                {"name": "run", "image": fields["image"], "command": fields["command"]},
                {"name": "proxy", "image": fields.get("beside") or "none:1"},
            ]
        },
        "status": {
            "phase": fields["phase"],
            "containerStatuses": [
                {"name": "run", "state": {"terminated": {"finishedAt": fields.get("ended")}}}
            ],
        },
    }


def migrated_by(
    *jobs: JsonObject,
    running: tuple[JsonObject, ...] = (),
    said: str | None = None,
    proxy: str = "proxy:1",
) -> list[str | None]:
    """What migrated data for revisions 2 and 1; `said`: what the owners say of revision 2."""
    both = [
        template(
            container(image=f"shop:{number}"),
            container(name="proxy", image="proxy:1" if number == 1 else proxy),
            **_init(number),
        )
        for number in (2, 1)
    ]
    noted: dict[str, Json] = {NUMBER: "2", **({} if said is None else {IRREVERSIBLE: said})}
    found = WorkloadObjects(
        workload=deployment(spec={"template": both[0]}, annotations={NUMBER: "2"}),
        revisions=(replica_set(2, both[0], annotations=noted), replica_set(1, both[1])),
        pods=running,
        config_maps=(),
        events=(),
        migrations=jobs,
    )
    return [one.migrated_by for one in workload_view(found, REF, at(0)).revisions]


def _init(number: int) -> dict[str, Json]:
    return {"initContainers": [{"name": "migrate", "image": f"shop:{number}"}]}


BELONGS: dict[str, tuple[dict[str, Json], bool]] = {
    "the image of the release": ({}, True),
    "another image with the label of the service": (
        {"image": "shop-schema:9", "labels": {"app": "shop"}},
        True,
    ),
    "a run that failed half way": ({"phase": "Failed"}, True),
    "a run under way": ({"phase": "Running"}, True),
    "a run that did not begin": ({"phase": "Pending"}, False),
    "the image of the version before": ({"image": "shop:1", "labels": {"app": "shop"}}, False),
    "another service": ({"image": "search:7", "labels": {"app": "search"}}, False),
    "the image of the release, hours later": ({"created": "2026-02-20T20:01:00Z"}, True),
    "the label of the service, hours later": (
        {"image": "shop-schema:9", "labels": {"app": "shop"}, "created": "2026-02-20T20:01:00Z"},
        False,
    ),
    "a long run that ended before the release": (
        {
            "image": "shop-schema:9",
            "labels": {"app": "shop"},
            "created": "2026-02-20T15:01:00Z",
            "ended": "2026-02-20T17:01:00Z",
        },
        True,
    ),
    "the same proxy as both revisions": ({"beside": "proxy:1"}, True),
    "another service with a new proxy": (
        {"image": "search:7", "labels": {"app": "search"}, "beside": "proxy:2"},
        False,
    ),
    "a run of a CronJob": ({"labels": {"job-name": "shop-db-migrate-29384756"}}, False),
    "a batch of another purpose": ({"command": ["bin/report"], "name": "shop-report-1"}, False),
}


@pytest.mark.parametrize("pruned_before", [True, False])
@pytest.mark.parametrize("case", BELONGS)
def test_a_job_that_migrated_data_belongs_to_its_release(case: str, pruned_before: bool) -> None:
    """By its image, or by the label of the service; the cache keeps the image, and no command."""
    changes, belongs = BELONGS[case]
    pod = job_pod(**changes)
    kept = pruned(Kind.POD, pod) if pruned_before else pod
    jobs = (kept,) if is_migration(kept) else ()
    said = f"pod {changes.get('name', 'shop-db-0042-x7k2p')}"
    proxy = "proxy:2" if changes.get("beside") == "proxy:2" else "proxy:1"
    assert migrated_by(*jobs, proxy=proxy) == [said if belongs else None, None]
    assert ("command" in str(kept)) is not pruned_before


def test_owners_say_that_older_code_runs_against_migrated_data() -> None:
    assert migrated_by(job_pod(), said="false") == [None, None]


def init_pod(number: int, *, ready: bool, code: int = 0) -> JsonObject:
    """A pod of a revision whose init container `migrate` ended."""
    ended: JsonObject = {"terminated": {"exitCode": code, "reason": "Completed"}}
    return {
        "metadata": {
            "name": f"shop-{number}-x",
            "uid": f"p-{number}",
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "uid": f"rs-{number}"}],
        },
        "spec": {"initContainers": [{"name": "migrate", "image": f"shop:{number}"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "initContainerStatuses": [{"name": "migrate", "ready": True, "state": ended}],
        },
    }


def test_an_init_container_that_migrated_data_belongs_to_its_release() -> None:
    """Unless a pod of the version before serves beside it: its code runs against the data."""
    new = init_pod(2, ready=False)
    assert migrated_by(running=(new,)) == ["init container migrate", None]
    assert migrated_by(running=(new, init_pod(1, ready=True))) == [None, None]
    assert migrated_by(running=(new, init_pod(1, ready=False))) == ["init container migrate", None]
    assert migrated_by(running=(init_pod(2, ready=False, code=1),)) == [None, None]


def test_a_restart_keeps_what_an_init_container_migrated() -> None:
    """The restarted revision has the same init container; the one before it is still not gone back to."""
    templates = [template(container(image=f"shop:{number}"), **_init(number)) for number in (2, 2, 1)]
    templates[0]["metadata"] = {**mapping(templates[0], "metadata"), "annotations": {RESTARTED_AT: "now"}}
    found = WorkloadObjects(
        workload=deployment(spec={"template": templates[0]}, annotations={NUMBER: "3"}),
        revisions=tuple(
            replica_set(number, one, annotations={NUMBER: str(number)})
            for number, one in zip((3, 2, 1), templates, strict=True)
        ),
        pods=(init_pod(3, ready=True), init_pod(2, ready=True)),
        config_maps=(),
        events=(),
    )
    migrated = [one.migrated_by for one in workload_view(found, REF, at(0)).revisions]
    assert migrated == [None, "init container migrate", None]


def test_the_store_of_pods_finds_migrations_without_reading_every_pod() -> None:
    store = PodStore()
    store.put(job_pod())
    store.put(init_pod(2, ready=True))
    assert [pod["metadata"] for pod in store.migrations("payments")] == [
        pruned(Kind.POD, job_pod())["metadata"]
    ]
    store.put(job_pod(command=["bin/report"], version="6"))
    assert store.migrations("payments") == ()
    store.put(job_pod())
    store.remove(("payments", "shop-db-0042-x7k2p"))
    assert store.migrations("payments") == ()


def test_a_release_that_migrated_data_is_left_to_a_person() -> None:
    """The same release without a migration is rolled back."""
    moved = replace(NEW, migrated_by="pod shop-db-0042-x7k2p")
    for new, cause, expected in (
        (NEW, Cause.BAD_RELEASE, [ActionName.ROLLBACK]),
        (moved, Cause.IRREVERSIBLE_RELEASE, []),
    ):
        view = workload([new, OLD], (*crashing(new, 1), *pods(OLD, 3)))
        seen = evidence(Trigger.CRASH_LOOP, workload=view)
        found = diagnose(seen)
        assert found.hypotheses[0].cause is cause
        assert [action.name for action in make_plan(found, seen, CATALOGUE, LIMITS).actions] == expected
    assert "the release migrated data (pod shop-db-0042-x7k2p)" in found.hypotheses[0].evidence_for

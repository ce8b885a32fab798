"""From when a revision dates: its creation, or the last time that its template was asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.agent.ids import Json, JsonObject
from app.connectors.kubernetes.views import WorkloadObjects, workload_view
from tests.unit.k8s_samples import REF, container, deployment, replica_set, template

NOW = datetime(2026, 2, 20, 18, tzinfo=UTC)
OLD, BROKEN = template(), template(container(image="shop:2"))
"""Revisions 1 and 2; the Deployment went back to the first, which is revision 3 since."""


def at(minute: int) -> datetime:
    return datetime(2026, 2, 20, 17, minute, tzinfo=UTC)


def went_back(
    *,
    written: str | None = "2026-02-20T17:30:00Z",
    first_pod: str | None = "2026-02-20T17:31:00Z",
    rolled_out: str | None = "2026-02-20T17:32:00Z",
    history: str | None = "1",
    updated: int = 2,
    writer: str = "kubectl",
) -> datetime:
    """The date of the revision in force."""
    marks = {} if history is None else {"deployment.kubernetes.io/revision-history": history}
    kept = replica_set(
        3,
        OLD,
        creationTimestamp="2026-02-20T17:01:00Z",
        annotations={"deployment.kubernetes.io/revision": "3", **marks},
    )
    by: list[Json] = [
        {"manager": writer, "time": written, "fieldsV1": {"f:spec": {"f:template": {}, "f:replicas": {}}}}
    ]
    pods: tuple[JsonObject, ...] = (
        {
            "metadata": {
                "name": "shop-3-x",
                "uid": "p-1",
                "creationTimestamp": first_pod,
                "ownerReferences": [{"controller": True, "uid": "rs-3"}],
            }
        },
    )
    reason = "ReplicaSetUpdated" if rolled_out is None else "NewReplicaSetAvailable"
    workload = deployment(
        annotations={"deployment.kubernetes.io/revision": "3"},
        managedFields=by if written is not None else [],
        status={
            "observedGeneration": 3,
            "replicas": 2,
            "updatedReplicas": updated,
            "conditions": [{"type": "Progressing", "reason": reason, "lastUpdateTime": rolled_out}],
        },
    )
    view = workload_view(
        WorkloadObjects(
            workload=workload,
            revisions=(replica_set(2, BROKEN), kept),
            pods=pods if first_pod is not None else (),
            config_maps=(),
            events=(),
        ),
        REF,
        NOW,
    )
    assert [revision.number for revision in view.revisions] == [3, 2]
    assert view.revisions[1].created_at == at(2)
    return view.revisions[0].created_at


def test_a_template_that_came_back_dates_from_its_write() -> None:
    """Not from the age of its ReplicaSet."""
    assert went_back() == at(30)


def test_what_the_agent_brought_back_is_no_release() -> None:
    """A rollback or an undo: the revision keeps the date of its release."""
    assert went_back(writer="self-healing-devops-agent") == at(1)


def test_a_revision_that_never_was_replaced_keeps_its_age() -> None:
    """Whatever its writer changed since."""
    assert went_back(history=None) == at(1)


@pytest.mark.parametrize(
    ("first_pod", "rolled_out", "expected"),
    [
        ("2026-02-20T17:20:00Z", "2026-02-20T17:45:00Z", at(20)),
        ("2026-02-20T17:45:00Z", "2026-02-20T17:25:00Z", at(25)),
        (None, "2026-02-20T17:25:00Z", at(25)),
        (None, None, at(40)),
    ],
    ids=["pods are older", "pods were replaced since", "no pods are left", "nothing else is known"],
)
def test_a_later_write_of_another_field_makes_no_release_of_now(
    first_pod: str | None, rolled_out: str | None, expected: datetime
) -> None:
    """The writer set the number of replicas at 17:40; the template was in force before."""
    dated = went_back(written="2026-02-20T17:40:00Z", first_pod=first_pod, rolled_out=rolled_out)
    assert dated == expected


def test_it_is_never_older_than_the_revisions_before_it() -> None:
    """Pods that were left from the first time, and the end of an earlier rollout, say nothing of this one."""
    assert went_back(first_pod="2026-02-20T17:01:00Z", rolled_out="2026-02-20T17:01:30Z") == at(2)
    assert went_back(rolled_out="2026-02-20T17:01:30Z", updated=1) == at(30)


def test_without_a_writer_the_pods_date_it() -> None:
    """An API server that keeps no `managedFields`."""
    assert went_back(written=None, rolled_out=None) == at(31)
    assert went_back(written=None, rolled_out=None, first_pod=None) == at(2)

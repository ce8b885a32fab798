"""The promises of the cluster ports for each kind of workload, for every cluster behind them.

A test module of an adapter imports these tests with `*`, beside those of `cluster_suite`.
"""

from __future__ import annotations

import pytest

from app.agent.actions.target_parts import as_left, same_ground
from app.agent.evidence.cluster.held_up import waited_for, why_kept
from app.agent.evidence.conditions import workload_conditions
from app.agent.evidence.facts import older_pods
from app.agent.guardrails.target_token import READY, TERMINATING, object_token
from app.agent.models import ActionName, Condition
from app.agent.ports.cluster import PodOwner
from app.agent.workload import ObjectRef, WorkloadView
from app.errors import Conflict, Invalid, PermanentError
from tests.contract.cluster_harness import CRASHING_IMAGE, GOOD_IMAGE, RELEASED_AT, ClusterHarness
from tests.contract.cluster_suite import (
    INTENT,
    OTHER_INTENT,
    action,
    apply,
    crashes,
    key_of,
    older_than_a_second,
    rolled_out,
    runs,
)

KINDS = ("StatefulSet", "DaemonSet")


def ref_of(cluster: ClusterHarness, kind: str) -> ObjectRef:
    return cluster.ref(kind, "shop")


async def deploy(cluster: ClusterHarness, kind: str) -> WorkloadView:
    await cluster.deploy("shop", service="shop", replicas=3, kind=kind)
    return await cluster.until(key_of(cluster), lambda view: rolled_out(view) and view.desired_replicas > 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crashing_release_of_any_kind_is_undone_and_brought_again(
    cluster: ClusterHarness, kind: str
) -> None:
    """Read with revisions, pods and owners; rolled back by revision, once; undone from the snapshot."""
    before, ref, reader = await deploy(cluster, kind), ref_of(cluster, kind), cluster.ports.reader
    assert before.target.ref == ref
    assert (before.available_replicas, before.current_revision) == (before.desired_replicas, 1)
    [first] = before.revisions
    assert (first.replicas, first.ready_replicas) == (before.desired_replicas, before.desired_replicas)
    assert {pod.template_hash for pod in before.pods} == {first.template_hash}
    owner = await cluster.ports.owners.owner(cluster.ref("Pod", before.pods[0].name))
    assert owner == PodOwner(kind=kind, name="shop", key=key_of(cluster))
    assert key_of(cluster) in await reader.services()

    await cluster.set_image("shop", CRASHING_IMAGE)
    view = await cluster.until(key_of(cluster), crashes)
    assert Condition.CRASH_LOOP_BACK_OFF in workload_conditions(view)
    assert [revision.number for revision in view.revisions] == [2, 1]
    assert view.current_revision == 2
    assert older_pods(view)
    assert not view.rollout_complete

    back = action(ActionName.ROLLBACK, ref, revision=1)
    snapshot, decided = await reader.snapshot(back), await reader.target(back)
    answer = await cluster.ports.rehearsal.rehearse(back, decided, None)
    assert answer.accepted, answer.message
    assert "would be admitted" in answer.message
    disruption = await reader.disruption(back)
    assert disruption is not None
    assert (disruption.replicas, disruption.missing_at_once) == (before.desired_replicas, 1)
    applied = await apply(cluster, back)
    assert applied.marker == INTENT
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(back, INTENT, decided, None)
    view = await cluster.until(key_of(cluster), runs(GOOD_IMAGE))
    assert view.revisions[0].template_hash == first.template_hash
    assert view.revisions[0].created_at == first.created_at, "what the agent brings back is no release"
    assert as_left(back, applied.token, view.target.token)

    undo = action(ActionName.RESTORE, ref, undoes="rollback")
    await apply(cluster, undo, intent_id=OTHER_INTENT, snapshot=snapshot)
    view = await cluster.until(key_of(cluster), crashes)
    assert not as_left(back, applied.token, view.target.token)


@pytest.mark.parametrize("kind", ["Deployment", *KINDS])
async def test_a_template_of_any_kind_that_is_released_again_is_a_release_of_then(
    cluster: ClusterHarness, kind: str
) -> None:
    """Its ReplicaSet or ControllerRevision is kept and keeps its age."""
    await deploy(cluster, kind)
    first = (await cluster.until(key_of(cluster), older_than_a_second)).revisions[0]
    await cluster.set_image("shop", CRASHING_IMAGE)
    broken = (await cluster.until(key_of(cluster), crashes)).revisions[0]
    await cluster.set_image("shop", GOOD_IMAGE)
    again = (await cluster.until(key_of(cluster), lambda view: view.current_revision == 3)).revisions[0]
    assert (again.number, again.template_hash) == (3, first.template_hash)
    assert first.created_at < broken.created_at <= again.created_at


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_of_any_kind_replaces_every_pod_and_changes_no_version(
    cluster: ClusterHarness, kind: str
) -> None:
    """What its kind cannot do is refused by the port as well; a StatefulSet is scaled up beside."""
    before, ref = await deploy(cluster, kind), ref_of(cluster, kind)
    again = action(ActionName.RESTART, ref)
    decided = await cluster.ports.reader.target(again)
    await apply(cluster, again)
    view = await cluster.until(key_of(cluster), lambda seen: rolled_out(seen) and seen.current_revision == 2)
    assert len(view.pods) == len(before.pods)
    assert older_pods(view) == ()
    assert view.revisions[0].code_hash == before.revisions[0].code_hash
    assert view.revisions[0].config_hash == before.revisions[0].config_hash
    assert not same_ground(again, decided.token, view.target.token)
    pause = action(ActionName.PAUSE, ref)
    with pytest.raises(Invalid, match=kind):
        await cluster.ports.writer.apply(pause, INTENT, view.target, None)
    scale = action(ActionName.SCALE, ref, replicas=4)
    if kind != "StatefulSet":
        with pytest.raises(PermanentError, match=kind):
            await cluster.ports.writer.apply(scale, OTHER_INTENT, view.target, None)
        return
    await apply(cluster, scale, intent_id=OTHER_INTENT)
    view = await cluster.until(key_of(cluster), lambda seen: rolled_out(seen) and len(seen.pods) == 4)
    assert view.desired_replicas == 4


async def test_a_rollback_of_an_ordered_stateful_set_takes_effect_once_its_stuck_pod_is_deleted(
    cluster: ClusterHarness,
) -> None:
    """The controller waits for the pod that the release broke; that very pod is deleted, and once."""
    await cluster.deploy("shop", service="shop", replicas=3, kind="StatefulSet", ordered=True)
    await cluster.until(key_of(cluster), rolled_out)
    await cluster.set_image("shop", CRASHING_IMAGE)
    view = await cluster.until(key_of(cluster), crashes)
    [stuck] = waited_for(view)
    assert (stuck.name, why_kept(view)) == ("shop-2", None)
    back = action(ActionName.ROLLBACK, ref_of(cluster, "StatefulSet"), revision=1)
    await apply(cluster, back)
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.spec_observed and seen.current_revision == 3
    )
    assert [pod.uid for pod in waited_for(view)] == [stuck.uid]
    assert why_kept(view, changed=True) is None
    assert why_kept(view) is not None  # it does not run the current revision

    delete = action(ActionName.DELETE_STUCK_POD, cluster.ref("Pod", stuck.name))
    decided = await cluster.ports.reader.target(delete)
    planned = object_token(stuck.uid, {READY: "false", TERMINATING: "false"})
    assert same_ground(delete, planned, decided.token)
    answer = await cluster.ports.rehearsal.rehearse(delete, decided, None)
    assert answer.accepted, answer.message
    await apply(cluster, delete, intent_id=OTHER_INTENT)
    view = await cluster.until(key_of(cluster), rolled_out)
    assert {pod.name: pod.uid == stuck.uid for pod in view.pods} == dict.fromkeys(
        ("shop-0", "shop-1", "shop-2"), False
    )
    assert not same_ground(delete, planned, (await cluster.ports.reader.target(delete)).token)
    with pytest.raises((Conflict, Invalid)):
        await cluster.ports.writer.apply(delete, OTHER_INTENT, decided, None)


async def test_the_revisions_of_a_release_are_read_newest_first(cluster: ClusterHarness) -> None:
    """With their status; those of another release, and of a workload that no release wrote, are not."""
    await cluster.deploy("shop", service="shop", annotations={"meta.helm.sh/release-name": "store"})
    await cluster.deploy("cart", service="cart")
    for revision, status in ((1, "superseded"), (2, "deployed"), (3, "pending-upgrade")):
        await cluster.record_release("store", revision, status)
    await cluster.record_release("other", 9, "deployed")
    view = await cluster.until(key_of(cluster), lambda seen: seen.spec_observed)
    assert view.released_by == "Helm release store"
    assert [(one.revision, one.status) for one in view.release_records] == [
        (3, "pending-upgrade"),
        (2, "deployed"),
        (1, "superseded"),
    ]
    newest = view.release_records[0]
    assert (newest.pending, newest.at.timestamp()) == (True, RELEASED_AT + 3)
    begun = [one.begun_at for one in view.release_records]  # whatever was written on them since
    assert all(abs((one - view.observed_at).total_seconds()) < 3600 for one in begun)
    view = await cluster.until(key_of(cluster, "cart"), lambda seen: seen.spec_observed)
    assert (view.released_by, view.release_records) == (None, ())


async def test_a_workload_that_is_no_service_is_named_with_the_reason(cluster: ClusterHarness) -> None:
    """Two share a service, and a third claims the name of one of them."""
    await cluster.deploy("basket", service="shop")
    await cluster.deploy("cart", service="shop")
    assert await cluster.ports.coverage.unwatched() == ()
    await cluster.deploy("till", service="basket", kind="DaemonSet")
    view = await cluster.until(key_of(cluster, "basket"), lambda seen: seen.target.ref.kind == "DaemonSet")
    assert view.target.ref.name == "till"
    [unwatched] = await cluster.ports.coverage.unwatched()
    assert unwatched.what == f"Deployment {cluster.namespace}/basket"
    assert unwatched.why

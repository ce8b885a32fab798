"""How an informer waits, resumes and does without a kind, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.controllers import ABSENT_FOR
from app.connectors.kubernetes.fields import kind_of
from app.connectors.kubernetes.reading.informer import Informer, InformerState, WatchTiming
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.reading.store import ObjectStore
from app.connectors.kubernetes.templates import template_of
from app.connectors.kubernetes.views import WorkloadObjects, revision_number, workload_view
from app.errors import AgentError, Forbidden, NotFound, TransientError
from app.testing import VirtualClock
from tests.contract.collection import DOWN, Collection, ended, informer_of, kept
from tests.unit.k8s_samples import REF, config_map, container, deployment, replica_set, template

REFUSED = TransientError("connection refused")
Started = Callable[..., Informer]


@pytest.fixture
def clock() -> VirtualClock:
    """Passes only when a test says so."""
    return VirtualClock()


@pytest.fixture
def collection() -> Collection:
    """Two ConfigMaps."""
    made = Collection()
    made.put("one", "a")
    made.put("two", "a")
    return made


@pytest.fixture
async def started(collection: Collection, clock: VirtualClock) -> AsyncIterator[Started]:
    """An informer at work."""
    tasks: list[asyncio.Task[None]] = []

    def start(**changes: object) -> Informer:
        informer = informer_of(collection, clock, **changes)
        tasks.append(asyncio.create_task(informer.run()))
        return informer

    yield start
    await ended(tasks)


@pytest.mark.parametrize(("jitter", "pauses"), [(0.0, [0.25, 0.5, 1.0]), (1.0, [0.5, 1.0, 2.0])])
async def test_pauses_double_and_are_spread_over_half_of_each(
    started: Started, collection: Collection, clock: VirtualClock, jitter: float, pauses: list[float]
) -> None:
    """Many agents that lost one server do not come back at one moment."""
    collection.refused = [REFUSED] * DOWN
    started(jitter=lambda: jitter)
    await clock.settle()
    for number, seconds in enumerate(pauses, start=1):
        assert collection.turned_away == number
        await clock.advance(seconds - 0.01)
        assert collection.turned_away == number
        await clock.advance(0.01)
    assert collection.turned_away == len(pauses) + 1


async def test_pauses_are_bounded_and_start_again_after_success(
    started: Started, collection: Collection, clock: VirtualClock
) -> None:
    """At most 30 s; what the server asks for is waited for, however long."""
    collection.refused = [REFUSED] * 20
    started()
    await clock.advance(20 * 30)
    assert collection.asked == ["list", "watch 2"]
    collection.put("three", "a")
    await clock.settle()
    collection.refused = [TransientError("busy", retry_after=timedelta(seconds=90))]
    collection.cut()
    await clock.advance(0.5)
    assert collection.turned_away == 21
    await clock.advance(89)
    assert collection.asked == ["list", "watch 2"]
    await clock.advance(1)
    assert collection.asked == ["list", "watch 2", "watch 3"]


async def test_a_bookmark_moves_the_version_to_resume_from(
    started: Started, collection: Collection, clock: VirtualClock
) -> None:
    """A collection in which nothing happens does not expire while others change."""
    started()
    await clock.settle()
    collection._version = 500  # other collections of the server changed
    collection.bookmark()
    await clock.settle()
    collection.compact()
    collection.cut()
    await clock.advance(1)
    assert collection.asked == ["list", "watch 2", "watch 500"]


async def test_after_several_failed_attempts_the_objects_are_listed_again(
    started: Started, collection: Collection, clock: VirtualClock
) -> None:
    """A version from a future that the server no longer knows is not asked about for ever."""
    informer = started(timing=WatchTiming(resumes=3))
    await clock.settle()
    collection.refused = [REFUSED] * 3
    collection.cut()
    await clock.advance(60)
    assert collection.asked == ["list", "watch 2", "list", "watch 2"]
    assert informer.state is InformerState.CURRENT


async def test_the_store_stands_in_for_the_server_only_while_it_is_watched(
    started: Started, collection: Collection, clock: VirtualClock
) -> None:
    """Not before the first list, and not while a watch is interrupted."""
    collection.refused = [REFUSED]
    informer = started()
    await clock.settle()
    assert (informer.state, informer.settled.is_set()) == (InformerState.STARTING, False)
    await clock.advance(1)
    assert (informer.state, informer.settled.is_set()) == (InformerState.CURRENT, True)
    collection.refused = [REFUSED] * 2
    collection.cut()
    await clock.settle()
    assert informer.state.name == "BEHIND"
    await clock.advance(10)
    assert informer.state.name == "CURRENT"


@pytest.mark.parametrize(
    ("error", "state", "refusal"),
    [
        (NotFound("404 page not found"), InformerState.ABSENT, None),
        (Forbidden("cannot list"), InformerState.REFUSED, "cannot list"),
    ],
)
async def test_a_kind_that_cannot_be_read_is_left_out_for_a_while(
    started: Started,
    collection: Collection,
    clock: VirtualClock,
    error: AgentError,
    state: InformerState,
    refusal: str | None,
) -> None:
    """It is asked for again when it may have been installed, or the right granted."""
    collection.refused = [error]
    informer = started(required=False)
    await clock.settle()
    assert (informer.state, informer.refusal, informer.settled.is_set()) == (state, refusal, True)
    await clock.advance(ABSENT_FOR.total_seconds() * 1.25)
    assert (informer.state, set(kept(informer))) == (InformerState.CURRENT, {"one", "two"})


async def test_a_required_kind_that_is_forbidden_ends_the_informer(
    collection: Collection, clock: VirtualClock
) -> None:
    """The watcher reports it and starts again later."""
    collection.refused = [Forbidden("cannot list")]
    with pytest.raises(Forbidden):
        await informer_of(collection, clock).run()


async def test_only_what_changed_is_reported(
    started: Started, collection: Collection, clock: VirtualClock
) -> None:
    """A list after 410 reports the difference; watches end at different times."""
    told: list[tuple[str, bool]] = []

    def changed(_: Kind, item: JsonObject, present: bool) -> None:
        told.append((str(item["metadata"]["name"]), present))  # type: ignore[index, call-overload] # it has a name

    started(changed=changed, jitter=lambda: 0.5)
    await clock.settle()
    assert told == [("one", True), ("two", True)]
    collection.cut()
    collection.put("two", "b")
    collection.delete("one")
    collection.put("three", "c")
    collection.compact()
    await clock.advance(5)
    assert sorted(told[2:]) == [("one", False), ("three", True), ("two", True)]
    assert set(collection.seconds) == {270}


# ---------------------------------------------------------------- what is kept


def test_an_object_that_was_made_again_leaves_no_trace_of_the_first() -> None:
    """A pod of the same name with another owner is found by that owner alone."""
    store = ObjectStore(Kind.POD)
    assert store.put(_pod())
    assert not store.put(_pod())
    [found] = store.owned_by("rs-2")
    assert store.owner_of("p-1") == "rs-2"
    assert store.size[0] == 1
    owner: JsonObject = {"controller": True, "kind": "ReplicaSet", "name": "shop-3", "uid": "rs-3"}
    metadata: JsonObject = {
        "name": "shop-1",
        "namespace": "payments",
        "uid": "p-2",
        "ownerReferences": [owner],
    }
    again: JsonObject = {**found, "metadata": metadata}
    assert store.put(again)
    assert (list(store.owned_by("rs-2")), store.owner_of("p-1"), store.owner_of("p-2")) == ([], None, "rs-3")
    assert store.remove(("payments", "shop-1")) is not None
    assert (list(store.owned_by("rs-3")), store.owner_of("p-2"), store.size) == ([], None, (0, 0))


def test_a_view_of_pruned_objects_equals_the_view_of_whole_ones(clock: VirtualClock) -> None:
    """No field that is read is dropped; the contents of ConfigMaps and their second copies are."""
    entry: JsonObject = {
        "manager": "kubectl",
        "operation": "Update",
        "time": "2026-02-20T17:00:00Z",
        "fieldsV1": {"f:data": {"f:mode": {}}, "f:metadata": {"f:annotations": {}}},
    }
    scale: JsonObject = {**entry, "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}}}}
    secret = "swordfish"
    with_config = template(container(envFrom=[{"configMapRef": {"name": "shop-config"}}]))
    applied: JsonObject = {"kubectl.kubernetes.io/last-applied-configuration": secret}
    whole: dict[Kind, JsonObject] = {
        Kind.DEPLOYMENT: deployment(
            spec={"template": with_config},
            status={"readyReplicas": 1, "conditions": [{"type": "Progressing", "reason": "x"}]},
            managedFields=[scale],
            annotations={**applied, "deployment.kubernetes.io/revision": "2"},
        ),
        Kind.REPLICA_SET: replica_set(2, with_config),
        Kind.POD: _pod(),
        Kind.CONFIG_MAP: config_map(
            data={"mode": secret}, binaryData={"key": "c3dvcmRmaXNo"}, managedFields=[entry]
        ),
        Kind.EVENT: {
            "metadata": {"name": "e", "namespace": "payments"},
            "involvedObject": {"uid": "p-1"},
            "reason": "BackOff",
            "message": "again",
            "lastTimestamp": "2026-02-20T17:03:00Z",
        },
    }
    whole[Kind.CONFIG_MAP]["metadata"]["annotations"] = applied  # type: ignore[index, call-overload] # an object
    evicted = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    whole[Kind.POD]["status"] |= evicted  # type: ignore[operator] # an object
    kept_parts = {kind: pruned(kind, item) for kind, item in whole.items()}
    assert secret not in str(kept_parts)

    def view(parts: dict[Kind, JsonObject]) -> object:
        found = WorkloadObjects(
            workload=parts[Kind.DEPLOYMENT],
            revisions=(parts[Kind.REPLICA_SET],),
            pods=(parts[Kind.POD],),
            config_maps=(parts[Kind.CONFIG_MAP],),
            events=(parts[Kind.EVENT],),
        )
        return workload_view(found, REF, clock.now())

    assert view(kept_parts) == view(whole)
    revision: JsonObject = {
        "metadata": {"name": "shop-7d9c", "namespace": "payments", "uid": "cr-1"},
        "revision": 3,
        "data": {"spec": {"template": with_config}},
        "kind": "ControllerRevision",
    }
    kept_revision = pruned(Kind.CONTROLLER_REVISION, revision)
    assert template_of(kept_revision) == template_of(revision)
    assert (revision_number(kept_revision), kind_of(kept_revision)) == (3, "ControllerRevision")


def _pod() -> JsonObject:
    ended: JsonObject = {"reason": "Error", "exitCode": 1, "finishedAt": "2026-02-20T17:02:00Z"}
    return {
        "metadata": {
            "name": "shop-1",
            "namespace": "payments",
            "uid": "p-1",
            "resourceVersion": "7",
            "creationTimestamp": "2026-02-20T17:01:00Z",
            "labels": {"app": "shop"},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "shop-2", "uid": "rs-2"}],
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "mesh", "restartPolicy": "Always", "image": "mesh:1"}],
            "containers": [container()],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-02-20T17:02:00Z"},
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"},
            ],
            "initContainerStatuses": [{"name": "mesh", "ready": True, "restartCount": 0}],
            "containerStatuses": [
                {
                    "name": "app",
                    "ready": False,
                    "restartCount": 3,
                    "imageID": f"registry/shop@sha256:{'a' * 64}",
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": ended},
                }
            ],
        },
    }

"""StatefulSets and DaemonSets in the simulated world: which pods their controllers replace, and when."""

from __future__ import annotations

import pytest

from app.sandbox.objects import StatefulSet
from app.sandbox.scenarios.document import (
    BehaviourSpec,
    DeletePodEvent,
    NodeEvent,
    ReleaseEvent,
    ScaleEvent,
    ServiceSpec,
    Topology,
)
from app.sandbox.scenarios.stage import NAMESPACE, image_of
from tests.unit.test_scenario_world import Play

OLD, NEW, FIXED = "1.0.0", "1.1.0", "1.2.0"


def of(spec: ServiceSpec, nodes: int = 4) -> Play:
    return Play(Topology(services=(spec,), nodes=nodes))


def stateful(**changes: object) -> Play:
    return of(ServiceSpec(name="db", kind="StatefulSet", load=40.0, replicas=3, **changes))  # type: ignore[arg-type]  # a test names real fields


def release(version: str = NEW, **behaviour: object) -> ReleaseEvent:
    return ReleaseEvent(at=0, service="db", version=version, behaviour=BehaviourSpec(**behaviour))  # type: ignore[arg-type]  # a test names real fields


def versions(play: Play) -> dict[str, str]:
    """The version of each pod, by name."""
    return {pod.meta.name: pod.template.image.rpartition(":")[2] for pod in play.pods("db")}


def all_of(version: str) -> dict[str, str]:
    return dict.fromkeys(("db-0", "db-1", "db-2"), version)


def put_back(play: Play) -> None:
    """The earlier template again."""
    workload = play.world.api.get(StatefulSet, NAMESPACE, "db")
    assert workload.settled is not None
    play.world.set_template(NAMESPACE, "db", workload.settled)
    play.after(120)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_good_release_reaches_every_pod_one_after_another(ordered: bool) -> None:
    """From the highest ordinal down; at no time more than one is missing."""
    play = stateful(ordered=ordered)
    play.happens(release(), 0.2)
    assert versions(play) in ({"db-0": OLD, "db-1": OLD}, {"db-0": OLD, "db-1": OLD, "db-2": NEW})
    for _ in range(60):
        play.after(0.2)
        assert sum(pod.ready for pod in play.pods("db")) >= 2
    play.after(60)
    assert versions(play) == all_of(NEW)


def test_an_ordered_stateful_set_waits_for_the_pod_that_a_release_broke() -> None:
    """The template that is put back reaches it only when someone deletes it."""
    play = stateful()
    play.happens(release(crashes=True))
    assert versions(play) == all_of(OLD) | {"db-2": NEW}
    broken = next(pod for pod in play.pods("db") if pod.meta.name == "db-2")
    put_back(play)
    assert versions(play) == all_of(OLD) | {"db-2": NEW}
    play.happens(DeletePodEvent(at=0, service="db", pod=2))
    assert versions(play) == all_of(OLD)
    replaced = next(pod for pod in play.pods("db") if pod.meta.name == "db-2")
    assert replaced.ready
    assert replaced.meta.uid != broken.meta.uid


def test_a_parallel_stateful_set_replaces_the_broken_pod_itself() -> None:
    """Its controller does not wait for a pod of another revision."""
    play = stateful(ordered=False)
    play.happens(release(crashes=True))
    assert versions(play) == all_of(OLD) | {"db-2": NEW}
    put_back(play)
    assert versions(play) == all_of(OLD)


def test_with_on_delete_a_pod_takes_a_version_when_someone_deletes_it() -> None:
    play = stateful(on_delete=True)
    play.happens(release())
    assert versions(play) == all_of(OLD)
    play.happens(DeletePodEvent(at=0, service="db", pod=1))
    assert versions(play) == all_of(OLD) | {"db-1": NEW}


def test_pods_below_a_partition_keep_their_version_when_they_are_made_again() -> None:
    play = stateful(partition=2)
    play.happens(release())
    assert versions(play) == all_of(OLD) | {"db-2": NEW}
    play.happens(DeletePodEvent(at=0, service="db", pod=0))
    assert versions(play) == all_of(OLD) | {"db-2": NEW}


def test_a_stateful_set_is_scaled_at_its_highest_ordinals() -> None:
    play = stateful()
    play.happens(ScaleEvent(at=0, service="db", replicas=4))
    assert sorted(versions(play)) == ["db-0", "db-1", "db-2", "db-3"]
    play.happens(ScaleEvent(at=0, service="db", replicas=2))
    assert sorted(versions(play)) == ["db-0", "db-1"]


def test_a_daemon_set_has_one_pod_on_each_of_its_nodes_and_misses_one_at_a_time() -> None:
    """A release that fails stops at its first node; one after it replaces the broken pod first."""
    play = of(ServiceSpec(name="db", kind="DaemonSet", load=40.0, on_nodes=("node-1", "node-3", "node-4")))
    assert sorted(pod.node or "" for pod in play.pods("db")) == ["node-1", "node-3", "node-4"]
    play.happens(release(crashes=True))
    assert sorted(versions(play).values()) == [OLD, OLD, NEW]
    play.happens(release(FIXED))
    assert set(versions(play).values()) == {FIXED}
    assert sorted(pod.node or "" for pod in play.pods("db")) == ["node-1", "node-3", "node-4"]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_a_pod_on_a_lost_node_is_not_replaced(kind: str) -> None:
    """It may still run there. A pod of a Deployment is replaced after five minutes."""
    play = of(ServiceSpec(name="db", kind=kind, load=40.0, replicas=4))  # type: ignore[arg-type]  # one of the kinds
    before = {pod.meta.uid for pod in play.pods("db")}
    play.happens(NodeEvent(at=0, node="node-1", lost=True), 900)
    assert {pod.meta.uid for pod in play.pods("db")} == before
    assert sum(pod.ready for pod in play.pods("db")) == 3
    play.happens(NodeEvent(at=0, node="node-1", lost=False), 60)
    assert all(pod.ready for pod in play.pods("db"))


def test_the_image_of_a_service_names_its_version() -> None:
    """What `versions` above relies on."""
    assert image_of("db", OLD).rpartition(":")[2] == OLD

"""Which pods of a node a drain evicts, from plain objects; and whether the rest fits on the other nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.guardrails.drains import (
    MOST_EVICTIONS,
    NodeLoad,
    NodePod,
    NodeRoom,
    cannot_drain,
    without_room,
)
from app.agent.ids import JsonObject
from app.agent.models import ActionName
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.views.nodes import node_pod, room_of, takes_pods
from tests.unit.test_cordons import CORDON

DRAIN = replace(CORDON, name=ActionName.DRAIN_NODE)
POD = NodePod(ref=ObjectRef(kind="Pod", namespace="shop", name="cart-1"), uid="1", owner="ReplicaSet")
ROOM = NodeRoom(name="node-2", pods=110, cpu_millis=4000, memory_bytes=2**33)


def pod(*, owner: str | None = "ReplicaSet", spec: JsonObject | None = None, **metadata: object) -> NodePod:
    owners = [] if owner is None else [{"kind": owner, "name": "cart", "uid": "9", "controller": True}]
    about = {"name": "cart-1", "namespace": "shop", "uid": "1", "ownerReferences": owners, **metadata}
    return node_pod({"metadata": about, "spec": spec or {}})  # type: ignore[dict-item] # plain objects


@pytest.mark.parametrize(
    ("found", "moves", "obstacle"),
    [
        (pod(), True, None),
        (pod(owner="DaemonSet"), False, None),
        (pod(owner="Node", annotations={"kubernetes.io/config.mirror": "x"}), False, None),
        (pod(deletionTimestamp="2026-02-20T17:00:00Z"), False, None),
        (pod(owner=None), True, "no controller would recreate it"),
        (pod(spec={"volumes": [{"name": "a", "emptyDir": {}}]}), True, "its local data would be deleted"),
        (pod(spec={"volumes": [{"name": "a", "configMap": {"name": "c"}}]}), True, None),
        (pod(annotations={"self-healing-devops-agent/enabled": "false"}), True, "it opts out of the agent"),
    ],
)
def test_a_drain_leaves_what_belongs_to_the_node_and_refuses_what_only_a_person_may_move(
    found: NodePod, moves: bool, obstacle: str | None
) -> None:
    """Pods of DaemonSets and of the node itself stay; the agent deletes no data and no lone pod."""
    assert (found.moves, found.obstacle) == (moves, obstacle)


def test_room_is_what_requests_leave() -> None:
    """Containers and sidecars that run together count, and so do pods of the node that stay."""
    requests: JsonObject = {"resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}
    held = pod(spec={"containers": [requests], "initContainers": [{**requests, "restartPolicy": "Always"}]})
    status: JsonObject = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
    node: JsonObject = {"metadata": {"name": "n"}, "status": status, "spec": {}}
    assert room_of(node, [held]) == NodeRoom(name="n", pods=9, cpu_millis=1000, memory_bytes=6 * 2**30)
    assert takes_pods(node)
    assert not takes_pods({"spec": {"unschedulable": True}})
    assert not takes_pods({"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}})


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (NodeLoad(node="node-9", pods=(POD,), rooms=(ROOM,)), None),
        (NodeLoad(node="node-9", pods=(replace(POD, owner=None),), rooms=(ROOM,)), "Pod shop/cart-1 (no"),
        (NodeLoad(node="node-9", pods=(POD,), rooms=()), "no room for Pod shop/cart-1"),
        (NodeLoad(node="node-9", pods=(POD,)), None),
        (NodeLoad(node="node-9", pods=(replace(POD, cpu_millis=5000),), rooms=(ROOM,)), "no room"),
        (NodeLoad(node="node-9", pods=(POD,), rooms=(ROOM,), not_ready=("node-3",)), "not ready either"),
        (NodeLoad(node="node-9", pods=(POD,), rooms=(ROOM,), opted_out=("pay",)), "opt out: pay"),
        (NodeLoad(node="node-9", pods=(POD,) * (MOST_EVICTIONS + 1)), "111 pods would be evicted"),
        (NodeLoad(node="node-9", unread="forbidden"), "cannot be read: forbidden"),
        (None, "no cluster connected"),
    ],
)
def test_a_node_is_drained_only_where_every_pod_can_move(load: NodeLoad | None, said: str | None) -> None:
    """Each obstacle is named; a cordon has none of them."""
    found = "; ".join(cannot_drain(DRAIN, load))
    assert (said in found) if said is not None else not found
    assert cannot_drain(CORDON, load) == ()


def test_pods_are_placed_beside_each_other() -> None:
    """Two pods that fit one by one do not fit together."""
    large = replace(POD, memory_bytes=3 * 2**30)
    small = replace(ROOM, memory_bytes=4 * 2**30)
    assert without_room([large], [small]) == ()
    assert without_room([large, large], [small]) == (large,)
    assert without_room([large, large], [small, replace(small, name="node-3")]) == ()
